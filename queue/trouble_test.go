package queue

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestAStoreThatDoesNotAnswerRefusesIntakeAndHeals(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	b := newBench(t, func(o *Options) {
		o.fault = func(string) error {
			if full.Load() {
				return errStore
			}
			return nil
		}
	})
	first := b.message("invite", "kari@nordlys.example", "kari")
	b.enqueue(first)
	begun, goOn := make(chan struct{}), make(chan struct{})
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		if a.Message.ID == first.ID {
			close(begun)
			<-goOn
		}
		return accept(t.Context(), a)
	})
	<-begun
	full.Store(true)
	second := b.message("invite", "lars@nordlys.example", "lars")
	second.IdempotencyKey = "k"
	if _, err := b.q.Enqueue(t.Context(), second, sha256.Sum256(nil)); problemType(err) != mail.ProblemUnavailable {
		t.Errorf("a full store took a message: %v", err)
	}
	close(goOn) // the attempt's outcome has to wait
	for b.q.Healthy(t.Context()) == nil {
		time.Sleep(time.Millisecond)
	}
	full.Store(false)
	for b.q.Healthy(t.Context()) != nil {
		time.Sleep(time.Millisecond)
	}
	r, err := b.q.Enqueue(t.Context(), second, sha256.Sum256(nil))
	if err != nil {
		t.Fatal(err)
	}
	story := b.until(2)
	if !equalStates(story[first.ID], mail.StateQueued, mail.StateAccepted) || !equalStates(story[r.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("told %v", story)
	}
}

// TestAnotherNodeTakesOver: a node stops without giving anything up, with messages
// waiting and one attempt under way.
func TestAnotherNodeTakesOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Alone = false })
	const n = 20
	for i := range n {
		b.enqueue(b.message("invite", fmt.Sprintf("p%d@d%d.example", i, i), fmt.Sprint(i)))
	}
	for b.q.WaitingHere().All.Total() < n {
		time.Sleep(time.Millisecond)
	}
	var mu sync.Mutex
	tried := map[mail.ID]int{}
	count := func(a *mail.Attempt) {
		mu.Lock()
		defer mu.Unlock()
		tried[a.Message.ID]++
	}
	begun := make(chan struct{}, n)
	first := b.q
	var wg sync.WaitGroup
	wg.Go(func() {
		// It ends with the error that the queue was closed.
		_ = first.Work(t.Context(), t.Context(), func(ctx context.Context, a *mail.Attempt) mail.Outcome {
			count(a)
			begun <- struct{}{}
			// Until the lease may be another's.
			for a.Proceed() == nil {
				time.Sleep(time.Millisecond)
			}
			return mail.Outcome{Local: "interrupted"}
		})
	})
	<-begun
	first.cancel() // no lease is renewed any more
	b.open()
	second := b.q
	b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome {
		count(a)
		return accept(ctx, a)
	})
	for id, states := range b.until(n) {
		if !equalStates(states, mail.StateQueued, mail.StateAccepted) {
			t.Errorf("%s: %v", id, states)
		}
	}
	wg.Wait()
	first.store.acks.close()
	for id, n := range tried {
		if n > 2 {
			t.Errorf("%s was tried %d times: once by each node is the most", id, n)
		}
	}
	if got := second.WaitingHere(); got.All.Total() != 0 {
		t.Errorf("left: %+v", got.All)
	}
}

func TestTwoNodesShareTheShards(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Alone, o.Shards = false, 4 })
	first := b.q
	for first.WaitingHere().Shards < 5 { // and the urgent ones' stream
		time.Sleep(time.Millisecond)
	}
	b.open()
	second := b.q
	for first.WaitingHere().Shards != 3 || second.WaitingHere().Shards != 2 {
		time.Sleep(time.Millisecond)
	}
	const n = 40
	for i := range n {
		b.enqueue(b.message("invite", fmt.Sprintf("p%d@d%d.example", i, i), fmt.Sprint(i)))
	}
	var byFirst, bySecond atomic.Int32
	b.q = first
	b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome { byFirst.Add(1); return accept(ctx, a) })
	b.q = second
	b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome { bySecond.Add(1); return accept(ctx, a) })
	b.until(n)
	if byFirst.Load()+bySecond.Load() != n || byFirst.Load() == 0 || bySecond.Load() == 0 {
		t.Errorf("%d attempts by one node, %d by the other, for %d messages", byFirst.Load(), bySecond.Load(), n)
	}
}

