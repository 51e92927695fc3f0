package queue

import "time"

// expiringSoon is how near its expiry a message counts as about to expire.
const expiringSoon = 5 * time.Minute

// Count describes a group of waiting messages.
type Count struct {
	Queued   int       `json:"queued"`
	Delayed  int       `json:"delayed"`
	Sending  int       `json:"sending"`
	Paused   int       `json:"paused"`   // of the queued and delayed, those that are due and held back
	Expiring int       `json:"expiring"` // of all, within the next 5 minutes
	Oldest   time.Time `json:"oldest,omitzero"`
}

// Total is how many messages the group has.
func (c Count) Total() int { return c.Queued + c.Delayed + c.Sending }

// Summary is what waits. Of another node only the thousand largest groups of each sort
// are known.
type Summary struct {
	All     Count            `json:"all"`
	Kinds   map[string]Count `json:"kinds"`
	Domains map[string]Count `json:"domains"`
	Tenants map[string]Count `json:"tenants"`
	// Destinations are those that mail waits for, and those that are down.
	Destinations map[string]Destination `json:"destinations"`
	// Scanned: every record of the shards is known; false for the first seconds after a
	// start with a full queue.
	Scanned bool   `json:"scanned"`
	Shards  int    `json:"shards"` // that were asked
	Node    string `json:"node"`
	Missing int    `json:"missing"` // nodes that did not answer
}

// tally counts one group by its number.
type tally struct {
	Count
	oldest int64
}

// Scanned says, at little cost, whether this node has shards and knows every record of
// them.
func (q *Queue) Scanned() bool {
	shards, scanned := q.scanned()
	return shards > 0 && scanned
}

// scanned counts the shards that are ours, and says whether all are scanned.
func (q *Queue) scanned() (shards int, all bool) {
	all = true
	for _, sh := range q.shards {
		if sh.owned(q.mono()) {
			shards++
			all = all && sh.scanned.Load()
		}
	}
	return shards, all
}

// WaitingHere describes what waits on this node's shards. It walks over all of it, 10 ms
// for a million, without holding anything up; call it every few seconds, not for every
// message.
func (q *Queue) WaitingHere() Summary {
	now, _ := q.clock.now()
	soon := now.Add(expiringSoon).UnixMilli()
	var all tally
	groups := [3]map[uint32]*tally{{}, {}, {}}
	s := q.sched
	s.each(func(_ handle, it *item) {
		all.add(it, soon)
		for i, n := range [3]uint32{uint32(it.kind), it.domain, it.tenant} {
			t := groups[i][n]
			if t == nil {
				t = &tally{}
				groups[i][n] = t
			}
			t.add(it, soon)
		}
	})
	sum := Summary{All: all.count(), Node: q.o.Node}
	sum.Shards, sum.Scanned = q.scanned()
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Kinds = named(groups[0], &s.kinds)
	sum.Domains = named(groups[1], &s.domains)
	sum.Tenants = named(groups[2], &s.tenants)
	sum.Destinations = s.destinations(sum.Domains, now)
	return sum
}

// destinations adds the domains of each destination together; mu must be held.
func (s *sched) destinations(domains map[string]Count, now time.Time) map[string]Destination {
	all := map[string]Destination{}
	for domain, c := range domains {
		name := s.tracks.destination(domain)
		d, known := all[name]
		if !known {
			d = s.tracks.shown(name, now)
		}
		d.Domains++
		d.Count = d.Count.plus(c)
		all[name] = d
	}
	for name, t := range s.tracks.byName {
		if _, known := all[name]; t.down() && !known {
			all[name] = t.describe(name, now)
		}
	}
	return all
}

// named gives the groups their names. A name that went out of use since they were
// counted is left out.
func named(groups map[uint32]*tally, n *names) map[string]Count {
	m := make(map[string]Count, len(groups))
	for h, t := range groups {
		if n.list[h].uses > 0 {
			m[n.text(h)] = t.count()
		}
	}
	return m
}

func (t *tally) add(it *item, soon int64) {
	switch {
	case it.place == placeTaken:
		t.Sending++
	case it.flags&flagDelayed != 0:
		t.Delayed++
	default:
		t.Queued++
	}
	if it.place == placeHeld {
		t.Paused++
	}
	if it.exp <= soon {
		t.Expiring++
	}
	if made := madeAt(it.id); t.oldest == 0 || made < t.oldest {
		t.oldest = made
	}
}

func (t *tally) count() Count {
	c := t.Count
	if t.oldest != 0 {
		c.Oldest = time.UnixMilli(t.oldest).UTC()
	}
	return c
}
