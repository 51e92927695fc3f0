package queue

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/mail"
)

// What one node learns of a destination the others must know: lane 1's shard and the
// domains' shards may be different nodes', and a provider's domains are on all of them.
// Each second a node tells what it learned in that second, in a message that is lost if
// nobody listens; there is no lock, and no write for a message. Now and then, and at
// the end, what would cost refusals to learn again is written into the store.

const (
	subjectLearned = "deliverd.v1.node.learned"
	learnedKey     = "destinations"
	learnedMap     = "queue.learned"
	// toldMost bounds the destinations in one message: with names of 100 bytes, 300 KiB
	// of the 1 MiB that a NATS server takes.
	toldMost = 1000
	// keptMost bounds those that are written.
	keptMost = 500
	// keepEvery is how often they are.
	keepEvery = time.Minute
	// keptFor is how long what was written is believed: a restart, not a week's pause.
	keptFor = 15 * time.Minute
	// newsFor is how long what a node heard itself stands beside what others tell: a
	// second until it is told, and one on the way.
	newsFor = 2 * time.Second
	// nameMost is the longest name of a destination that is believed from outside.
	nameMost = 300
)

// lesson is what a node tells of one destination.
type lesson struct {
	Name string `json:"name"`
	window
	Trouble trouble `json:"trouble,omitzero"`
	OK      bool    `json:"ok,omitempty"`     // a contact was in order within newsFor
	Heard   bool    `json:"heard,omitempty"`  // there was a contact since the last lesson
	Active  bool    `json:"active,omitempty"` // attempts are under way, or were within this second
}

// lessons is a message, or the value in the store.
type lessons struct {
	Node         string    `json:"node"`
	At           time.Time `json:"at"`
	Destinations []lesson  `json:"destinations"`
}

// lessons returns what was heard since the last call, and where attempts are under way.
// A contact within that second is as much as an attempt under way: who sends in bursts
// rests at most moments, and each node would take the whole window for the next one.
func (s *sched) lessons(now time.Time) (all []lesson) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, t := range s.tracks.heard {
		all = append(all, lesson{Name: name, window: t.window, Trouble: t.trouble, OK: t.wasOK(now), Heard: true, Active: true})
	}
	for id, d := range s.dests {
		if d != nil && d.inflight > 0 {
			if name := s.destIDs.text(uint32(id)); s.tracks.heard[name] == nil {
				all = append(all, lesson{Name: name, window: d.track.window, Active: true})
			}
		}
	}
	clear(s.tracks.heard)
	return all
}

// hear takes in what another node learned.
func (s *sched) hear(node string, l *lesson, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tracks.of(l.Name)
	if l.Active {
		if t.others == nil {
			t.others = map[string]time.Time{}
		}
		t.others[node] = now
	} else {
		delete(t.others, node)
	}
	if l.Heard {
		t.merge(l, now)
	}
	if id, ok := s.destIDs.byName[l.Name]; ok && s.dests[id] != nil {
		s.reopen(id)
		s.wake()
	}
}

// merge takes over what another node heard of a destination. Where this one has heard
// something of it in the same second, the more careful view holds; and a destination
// that answered one of them is not down.
func (t *track) merge(l *lesson, now time.Time) {
	l.bound(t.limits, now)
	if l.Trouble.At.After(t.trouble.At) {
		t.trouble = l.Trouble
	}
	switch {
	case now.Sub(t.last) >= newsFor:
		t.window = l.window
	case l.down() && t.wasOK(now), t.down() && l.OK:
		if t.down() {
			t.window = l.window
		}
	default:
		w := l.window
		w.Size, w.Proven = min(w.Size, t.Size), w.Proven || t.Proven
		if t.Ceiling > 0 && t.CeilingUntil.After(w.CeilingUntil) {
			w.Ceiling, w.CeilingUntil = t.Ceiling, t.CeilingUntil
		}
		if w.Looks < t.Looks {
			w.Looks, w.Look = t.Looks, t.Look
		}
		w.Gap = max(w.Gap, t.Gap)
		t.window = w
	}
}

// wasOK says whether a contact here was in order a moment ago.
func (t *track) wasOK(now time.Time) bool { return now.Sub(t.lastOK) < newsFor }

// bound keeps what came over the network within what feedback could have made of it.
func (l *lesson) bound(limits Limits, now time.Time) {
	l.Size = min(max(l.Size, 1), limits.Most)
	l.Looks = min(max(l.Looks, 0), 1000)
	l.Gap = min(max(l.Gap, 0), lastGap)
	l.Cohorts = min(max(l.Cohorts, 0), cohortLimit)
	l.Success = min(max(l.Success, 0), 1)
	l.Ceiling = max(l.Ceiling, 0)
	if most := now.Add(lookHint); l.Look.After(most) {
		l.Look = most
	}
	if most := now.Add(ceilingFor); l.CeilingUntil.After(most) {
		l.CeilingUntil = most
	}
	l.Trouble.Said = l.Trouble.Said[:min(len(l.Trouble.Said), saidMost)]
}

