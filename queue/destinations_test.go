package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// What one node learns the other knows, whoever owns the shards; each is asked about
// both; and a process that comes later knows it, too.
func TestNodesShareWhatTheyLearn(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Alone = false })
	first := b.q
	for first.WaitingHere().Shards < 3 {
		time.Sleep(time.Millisecond)
	}
	b.open()
	second := b.q
	for first.WaitingHere().Shards != 2 || second.WaitingHere().Shards != 1 {
		time.Sleep(time.Millisecond)
	}
	const n = 12
	for _, domain := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
		b.enqueue(b.message("invite", "kari@"+domain+".example", ""))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	working := make(chan error, 1)
	go func() {
		working <- first.Work(ctx, ctx, func(_ context.Context, a *mail.Attempt) mail.Outcome {
			if err := a.Enter("the provider"); err != nil {
				return mail.Outcome{Local: err.Error()}
			}
			return mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseNetwork, Contact: mail.ContactDown,
				Evidence: mail.Evidence{Host: "mx.provider.example", Error: "connection refused"}}
		})
	}()
	down := func(q *Queue) Destination {
		for {
			if d := q.WaitingHere().Destinations["the provider"]; d.State == DestinationDown {
				return d
			}
			time.Sleep(time.Millisecond)
		}
	}
	d := down(second)
	if d.Cause != mail.CauseNetwork || d.Host != "mx.provider.example" || d.Said != "connection refused" || d.Look.IsZero() {
		t.Errorf("the second node has heard of %+v", d)
	}
	if have := down(first); !have.Look.Equal(d.Look) {
		t.Errorf("the nodes look at %v and %v", have.Look, d.Look)
	}
	cancel()
	if err := <-working; err != nil {
		t.Error(err)
	}
	sum, err := second.Waiting(t.Context())
	if err != nil || sum.All.Total() != n || sum.Shards != 3 || sum.Missing != 0 {
		t.Errorf("the second node sees %d waiting on %d shards, %d nodes missing: %v", sum.All.Total(), sum.Shards, sum.Missing, err)
	}
	if here := second.WaitingHere().All.Total(); here == 0 || here == n {
		t.Fatalf("the messages are all on one node: %d", here)
	}
	if _, err := second.RetryNow(t.Context(), "kind:invite"); err != nil {
		t.Error(err)
	}
	if look := first.WaitingHere().Destinations["the provider"].Look; !look.Before(d.Look) {
		t.Errorf("asked of the other node, the look is still at %v", look)
	}
	for _, q := range []*Queue{first, second} {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	b.open()
	if again := down(b.q); again.Said != "connection refused" {
		t.Errorf("after a restart: %+v", again)
	}
}

// A node that does not answer is said to be missing.
func TestAMissingNodeIsSaid(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) { o.Alone = false })
	if _, err := b.q.store.put(t.Context(), bucketLeases, "node.silent", nil, casNone); err != nil {
		t.Fatal(err)
	}
	sum, err := b.q.Waiting(t.Context())
	if err != nil || sum.Missing != 1 {
		t.Errorf("%d missing: %v", sum.Missing, err)
	}
	if _, err := b.q.RetryNow(t.Context(), "kind:invite"); err == nil {
		t.Error("a retry that a node has not heard of is no success")
	}
	var p *mail.Problem
	if _, err := b.q.RetryNow(t.Context(), "nonsense"); !errors.As(err, &p) {
		t.Errorf("got %v", err)
	}
}
