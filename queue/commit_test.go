package queue

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/queue/natstest"
)

// A write whose connection breaks is answered then, not when its time is up; and those
// after it are, while there is no connection.
func TestF12WritesFailWithTheConnection(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, t.TempDir())
	nc := server.Connect(t)
	silent, err := nc.SubscribeSync("silent")
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAcks(nc, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	answers := make(chan error, 1)
	publish := func() {
		a.publish(&nats.Msg{Subject: "silent"}, func(_ uint64, err error) { answers <- err })
	}
	publish()
	if _, err := silent.NextMsgWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if err := <-answers; !errors.Is(err, errUnsure) {
		t.Errorf("the one under way: %v", err)
	}
	publish()
	if err := <-answers; !errors.Is(err, errStore) {
		t.Errorf("one after it: %v", err)
	}
}

// Few lazy writes go soon, as singles; enough for a batch wait on for a full one.
func TestLazyWritesWaitForAFullBatch(t *testing.T) {
	t.Parallel()
	const linger = time.Hour
	for _, c := range []struct {
		writes int
		waited time.Duration
		due    bool
	}{
		{0, 2 * linger, true},
		{1, 0, false},
		{batchLeast - 1, linger, true},
		{batchLeast, linger, false},
		{batchLeast, lazyPatience * linger, true},
		{groupMost - 1, linger, false},
		{groupMost, 0, true},
	} {
		a := &appender{since: time.Now().Add(-c.waited)}
		for range c.writes {
			a.lazy = append(a.lazy, &write{lazy: linger})
		}
		if due := a.lazyDue() <= 0; due != c.due {
			t.Errorf("%d writes after %v: due %v", c.writes, c.waited, due)
		}
	}
}