// pausing reports whether anything is held back.
func (s *sched) pausing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pauses) > 0
}

func TestAWishReachesTheOwner(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Alone = false })
	first := b.q
	b.open()
	second := b.q
	for first.WaitingHere().Shards != 2 || second.WaitingHere().Shards != 1 {
		time.Sleep(time.Millisecond)
	}
	if err := first.Pause(t.Context(), "tenant:4711", "lars", "so that they wait"); err != nil {
		t.Fatal(err)
	}
	for !second.sched.pausing() { // the other node hears of it in a moment
		time.Sleep(time.Millisecond)
	}
	b.q = first
	b.work(accept)
	b.q = second
	b.work(accept)
	// Whatever the first node takes in for either shard, one of the two pairs has its
	// older message on the second node.
	var want []mail.ID
	for _, domain := range []string{"nordlys.example", "sydlys.example"} {
		b.q = first
		cancelled := b.message("reset", "a@"+domain, "a"+domain)
		b.enqueue(cancelled)
		if err := first.Cancel(t.Context(), cancelled.ID, "lars", "mistake"); err != nil {
			t.Fatal(err)
		}
		older, newer := b.message("reset", "b@"+domain, "b"+domain), b.message("reset", "b@"+domain, "b"+domain)
		b.enqueue(older)
		b.enqueue(newer)
		want = append(want, cancelled.ID, older.ID)
	}
	story := b.until(4)
	for i, id := range want {
		state := []mail.State{mail.StateCancelled, mail.StateSuperseded}[i%2]
		if !equalStates(story[id], mail.StateQueued, state) {
			t.Errorf("%s: %v, want %s", id, story[id], state)
		}
	}
}

