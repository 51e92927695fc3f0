package queue

import (
	"maps"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

const (
	// routesMost bounds the memory of which destination a domain's mail goes to. A domain
	// that was forgotten costs one attempt that may be turned back before it dials.
	routesMost = 200_000
	// tracksMost bounds the destinations of which something is remembered.
	tracksMost = 50_000
	// saidMost bounds the words of a server that are kept, in bytes.
	saidMost = 200
	// aliveFor is how long another node counts as sending to a destination.
	aliveFor = 5 * time.Second
	// pacedBurst is how far ahead of its pace a destination may be.
	pacedBurst = time.Second
)

// trouble is what a destination's servers said when they last took less than was
// offered.
type trouble struct {
	Cause mail.Cause `json:"cause,omitempty"`
	Host  string     `json:"host,omitempty"`
	Said  string     `json:"said,omitempty"`
	At    time.Time  `json:"at,omitzero"`
}

// track is what is remembered of a destination, whether mail waits for it or not.
type track struct {
	window
	limits  Limits
	trouble trouble
	next    int64                // the earliest beginning of the next attempt, in Unix milliseconds
	last    time.Time            // of feedback here
	lastOK  time.Time            // of such that was in order
	others  map[string]time.Time // other nodes that send there, and since when we know
}

// slots is this node's part of the window: nodes that send to the same servers share
// it evenly.
func (t *track) slots(now int64) int {
	n := min(t.Size, t.limits.Most)
	for node, at := range t.others {
		if now-at.UnixMilli() > aliveFor.Milliseconds() {
			delete(t.others, node)
		}
	}
	return max(n/(1+len(t.others)), 1)
}

// pace is the time between two attempts' beginnings, 0 if any will do.
func (t *track) pace() time.Duration { return max(t.Gap, t.limits.gap()) }

// began notes the beginning of an attempt.
func (t *track) began(now int64) {
	if gap := t.pace(); gap > 0 {
		t.next = max(t.next, now-pacedBurst.Milliseconds()) + gap.Milliseconds()
	}
}

// learn takes in an attempt's contact.
func (t *track) learn(o *mail.Outcome, inflight int, now time.Time) {
	if o.Contact == mail.ContactBusy && o.State == mail.StateAccepted {
		t.strain(now)
	} else {
		t.feedback(o.Contact, o.RetryAfter, inflight, t.limits, now)
	}
	t.last = now
	if o.Contact == mail.ContactOK {
		t.lastOK = now
	} else {
		t.trouble = troubleOf(o, now)
	}
}

// troubleOf finds the words of a contact that was not in order: those of the message's
// own fate, or of a host that another one made good.
func troubleOf(o *mail.Outcome, now time.Time) trouble {
	e := &o.Evidence
	if o.State != mail.StateAccepted || len(e.Tries) == 0 {
		return trouble{Cause: o.Cause, Host: e.Host, Said: words(e.Reply, e.Error), At: now.UTC()}
	}
	try := e.Tries[0]
	return trouble{Cause: mail.CauseNetwork, Host: try.Host, Said: words(try.Reply, try.Error), At: now.UTC()}
}

func words(r *mail.Reply, err string) string {
	if r != nil {
		err = r.String()
	}
	return strings.ToValidUTF8(err[:min(len(err), saidMost)], "")
}

// plain says whether nothing is lost when a track is forgotten.
func (t *track) plain(now time.Time) bool {
	return !t.down() && t.Gap == 0 && !now.Before(t.CeilingUntil)
}

// tracks are the destinations and the domains that lead to them. They belong to the
// scheduler's lock.
type tracks struct {
	named  func(domain string) string // Options.Destination
	limits func(destination string) Limits
	most   int // Options.PerDestination
	byName map[string]*track
	heard  map[string]*track // with news for other nodes; nil where there are none
	routes map[string]string // domain → destination
}

// of returns the track of a destination.
func (ts *tracks) of(name string) *track {
	t := ts.byName[name]
	if t == nil {
		if len(ts.byName) >= tracksMost {
			ts.forget(time.Now())
		}
		l := ts.limits(name).withDefaults(ts.most)
		t = &track{limits: l, window: opened(l)}
		ts.byName[name] = t
	}
	return t
}

// forget drops a part of the tracks, those first of which nothing much is known. A
// destination that has mail keeps its own.
func (ts *tracks) forget(now time.Time) {
	maps.DeleteFunc(ts.byName, func(_ string, t *track) bool { return t.plain(now) && now.Sub(t.last) > time.Minute })
	for name := range ts.byName {
		if len(ts.byName) < tracksMost*3/4 {
			return
		}
		delete(ts.byName, name)
	}
}

// destination names the destination of a domain's mail.
func (ts *tracks) destination(domain string) string {
	if name, ok := ts.routes[domain]; ok {
		return name
	}
	if name := ts.named(domain); name != "" {
		return name
	}
	return provisional(domain)
}

// route learns it.
func (ts *tracks) route(domain, name string) {
	if ts.routes[domain] == name {
		return
	}
	if len(ts.routes) >= routesMost {
		for d := range ts.routes {
			if delete(ts.routes, d); len(ts.routes) < routesMost*3/4 {
				break
			}
		}
	}
	ts.routes[domain] = name
}

// shown describes a destination, whether something is known of it or not.
func (ts *tracks) shown(name string, now time.Time) Destination {
	t := ts.byName[name]
	if t == nil {
		l := ts.limits(name).withDefaults(ts.most)
		t = &track{limits: l, window: opened(l)}
	}
	return t.describe(name, now)
}
