package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Status is where a waiting message stands.
type Status struct {
	Message  mail.Message `json:"message"` // without Data
	State    mail.State   `json:"state"`
	Attempts int          `json:"attempts"` // that ended and counted
	Next     time.Time    `json:"next"`     // when it is due, or its destination is looked at if that is later
	Last     mail.Event   `json:"last"`
	Paused   string       `json:"paused,omitempty"` // the selector that holds it back
}

// find looks a message up in every shard: its id does not tell its domain.
func (q *Queue) find(ctx context.Context, id mail.ID) (*shard, *record, uint64, error) {
	b, err := id.Bytes()
	if err != nil {
		return nil, nil, 0, ErrNotFound
	}
	shards := slices.Clone(q.shards)
	if n, ok := q.sched.shardOf(b); ok {
		shards[0], shards[n] = shards[n], shards[0]
	}
	for _, sh := range shards {
		r, rev, err := q.load(ctx, sh, id)
		if !errors.Is(err, ErrNotFound) {
			return sh, r, rev, err
		}
	}
	return nil, nil, 0, ErrNotFound
}

// Status says where a message stands. ErrNotFound: it is not waiting; the event log
// knows what became of it. For a moment after its end Status still shows the end.
func (q *Queue) Status(ctx context.Context, id mail.ID) (Status, error) {
	_, r, _, err := q.find(ctx, id)
	if err != nil {
		return Status{}, err
	}
	s := Status{Message: r.Message, State: r.State, Attempts: r.Attempts, Next: r.Due, Last: r.last()}
	if b, err := id.Bytes(); err == nil && !r.State.Terminal() {
		sending, paused, look := q.sched.standing(b)
		if sending {
			s.State = mail.StateSending
		}
		s.Paused = paused
		if look.After(s.Next) {
			s.Next = look
		}
	}
	return s, nil
}

// Cancel asks that no further attempt of a message begins; nil means that the wish is
// safe. An attempt under way is stopped if its final dot has not been sent, and may
// yet succeed. ErrNotFound: it is not waiting. A *mail.Problem: it has ended.
func (q *Queue) Cancel(ctx context.Context, id mail.ID, by, reason string) error {
	sh, _, _, err := q.find(ctx, id)
	if err != nil {
		return err
	}
	return q.wish(ctx, sh, id, func(r *record) { r.Cancel = &wish{By: by, Reason: reason} })
}

// wish adds a wish to a waiting message's record, as any node may; the shard's owner
// carries it out.
func (q *Queue) wish(ctx context.Context, sh *shard, id mail.ID, change func(*record)) error {
	for {
		r, rev, err := q.load(ctx, sh, id)
		if err != nil {
			return err
		}
		if r.State.Terminal() {
			return &mail.Problem{Type: mail.ProblemAlreadyEnded, Title: "The message has ended",
				Status: http.StatusConflict, Detail: "it is " + string(r.State), Message: id}
		}
		change(r)
		w, err := q.recordWrite(sh, r, rev)
		if err != nil {
			return err
		}
		at, err := q.store.await(sh.bucket, w)
		if errors.Is(err, errConflict) {
			continue
		}
		if err != nil {
			return q.storeProblem(err)
		}
		b, err := id.Bytes()
		if err != nil || !sh.ours() {
			q.passOn(sh, id, at)
			return nil
		}
		if _, here := q.sched.shardOf(b); !here {
			// The feed has still to come by, or is taking it in: what the record brought
			// before may be unsaid.
			q.wg.Go(func() { q.adopt(sh, id, at) })
			return nil
		}
		x := r.index(q.session)
		q.sched.put(b, sh.n, at, x)
		q.sched.mark(b, x.wish)
		q.passOn(sh, id, at)
		return nil
	}
}

// passOn counts a revision as said once the facts that it carries along are.
func (q *Queue) passOn(sh *shard, id mail.ID, rev uint64) {
	if q.unsaid.has(id) {
		q.later(50*time.Millisecond, func() { q.passOn(sh, id, rev) })
		return
	}
	sh.said(rev)
}

// selector picks messages: "kind:invite", "domain:nordlys.fi",
// "provider:microsoft365", "tenant:4711".
type selector struct{ what, value string }

func (s selector) String() string { return s.what + ":" + s.value }

func parseSelector(s string) (selector, error) {
	what, value, _ := strings.Cut(s, ":")
	switch what {
	case "domain":
		value = strings.ToLower(value)
	case "kind", "provider", "tenant":
	default:
		value = ""
	}
	if value == "" {
		return selector{}, &mail.Problem{Type: mail.ProblemInvalid, Title: "Not a selector", Status: http.StatusBadRequest,
			Detail: "want kind:NAME, domain:NAME, provider:NAME or tenant:NAME", Field: "selector"}
	}
	return selector{what, value}, nil
}

// matches reports whether a selector picks an item; mu must be held.
func (s *sched) matches(sel selector, it *item) bool {
	switch sel.what {
	case "kind":
		return s.kinds.text(uint32(it.kind)) == sel.value
	case "domain":
		return s.domains.text(it.domain) == sel.value
	case "tenant":
		return s.tenants.text(it.tenant) == sel.value
	default:
		return s.provider(s.domains.text(it.domain)) == sel.value
	}
}

