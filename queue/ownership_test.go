package queue

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// ownerOf is the shard of a message, once q has it and has scanned it.
func ownerOf(q *Queue, m *mail.Message) *shard {
	sh := q.shardOf(m)
	for !sh.ours() || !sh.scanned.Load() {
		time.Sleep(time.Millisecond)
	}
	return sh
}

// A shard is lost for a moment while a worker has one of its messages, and comes back
// before the worker is done: the message must not be forgotten with the ownership that
// the worker began under.
func TestAShardThatComesBackKeepsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]mail.Outcome{
		"delayed":     {State: mail.StateDelayed, Cause: mail.CauseGreylisted},
		"interrupted": {Local: "the lease ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *Options) { o.Alone = false })
			m := b.message("invite", "kari@nordlys.example", "kari")
			sh := ownerOf(b.q, m)
			b.enqueue(m)
			begun, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome {
				o := accept(ctx, a)
				once.Do(func() {
					close(begun)
					<-goOn
					o = first
				})
				return o
			})
			<-begun
			if _, err := b.q.store.put(t.Context(), bucketLeases, sh.key, []byte("another"), casNone); err != nil {
				t.Fatal(err)
			}
			for sh.ours() {
				time.Sleep(time.Millisecond)
			}
			if err := b.q.store.remove(t.Context(), bucketLeases, sh.key, casNone); err != nil {
				t.Fatal(err)
			}
			ownerOf(b.q, m)
			close(goOn)
			if story := b.until(1)[m.ID]; story[len(story)-1] != mail.StateAccepted {
				t.Errorf("told %v", story)
			}
		})
	}
}

// What one node took in and another was sending when it died may have been handed
// over, whoever takes the shard then: the node that wrote the record too.
func TestACrashLeavesADoubtWithTheNodeThatTookTheMessageIn(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Alone = false })
	sender := b.q
	for sender.WaitingHere().Shards < 3 {
		time.Sleep(time.Millisecond)
	}
	b.open()
	taker := b.q
	for sender.WaitingHere().Shards != 2 || taker.WaitingHere().Shards != 1 {
		time.Sleep(time.Millisecond)
	}
	m := b.message("invite", "kari@d0.example", "kari")
	for i := 0; !sender.shardOf(m).ours(); i++ {
		m.To = mail.Address(fmt.Sprintf("kari@d%d.example", i))
	}
	b.enqueue(m)
	begun := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		// It ends with the error that the queue was closed.
		_ = sender.Work(t.Context(), t.Context(), func(_ context.Context, a *mail.Attempt) mail.Outcome {
			close(begun)
			for a.Proceed() == nil {
				time.Sleep(time.Millisecond)
			}
			return mail.Outcome{Local: "died"}
		})
	})
	<-begun
	sender.cancel() // no lease is renewed any more
	b.work(accept)
	events := b.follow(func(e mail.Event) bool { return e.State.Terminal() })
	wg.Wait()
	sender.store.acks.close()
	if last := events[len(events)-1]; !last.PossibleDuplicate {
		t.Errorf("nobody says that it may have been sent twice: %+v", last)
	}
}

// A wish is a revision of ours that settles nothing: the attempt that a crash cut off
// may have handed the message over all the same.
func TestACancelSettlesNoDoubt(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Journal = filepath.Join(t.TempDir(), "journal") })
	m := b.message("invite", "kari@nordlys.example", "kari")
	sh := ownerOf(b.q, m)
	b.enqueue(m)
	sh.doubt.Store(time.Now().UnixMilli()) // as if the process had been killed
	b.q.journal.left[m.ID] = b.q.journal.begin(m.ID)
	if err := b.q.Cancel(t.Context(), m.ID, "kari", "wrong person"); err != nil {
		t.Fatal(err)
	}
	b.work(accept)
	events := b.follow(func(e mail.Event) bool { return e.State.Terminal() })
	if last := events[len(events)-1]; last.State != mail.StateCancelled || !last.PossibleDuplicate {
		t.Errorf("ended as %+v", last)
	}
}

// A shard that goes to another node in order goes without a doubt: from then on no
// attempt of it may begin here, though messages are still taken in for it.
func TestAShardThatIsLeftBeginsNothingNew(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Alone = false })
	m := b.message("invite", "kari@nordlys.example", "kari")
	sh := ownerOf(b.q, m)
	sh.leaving.Store(true)
	b.enqueue(m)
	b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome {
		if sh.leaving.Load() {
			t.Error("an attempt began while the shard was being left")
		}
		return accept(ctx, a)
	})
	b.until(1)
}

// The secret is opened only where it is sent: what Enqueue keeps at hand is sealed.
func TestNothingIsKeptOpenInMemory(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("pin", "kari@nordlys.example", "kari")
	ownerOf(b.q, m)
	b.enqueue(m)
	b.q.hot.mu.Lock()
	defer b.q.hot.mu.Unlock()
	hot, ok := b.q.hot.byID[m.ID]
	if !ok {
		t.Fatal("the record is not kept at hand")
	}
	if hot.r.Message.Data != nil {
		t.Error("its data is kept in clear beside the sealed form")
	}
}

// Between a message's coming into the scheduler and the end of its Enqueue, a newer
// one may be accepted: no worker may get the older one as one to be tried.
func TestAMessageSupersededWhileItEntersIsNeverTried(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	first := b.message("invite", "kari@nordlys.example", "kari")
	sh := ownerOf(b.q, first)
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for got := 0; got < n; {
			taken, _, ok := b.q.sched.take(time.Now())
			if !ok {
				continue
			}
			got++
			if !taken.ending {
				t.Errorf("message %d was to be tried", got)
			}
			b.q.sched.done(taken)
		}
	})
	for range n {
		m := b.message("invite", "kari@nordlys.example", "kari")
		b.q.enters.begin(m.ID)
		b.q.enters.supersede(m.ID)
		b.q.entered(sh, &record{Message: *m, State: mail.StateQueued, Due: m.QueuedAt}, 1)
	}
	wg.Wait()
}

// What is counted of a message's troubles goes with the message, however it goes.
func TestTroublesAreForgottenWithTheirMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("invite", "kari@nordlys.example", "kari")
	sh := ownerOf(b.q, m)
	b.enqueue(m)
	b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome {
		if err := b.q.store.remove(ctx, sh.bucket, idKey(m.ID), casNone); err != nil {
			t.Error(err)
		}
		return mail.Outcome{Local: "a fault of our own"}
	})
	gone := func() bool {
		b.q.sched.mu.Lock()
		defer b.q.sched.mu.Unlock()
		return len(b.q.sched.byID) == 0
	}
	for !gone() {
		time.Sleep(time.Millisecond)
	}
	b.q.troublesMu.Lock()
	defer b.q.troublesMu.Unlock()
	if len(b.q.locals) != 0 {
		t.Errorf("%d messages are remembered for their troubles", len(b.q.locals))
	}
}
