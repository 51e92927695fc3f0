package queue

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// crash is a process that dies at its n-th call of the store: that call does not
// happen, or happens without an answer, and every later one fails.
type crash struct {
	at    int64
	lost  bool // the n-th call happens
	calls atomic.Int64
	dead  chan struct{}
	once  sync.Once
}

func (c *crash) fault(string) error {
	switch n := c.calls.Add(1); {
	case c.at == 0 || n < c.at:
		return nil
	case n == c.at && c.lost:
		c.once.Do(func() { close(c.dead) })
		return errUnsure
	default:
		c.once.Do(func() { close(c.dead) })
		return errStore
	}
}

// client is an auth service that repeats a request until it is answered, always under
// the same idempotency key.
type client struct {
	kind, to, person, key string
	id                    mail.ID // once it is answered
	answered              time.Time
}

func (c *client) ask(b *bench) {
	m := b.message(c.kind, c.to, c.person)
	m.IdempotencyKey = c.key
	r, err := b.q.Enqueue(context.Background(), m, sha256.Sum256([]byte(c.key)))
	if err == nil && c.id == "" {
		c.id, c.answered = r.ID, time.Now()
	}
}

// tries is what a recipient's server saw.
type tries struct {
	mu    sync.Mutex
	begun map[mail.ID][]time.Time
}

func (s *tries) attempt(ctx context.Context, a *mail.Attempt) mail.Outcome {
	at := time.Now()
	if err := a.Proceed(); errors.Is(err, mail.ErrSuperseded) { // as before dialling
		return mail.Outcome{State: mail.StateSuperseded}
	}
	s.mu.Lock()
	s.begun[a.Message.ID] = append(s.begun[a.Message.ID], at)
	s.mu.Unlock()
	switch {
	case a.Message.Kind == "invite":
		return mail.Outcome{State: mail.StateRefused, Cause: mail.CauseBadMailbox}
	case a.Message.Kind == "reset" && a.Number == 1:
		return mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseGreylisted, Signed: []byte("bytes")}
	}
	return accept(ctx, a)
}

// TestCrashLoop kills the process at every one of its calls of the store in turn,
// once before the call and once between the call and its answer, until a run passes
// untouched; after each, what a new process finds must obey the laws.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		name := "the call does not happen"
		if lost {
			name = "the answer is lost"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			b.q.Close()
			b.q = nil
			step := int64(1)
			if testing.Short() {
				step = 7
			}
			for n := int64(1); ; n += step {
				c := &crash{at: n, lost: lost, dead: make(chan struct{})}
				if !crashOnce(t, b, c) {
					t.Logf("untouched after %d crashes", n-1)
					return
				}
				if t.Failed() {
					t.Fatalf("at call %d", n)
				}
			}
		})
	}
}

// crashOnce runs one story in a process that dies, and its rest in one that does not.
// It reports whether the first died.
func crashOnce(t *testing.T, b *bench, c *crash) (died bool) {
	seen := &tries{begun: map[mail.ID][]time.Time{}}
	run := string(mail.NewID(time.Now()))
	clients := []*client{
		{kind: "reset", to: "kari@nordlys.example", person: run, key: run + "1"},
		{kind: "reset", to: "kari@sydlys.example", person: run, key: run + "2"},
		{kind: "invite", to: "lars@nordlys.example", person: run, key: run + "3"},
		{kind: "pin", to: "ola@sydlys.example", person: run, key: run + "4"},
	}
	after, err := lastSeq(b)
	if err != nil {
		t.Fatal(err)
	}
	b.change = func(o *Options) { o.fault = c.fault }
	if q, err := Open(t.Context(), b.server.Connect(t), b.options()); err == nil {
		b.q = q
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { q.Work(ctx, ctx, seen.attempt) })
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i, cl := range clients {
				cl.ask(b)
				if i == 0 {
					// Let the first be delayed before the second supersedes it.
					select {
					case <-time.After(15 * time.Millisecond):
					case <-c.dead:
					}
				}
			}
		}()
		<-ended
		if err := drained(ctx, b, c, after, clients); err == nil {
			// What follows the last event: the burial and the marks.
			select {
			case <-time.After(20 * time.Millisecond):
			case <-c.dead:
			}
		}
		select {
		case <-c.dead:
			died = true
		default:
		}
		cancel()
		closed := make(chan struct{})
		go func() { // outcomes that can't be recorded are not waited for
			defer close(closed)
			q.Close()
		}()
		wg.Wait()
		<-closed
	} else {
		died = true
	}
	b.change = nil
	b.open()
	for _, cl := range clients {
		cl.ask(b)
		if cl.id == "" {
			t.Fatalf("a healthy store did not take the message %s", cl.key)
		}
	}
	stop := b.work(seen.attempt)
	checkLaws(t, b, after, clients, seen)
	stop()
	b.q.Close()
	b.q = nil
	return died
}

func lastSeq(b *bench) (uint64, error) {
	b.open()
	defer b.q.Close()
	return b.q.LastSeq(b.tb.Context())
}

// drained waits until all messages have ended, or the process has died.
func drained(ctx context.Context, b *bench, c *crash, after uint64, clients []*client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	ended := map[mail.ID]bool{}
	for e, err := range b.q.Events(ctx, after) {
		if err != nil {
			return err
		}
		if e.State.Terminal() {
			ended[e.Message] = true
		}
		if len(ended) == len(clients) {
			return nil
		}
	}
	return ctx.Err()
}

func checkLaws(t *testing.T, b *bench, after uint64, clients []*client, seen *tries) {
	t.Helper()
	states := map[mail.ID]map[string]mail.State{} // by event id
	open := len(clients)
	for e, err := range b.q.Events(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		if states[e.Message] == nil {
			states[e.Message] = map[string]mail.State{}
		}
		_, again := states[e.Message][e.ID]
		states[e.Message][e.ID] = e.State
		if e.State.Terminal() && !again {
			open--
		}
		if open == 0 {
			break
		}
	}
	known := map[mail.ID]bool{}
	for _, cl := range clients {
		known[cl.id] = true
		var terminal, queued int
		for _, s := range states[cl.id] {
			if s.Terminal() {
				terminal++
			}
			if s == mail.StateQueued {
				queued++
			}
		}
		if terminal != 1 || queued != 1 {
			t.Errorf("%s %s: %d terminal and %d queued events: %v", cl.kind, cl.id, terminal, queued, states[cl.id])
		}
	}
	for id := range states {
		if !known[id] {
			t.Errorf("a message that nobody knows was told of: %s %v", id, states[id])
		}
	}
	for id := range seen.begun {
		if !known[id] {
			t.Errorf("a message that nobody knows was tried: %s", id)
		}
	}
	old, young := clients[0], clients[1]
	for _, at := range seen.begun[old.id] {
		if at.After(young.answered) {
			t.Errorf("the older message was tried %s after the newer one was accepted", at.Sub(young.answered))
		}
	}
	if n := len(seen.begun[young.id]); n < 2 {
		t.Errorf("the newer message was tried %d times", n)
	}
}