// pausedBy returns the selector that holds an item back, "" if none; mu must be held.
func (s *sched) pausedBy(it *item) string {
	for _, sel := range s.pauses {
		if s.matches(sel, it) {
			return sel.String()
		}
	}
	return ""
}

// setPauses replaces what is paused, and lets go what is not any more.
func (s *sched) setPauses(sels []selector) {
	s.mu.Lock()
	s.pauses = sels
	s.mu.Unlock()
	s.each(func(h handle, it *item) {
		if it.place == placeHeld && s.pausedBy(it) == "" {
			s.timers.remove(it.timer)
			s.makeReady(h)
		}
	})
	s.wake()
}

// retryNow makes due what a selector picks, and has its destinations looked at.
func (s *sched) retryNow(sel selector, now time.Time) int {
	n := 0
	s.each(func(h handle, it *item) {
		waiting := it.place == placeWaiting && it.due > now.UnixMilli()
		if !waiting && it.place != placeReady || !s.matches(sel, it) {
			return
		}
		if waiting {
			it.due = now.UnixMilli()
			s.timers.fix(it.timer)
			n++
		}
		name := s.destOf(it)
		if t := s.tracks.byName[name]; t != nil && t.down() && t.Look.After(now) {
			t.Look = now
			if id, ok := s.destIDs.byName[name]; ok && s.dests[id] != nil {
				s.now = now.UnixMilli()
				s.reopen(id)
			}
		}
	})
	s.wake()
	return n
}

// shardOf says on which shard a message is, if it is here.
func (s *sched) shardOf(id [16]byte) (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.byID[id]
	if !ok {
		return 0, false
	}
	return int(s.items.at(h).shard), true
}

// standing says whether a worker has a message, which selector holds it back, and when
// its destination is looked at, should that be down.
func (s *sched) standing(id [16]byte) (sending bool, paused string, look time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.byID[id]
	if !ok {
		return false, "", time.Time{}
	}
	it := s.items.at(h)
	if t := s.tracks.byName[s.destOf(it)]; t != nil && t.down() && it.lane > 1 && it.exp > t.Look.UnixMilli() {
		look = t.Look.UTC()
	}
	return it.place == placeTaken, s.pausedBy(it), look
}

// Pause says that nothing which the selector picks is tried.
type Pause struct {
	Selector string    `json:"selector"`
	By       string    `json:"by"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
}

const pauseMap = "queue.pause"

func (sel selector) key() string { return sel.what + "." + mail.SubjectToken(sel.value) }

// Pause holds back what a selector picks, on every node and over restarts, until
// Resume. Messages that are paused still expire. An attempt under way ends.
func (q *Queue) Pause(ctx context.Context, sel, by, reason string) error {
	s, err := parseSelector(sel)
	if err != nil {
		return err
	}
	b, err := json.Marshal(Pause{Selector: s.String(), By: by, Reason: reason, Since: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	if _, err := q.store.put(ctx, bucketShared, pauseMap+"."+s.key(), b, casNone); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	return q.loadPauses(ctx)
}

// Resume ends a Pause. ErrNotFound: there is none. by and reason are the caller's to
// log.
func (q *Queue) Resume(ctx context.Context, sel string) error {
	s, err := parseSelector(sel)
	if err != nil {
		return err
	}
	if _, err := q.store.get(ctx, bucketShared, pauseMap+"."+s.key()); err != nil {
		return err
	}
	if err := q.store.remove(ctx, bucketShared, pauseMap+"."+s.key(), casNone); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	return q.loadPauses(ctx)
}

// Pauses lists what is paused, by selector.
func (q *Queue) Pauses(ctx context.Context) ([]Pause, error) {
	shared, err := q.Shared(ctx, pauseMap)
	if err != nil {
		return nil, err
	}
	all, err := shared.All(ctx)
	if err != nil {
		return nil, err
	}
	var list []Pause
	for _, b := range all {
		var p Pause
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, errRecord
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Pause) int { return strings.Compare(a.Selector, b.Selector) })
	return list, nil
}

// Hold replaces what this node holds back by its own decision, beside what is paused:
// the kinds of a maintenance window. Nothing of it is stored, so a caller repeats it
// after a restart, and each node has one of its own.
func (q *Queue) Hold(ctx context.Context, sels []string) error {
	held := make([]selector, 0, len(sels))
	for _, sel := range sels {
		s, err := parseSelector(sel)
		if err != nil {
			return err
		}
		held = append(held, s)
	}
	q.held.Store(&held)
	return q.loadPauses(ctx)
}

// loadPauses brings the scheduler to what the store says is paused, and to what is held.
func (q *Queue) loadPauses(ctx context.Context) error {
	list, err := q.Pauses(ctx)
	if err != nil {
		return err
	}
	var sels []selector
	if held := q.held.Load(); held != nil {
		sels = append(sels, *held...)
	}
	for _, p := range list {
		if s, err := parseSelector(p.Selector); err == nil {
			sels = append(sels, s)
		}
	}
	q.sched.setPauses(sels)
	return nil
}
