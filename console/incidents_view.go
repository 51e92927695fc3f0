package console

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// tallies keeps the counts of slots that are over. Only a late event changes one,
// and then it is counted anew. The zero value is ready.
type tallies struct {
	mu     sync.Mutex
	slots  map[int64][]slotTally // guarded by mu; nil before the first count
	listed []Incident            // guarded by mu; what they came to
	at     time.Time             // guarded by mu; … and when

	lateMu sync.Mutex // apart, so that folding never waits for a count
	late   map[int64]struct{}
}

// incidentsFor is how long a list of incidents is good for: it is asked for by
// everybody who looks at a person, and by anybody at all for the public status.
const incidentsFor = 10 * time.Second

// changed notes the slots that events belong to.
func (t *tallies) changed(batch []mail.LoggedEvent) {
	t.lateMu.Lock()
	defer t.lateMu.Unlock()
	if t.late == nil {
		t.late = map[int64]struct{}{}
	}
	for _, e := range batch {
		t.late[slotOf(e.At)] = struct{}{}
	}
}

// forgetChanged drops the counts that are not right any more.
func (t *tallies) forgetChanged() {
	t.lateMu.Lock()
	defer t.lateMu.Unlock()
	for slot := range t.late {
		delete(t.slots, slot)
	}
	clear(t.late)
}

// Incidents returns what goes wrong for many, and what did within the last 24 hours:
// the open ones first, without texts, see [TellIncident].
func (v *View) Incidents(ctx context.Context) ([]Incident, error) {
	v.mu.RLock()
	t := &v.store.tallies
	v.mu.RUnlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	now := v.now()
	if age := now.Sub(t.at); !t.at.IsZero() && age >= 0 && age < incidentsFor {
		return t.listed, nil
	}
	t.forgetChanged()
	// Whoever asks first after a start has a day counted, for everybody: it is not given
	// up with their request.
	all, err := v.countSlots(context.WithoutCancel(ctx), t, now)
	if err != nil {
		return nil, err
	}
	t.listed, t.at = findIncidents(all, now), now
	return t.listed, nil
}

// countSlots returns the tallies of the lookback. It counts the slots that are not
// kept, from the first of them to now.
func (v *View) countSlots(ctx context.Context, t *tallies, now time.Time) ([]slotTally, error) {
	first, current := slotOf(now.Add(-incidentLookback)), slotOf(now)
	from := first
	for ; from < current; from++ {
		if _, kept := t.slots[from]; !kept {
			break
		}
	}
	counted, err := v.countAttempts(ctx, slotBegin(from), slotBegin(current+1))
	if err != nil {
		return nil, err
	}
	keep := make(map[int64][]slotTally, current-first+1)
	for slot := first; slot < current; slot++ {
		keep[slot] = nil
		if slot < from {
			keep[slot] = t.slots[slot]
		}
	}
	troubled := map[string]bool{}
	var all []slotTally
	for slot := first; slot < from; slot++ {
		for _, c := range keep[slot] {
			troubled[c.domain] = troubled[c.domain] || c.state != mail.StateAccepted
		}
		all = append(all, keep[slot]...)
	}
	for _, c := range byProviderOnly(counted, troubled) {
		if c.slot < current {
			keep[c.slot] = append(keep[c.slot], c)
		}
		all = append(all, c)
	}
	t.slots = keep
	return all, nil
}

// byProviderOnly joins what was taken at domains that never had trouble into one
// tally for each provider: there are as many of those as there are recipients'
// domains, and nothing is asked of them one by one.
func byProviderOnly(counted []slotTally, troubled map[string]bool) []slotTally {
	type well struct {
		slot     int64
		provider string
	}
	joined := map[well]int{}
	var kept []slotTally
	for _, c := range counted {
		if c.state != mail.StateAccepted {
			troubled[c.domain] = true
		}
		if c.state != mail.StateAccepted || troubled[c.domain] {
			kept = append(kept, c)
			continue
		}
		w := well{c.slot, c.provider}
		if i, ok := joined[w]; ok {
			kept[i].messages += c.messages
			continue
		}
		c.domain = ""
		joined[w] = len(kept)
		kept = append(kept, c)
	}
	return kept
}

// countAttempts tallies the attempts of a time, in the order of slots, and in each
// the failures first.
func (v *View) countAttempts(ctx context.Context, from, before time.Time) ([]slotTally, error) {
	var counted []slotTally
	err := v.query(ctx, func(rows *sql.Rows) error {
		var c slotTally
		var first, last int64
		if err := rows.Scan(&c.slot, &c.provider, &c.domain, &c.state, &c.cause, &c.messages, &first, &last); err != nil {
			return err
		}
		c.first, c.last = fromMicros(first), fromMicros(last)
		counted = append(counted, c)
		return nil
	}, `SELECT at / ?1 AS slot, provider, domain, state, cause, count(DISTINCT message), min(at), max(at)
		FROM events WHERE state IN ('accepted', 'delayed', 'refused') AND at >= ?2 AND at < ?3
		GROUP BY slot, provider, domain, state, cause ORDER BY slot, state DESC, provider, domain, cause`,
		incidentSlot.Microseconds(), micros(from), micros(before))
	return counted, err
}
