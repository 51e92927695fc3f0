package queue

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// untilScanned waits until q knows all that waits.
func untilScanned(q *Queue) {
	for {
		sum := q.WaitingHere()
		if sum.Scanned && sum.Shards == len(q.shards) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// calls notes which streams are written to and read.
type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) note(call string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, call)
	return nil
}

func (c *calls) count(part string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.all {
		if strings.Contains(call, part) {
			n++
		}
	}
	return n
}

// A message that is the first of its key costs no lookup and no write for that, where
// no other process can bring a newer one.
func TestTheFirstOfItsKeyIsWrittenOnce(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{true, false} {
		var c calls
		b := newBench(t, func(o *Options) { o.Alone, o.fault = alone, c.note })
		untilScanned(b.q)
		b.enqueue(b.message("invite", "kari@nordlys.example", "kari"))
		if got := c.count(bucketLatest); (got == 0) != alone {
			t.Errorf("alone %v: %d calls of %s", alone, got, bucketLatest)
		}
		if got := c.count("$KV.DELIVERD_Q"); got != 1 {
			t.Errorf("alone %v: %d writes of records", alone, got)
		}
		b.q.Close()
	}
}

// What has ended is forgotten, however it ended.
func TestTheNewestIsForgottenWithItsEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	untilScanned(b.q)
	b.enqueue(b.message("reset", "kari@nordlys.example", "kari"))
	b.enqueue(b.message("reset", "kari@nordlys.example", "kari"))
	cancelled := b.message("invite", "lars@nordlys.example", "lars")
	b.enqueue(cancelled)
	if err := b.q.Cancel(t.Context(), cancelled.ID, "test", "test"); err != nil {
		t.Fatal(err)
	}
	if n := len(b.q.newest.byKey); n != 2 {
		t.Errorf("%d keys are known of 2", n)
	}
	b.work(accept)
	b.until(3)
	b.q.newest.mu.Lock()
	defer b.q.newest.mu.Unlock()
	if n := len(b.q.newest.byKey); n != 0 {
		t.Errorf("%d keys are remembered of messages that have ended", n)
	}
}

// waiting leaves a message in the store as a process would that died at some moment
// after having written its record.
func (b *bench) waiting(m *mail.Message, change func(*write)) {
	b.tb.Helper()
	r := &record{Message: *m, State: mail.StateQueued, Due: m.QueuedAt}
	if err := r.sealData(b.ring, m.ExpiresAt); err != nil {
		b.tb.Fatal(err)
	}
	w, err := b.q.recordWrite(b.q.shardOf(m), r, casCreate)
	if err != nil {
		b.tb.Fatal(err)
	}
	change(w)
	if _, err := b.q.store.await(b.q.shardOf(m).bucket, w); err != nil {
		b.tb.Fatal(err)
	}
}

func TestOfTwoThatACrashLeftTheNewerWins(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	untilScanned(b.q)
	old := b.message("reset", "kari@nordlys.example", "kari")
	b.enqueue(old)
	// The process dies after the newer one's record, before the older one's wish.
	young := b.message("reset", "kari@sydlys.example", "kari")
	b.waiting(young, func(*write) {})
	b.q.Close()
	b.open()
	untilScanned(b.q)
	b.work(accept)
	story := b.until(2)
	if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("old %v, young %v", story[old.ID], story[young.ID])
	}
}

// Two of one key within a millisecond: whichever is met again, by a client's retry or
// by a scan, the newer one stays it. Each ended for the other once.
func TestTwoWithinAMillisecond(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		restart bool
	}{{"a client's retry", false}, {"a scan", true}} {
		b := newBench(t, nil)
		untilScanned(b.q)
		old := b.message("reset", "kari@nordlys.example", "kari")
		young := b.message("reset", "kari@sydlys.example", "kari")
		old.IdempotencyKey = "the older one's"
		// One millisecond, and ids that say nothing of the order within it.
		at := time.Now().UTC().Truncate(time.Millisecond)
		low, high := mail.NewID(at), mail.NewID(at)
		low, high = min(low, high), max(low, high)
		old.ID, old.QueuedAt = high, at.Add(time.Microsecond)
		young.ID, young.QueuedAt = low, at.Add(2*time.Microsecond)
		b.enqueue(old)
		b.enqueue(young)
		if tt.restart {
			b.q.Close()
			b.open()
			untilScanned(b.q)
		}
		b.enqueue(old)
		stop := b.work(accept)
		story := b.until(2)
		if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
			t.Errorf("%s: old %v, young %v", tt.name, story[old.ID], story[young.ID])
		}
		stop()
		b.q.Close()
	}
}

// A record of a version that did not write the key's header waits, with its entry in
// DELIVERD_LATEST, when this version starts.
func TestTheNewestWinsOverAnUpgrade(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	untilScanned(b.q)
	old := b.message("reset", "kari@nordlys.example", "kari")
	b.waiting(old, func(w *write) { delete(w.msg.Header, headerKey) })
	if _, _, err := b.q.raise(t.Context(), old, b.q.shardOf(old).n); err != nil {
		t.Fatal(err)
	}
	b.q.Close()
	b.open()
	untilScanned(b.q)
	young := b.message("reset", "kari@sydlys.example", "kari")
	b.enqueue(young)
	b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome {
		if a.Message.ID == old.ID {
			t.Error("the older message was tried")
		}
		return accept(ctx, a)
	})
	story := b.until(2)
	if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("old %v, young %v", story[old.ID], story[young.ID])
	}
}

// Of two that come side by side, the one whose QueuedAt is later wins, whichever is
// written first.
func TestTheOlderOneThatComesLateIsNotTried(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	untilScanned(b.q)
	old := b.message("reset", "kari@nordlys.example", "kari")
	time.Sleep(2 * time.Millisecond)
	young := b.message("reset", "kari@sydlys.example", "kari")
	b.enqueue(young)
	b.enqueue(old)
	b.work(accept)
	story := b.until(2)
	if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("old %v, young %v", story[old.ID], story[young.ID])
	}
}

// The newer one takes the place of one that this process took in, and of one that the
// process before did.
func TestTheNewestWinsWithoutALookup(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		b := newBench(t, nil)
		untilScanned(b.q)
		old := b.message("reset", "kari@nordlys.example", "kari")
		b.enqueue(old)
		if restart {
			b.q.Close()
			b.open()
			untilScanned(b.q)
		}
		young := b.message("reset", "kari@sydlys.example", "kari")
		b.enqueue(young)
		stop := b.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome {
			if a.Message.ID == old.ID {
				t.Errorf("restart %v: the older message was tried", restart)
			}
			return accept(ctx, a)
		})
		story := b.until(2)
		if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
			t.Errorf("restart %v: old %v, young %v", restart, story[old.ID], story[young.ID])
		}
		stop()
		b.q.Close()
	}
}