// tell says what was learned in the last second.
func (q *Queue) tell() {
	now, _ := q.clock.now()
	for part := range slices.Chunk(q.sched.lessons(now), toldMost) {
		b, err := json.Marshal(lessons{Node: q.o.Node, At: now, Destinations: part})
		if err != nil {
			q.o.Log.Error("what was learned of destinations can't be told", "err", err)
			return
		}
		if err := q.store.nc.Publish(subjectLearned, b); err != nil {
			return // the next second has news of its own
		}
	}
}

// told takes in another node's message.
func (q *Queue) told(m *nats.Msg) {
	var all lessons
	if json.Unmarshal(m.Data, &all) != nil || all.Node == "" || all.Node == q.o.Node || len(all.Destinations) > toldMost {
		return
	}
	now, _ := q.clock.now()
	for i := range all.Destinations {
		if l := &all.Destinations[i]; l.Name != "" && len(l.Name) <= nameMost {
			q.sched.hear(all.Node, l, now)
		}
	}
}

// worthKeeping returns what would cost refusals to learn again, the newest trouble
// first.
func (s *sched) worthKeeping(now time.Time) (all []lesson) {
	s.mu.Lock()
	for name, t := range s.tracks.byName {
		if !t.plain(now) {
			all = append(all, lesson{Name: name, window: t.window, Trouble: t.trouble})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b lesson) int {
		if c := b.Trouble.At.Compare(a.Trouble.At); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all[:min(len(all), keptMost)]
}

// keepLearned writes it. All nodes know the same, more or less: the last one that
// writes has it.
func (q *Queue) keepLearned(ctx context.Context) {
	now, _ := q.clock.now()
	all := q.sched.worthKeeping(now)
	if len(all) == 0 && !q.keeps {
		return
	}
	b, err := json.Marshal(lessons{Node: q.o.Node, At: now, Destinations: all})
	if err == nil {
		_, err = q.store.put(ctx, bucketShared, learnedMap+"."+learnedKey, b, casNone)
	}
	if err != nil {
		q.o.Log.Warn("what was learned of destinations could not be written", "err", err)
		return
	}
	q.keeps = len(all) > 0
}

// recallLearned reads what an earlier process wrote.
func (q *Queue) recallLearned(ctx context.Context) error {
	e, err := q.store.get(ctx, bucketShared, learnedMap+"."+learnedKey)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	q.keeps = true
	var all lessons
	now, _ := q.clock.now()
	if json.Unmarshal(e.data, &all) != nil || now.Sub(all.At).Abs() > keptFor {
		return nil // to know nothing costs some refusals
	}
	for i := range all.Destinations {
		l := &all.Destinations[i]
		if l.Name != "" && len(l.Name) <= nameMost {
			l.Heard = true
			q.sched.hear("", l, now)
		}
	}
	return nil
}

// Destination is where mail of one or more domains goes.
type Destination struct {
	Name    string `json:"name"`
	Domains int    `json:"domains"` // that have mail waiting for it
	Count
	Window int       `json:"window"` // attempts at once, over all nodes
	State  string    `json:"state"`  // "open", "limited" or "down"
	Gap    float64   `json:"gap_seconds,omitempty"`
	Since  time.Time `json:"since,omitzero"` // of the trouble
	Look   time.Time `json:"look,omitzero"`  // of one that is down: when it is looked at next
	// The last trouble.
	Cause mail.Cause `json:"cause,omitempty"`
	Host  string     `json:"host,omitempty"`
	Said  string     `json:"said,omitempty"`
	At    time.Time  `json:"at,omitzero"`
}

// The states of a destination.
const (
	DestinationOpen    = "open"
	DestinationLimited = "limited" // a server asked for less, or mail is paced
	DestinationDown    = "down"
)

// describe shows a track.
func (t *track) describe(name string, now time.Time) Destination {
	d := Destination{Name: name, Window: min(t.Size, t.limits.Most), State: DestinationOpen, Gap: t.pace().Seconds(), Since: t.Since,
		Cause: t.trouble.Cause, Host: t.trouble.Host, Said: t.trouble.Said, At: t.trouble.At}
	switch {
	case t.down():
		d.State, d.Look, d.Window = DestinationDown, t.Look, 1
	case t.Gap > 0, now.Before(t.CeilingUntil):
		d.State = DestinationLimited
	}
	return d
}
