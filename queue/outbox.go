package queue

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/mail"
)

// outbox knows which revisions of one shard's records brought facts that are not in
// the event log yet. Its mark, saved now and then, says up to which revision all are,
// so that a crash repeats a second's worth of events and not a million.
type outbox struct {
	mu    sync.Mutex
	pos   uint64              // guarded by mu: how far the feed has come
	open  map[uint64]struct{} // guarded by mu: seen by the feed, not in the log
	early map[uint64]struct{} // guarded by mu: in the log before the feed came by
}

func newOutbox() *outbox {
	return &outbox{open: map[uint64]struct{}{}, early: map[uint64]struct{}{}}
}

// saw notes that the feed came by a revision; facts says whether it brought any.
func (o *outbox) saw(rev uint64, facts bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pos = max(o.pos, rev)
	if _, done := o.early[rev]; done {
		delete(o.early, rev)
	} else if facts {
		o.open[rev] = struct{}{}
	}
}

// said notes that a revision's facts are in the log.
func (o *outbox) said(rev uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if rev > o.pos {
		o.early[rev] = struct{}{}
	} else {
		delete(o.open, rev)
	}
}

// mark is the revision up to which every fact is in the log.
func (o *outbox) mark() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.pos
	for rev := range o.open {
		m = min(m, rev-1)
	}
	for rev := range o.early {
		if rev <= o.pos { // the feed never came by: a newer revision took its place
			delete(o.early, rev)
		}
	}
	return m
}

// eventLinger is how long an event may wait for company; see appender.
const eventLinger = 50 * time.Millisecond

const (
	headerEventID      = "D-Message"
	headerEventExpires = "D-Expires"
)

// say publishes facts to the event log until they are there, and then calls then,
// which must not block. Publishing one twice changes nothing: the log refuses an ID
// that it had lately, and its readers one that they had ever.
func (q *Queue) say(facts []mail.Event, then func()) {
	if len(facts) == 0 {
		then()
		return
	}
	q.unsaid.add(facts)
	var mu sync.Mutex
	left := len(facts)
	for _, e := range facts {
		q.publish(e, 0, func() {
			q.unsaid.remove(e)
			if q.o.Observe != nil {
				q.o.Observe(e)
			}
			mu.Lock()
			left--
			last := left == 0
			mu.Unlock()
			if last {
				then()
			}
		})
	}
}

// publish puts one event into the log, trying again until the queue is closed.
func (q *Queue) publish(e mail.Event, tries int, then func()) {
	w := eventWrite(e)
	w.done = func(_ uint64, err error) {
		if err == nil {
			then()
			return
		}
		if tries == 0 {
			q.o.Log.Warn("an event could not be published; trying again", "event", e.ID, "err", err)
		}
		q.later(backoff(tries), func() { q.publish(e, tries+1, then) })
	}
	q.store.appenders[eventStream].add(w)
}

func eventWrite(e mail.Event) *write {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // an Event holds nothing that JSON can't
	}
	m := &nats.Msg{Subject: eventSubject(e), Data: b, Header: nats.Header{headerMsgID: {e.ID}}}
	if e.Message != "" {
		m.Header[headerEventID] = []string{string(e.Message)}
		m.Header[headerEventExpires] = []string{e.ExpiresAt.UTC().Format(time.RFC3339)}
	}
	return &write{msg: m, lazy: eventLinger}
}

func eventSubject(e mail.Event) string {
	return "deliverd.v1.event." + mail.SubjectToken(e.Tenant) + "." + mail.SubjectToken(string(e.State))
}

// backoff is the wait before try number tries+1 of something of our own: 100 ms,
// doubling to 5 s.
func backoff(tries int) time.Duration {
	return min(100*time.Millisecond<<min(tries, 10), 5*time.Second)
}

// unsaidFacts are the facts of each message that are on their way to the log. A
// revision written meanwhile carries them along, so that a crash loses none.
type unsaidFacts struct {
	mu   sync.Mutex
	byID map[mail.ID][]mail.Event
	n    int
}

func (u *unsaidFacts) add(facts []mail.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range facts {
		u.byID[e.Message] = append(u.byID[e.Message], e)
		u.n++
	}
}

func (u *unsaidFacts) remove(e mail.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.byID[e.Message]
	for i := range list {
		if list[i].ID == e.ID {
			list = append(list[:i:i], list[i+1:]...)
			u.n--
			break
		}
	}
	if len(list) == 0 {
		delete(u.byID, e.Message)
	} else {
		u.byID[e.Message] = list
	}
}

func (u *unsaidFacts) of(id mail.ID) []mail.Event {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]mail.Event(nil), u.byID[id]...)
}

func (u *unsaidFacts) has(id mail.ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.byID[id]) > 0
}

func (u *unsaidFacts) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n
}