func TestAuditFindsWhatTheStoreLost(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Grace = 10 * time.Millisecond })
	b.q.audit.width = 50 * time.Millisecond
	for i := range 20 {
		b.enqueue(b.message("invite", fmt.Sprintf("p%d@nordlys.example", i), fmt.Sprint(i)))
	}
	stop := b.work(accept)
	b.until(20)
	stop()
	// These have expired before anybody works: neither is ended in time, however slow the
	// test.
	lost, overdue := b.message("invite", "lost@nordlys.example", "lost"), b.message("invite", "overdue@nordlys.example", "overdue")
	for _, m := range []*mail.Message{lost, overdue} {
		m.ExpiresAt = m.QueuedAt
		b.enqueue(m)
		if err := b.q.Said(t.Context(), m.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	// An event that stands in the log twice is no reason for an alarm.
	twice := mail.NewEvent(b.message("invite", "x@nordlys.example", "x"), mail.StateQueued, 0, time.Now())
	twice.ExpiresAt = time.Now().Add(-time.Hour)
	ends := twice
	ends.State, ends.ID = mail.StateAccepted, "other"
	for _, e := range []mail.Event{twice, ends} {
		for i := range 2 {
			e.ID = fmt.Sprint(e.ID, i)
			if err := b.q.Record(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	twice.ID = "third"
	if err := b.q.Record(t.Context(), twice); err != nil {
		t.Fatal(err)
	}
	// The disk forgets one record.
	sh := b.q.shardOf(lost)
	if err := b.q.store.remove(t.Context(), sh.bucket, idKey(lost.ID), casNone); err != nil {
		t.Fatal(err)
	}
	var a Audit
	for len(a.Lost) == 0 {
		var err error
		if a, err = b.q.Audit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(a.Lost) != fmt.Sprint([]mail.ID{lost.ID}) || fmt.Sprint(a.Overdue) != fmt.Sprint([]mail.ID{overdue.ID}) || a.OK() || a.LogHoles != 0 {
		t.Errorf("audit %+v", a)
	}
	b.work(accept)
	b.follow(func(e mail.Event) bool { return e.Message == overdue.ID && e.State == mail.StateExpired })
	a, err := b.q.Audit(t.Context())
	if err != nil || len(a.Overdue) != 0 || len(a.Lost) != 1 || a.Open != 0 {
		t.Errorf("after the overdue one ended: %+v, %v", a, err)
	}
}

func TestWritesThatMeetShareABatch(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	app := b.q.store.appenders[kvStream(bucketKeys)]
	app.pace = pace{single: time.Second, batch: time.Millisecond} // batch whenever there are enough
	const n = 300
	var wg sync.WaitGroup
	seqs := make([]uint64, n)
	for i := range n {
		wg.Add(1)
		app.add(newWrite(bucketKeys, fmt.Sprint("k", i), []byte("v"), casCreate, nil, func(seq uint64, err error) {
			if err != nil {
				t.Error(err)
			}
			seqs[i] = seq
			wg.Done()
		}))
	}
	wg.Wait()
	for i, want := range seqs {
		e, err := b.q.store.get(t.Context(), bucketKeys, fmt.Sprint("k", i))
		if err != nil || e.seq != want {
			t.Fatalf("key %d: revision %v, %v; the write was told %d", i, e, err, want)
		}
	}
	// One conflict in a batch is its own, not the others'.
	var failed atomic.Int32
	for i := range n {
		wg.Add(1)
		rev := seqs[i]
		if i == 150 {
			rev++
		}
		app.add(newWrite(bucketKeys, fmt.Sprint("k", i), []byte("w"), rev, nil, func(_ uint64, err error) {
			if err != nil {
				failed.Add(1)
			}
			wg.Done()
		}))
	}
	wg.Wait()
	if failed.Load() != 1 {
		t.Errorf("%d writes failed, want 1", failed.Load())
	}
}

func TestSharedMap(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s, err := b.q.Shared(t.Context(), "tokens")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "with space", "dotted.key", "ä"} {
		if err := s.Create(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), key, nil); err != ErrExists {
			t.Errorf("%q was created twice: %v", key, err)
		}
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "never"); err != nil {
		t.Error(err)
	}
	if err := s.Create(t.Context(), "a", []byte("again")); err != nil {
		t.Errorf("creating what was deleted: %v", err)
	}
	all, err := s.All(t.Context())
	if err != nil || len(all) != 4 || string(all["a"]) != "again" || string(all["ä"]) != "ä" || string(all["with space"]) != "with space" {
		t.Errorf("all: %q, %v", all, err)
	}
	if _, err := s.Get(t.Context(), "never"); err != ErrNotFound {
		t.Errorf("getting nothing: %v", err)
	}
	if _, err := b.q.Shared(t.Context(), "a b"); err == nil {
		t.Error("a map's name with a space")
	}
}

func TestEventsGoOnWhereTheReaderStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("invite", "kari@nordlys.example", "kari")
	b.enqueue(m)
	b.work(accept)
	b.until(1)
	var last uint64
	for e, err := range b.q.Events(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		last = e.Seq
		break
	}
	for e, err := range b.q.Events(t.Context(), last) {
		if err != nil || e.Seq <= last || e.State != mail.StateAccepted || e.To != m.To {
			t.Errorf("after %d came %+v, %v", last, e, err)
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range b.q.Events(ctx, 0) {
		if err == nil {
			t.Error("an event after the end")
		}
	}
	if err := b.q.Record(t.Context(), mail.Event{Message: m.ID, Tenant: "Nordlys Oy.*", State: mail.EventUsed}); err != nil {
		t.Error(err)
	}
	if n, err := b.q.LastSeq(t.Context()); err != nil || n <= last {
		t.Errorf("last place %d, %v", n, err)
	}
}

// A write that had no answer happens after its Enqueue has given up: the message is
// taken in all the same, by the process that wrote it.
func TestALateWriteIsTakenIn(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	untilScanned(b.q)
	m := b.message("reset", "kari@nordlys.example", "kari")
	b.waiting(m, func(*write) {})
	b.work(accept)
	if story := b.until(1); !equalStates(story[m.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("%v", story[m.ID])
	}
}
