package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// Group commit. Every stream has one appender, and an appender has one group of
// writes under way. A write that finds it idle goes at once, alone; those that come
// meanwhile are the next group. A group goes as single messages, each with its own
// fsync in the server, or as one atomic batch with three or four fsyncs whatever its
// size, for which the server makes a file store of its own to stage it: some 1 ms of
// CPU. Which is sooner done depends on the disk and is learnt from both.
//
// Lazy writes (events, burials) are nobody's answer. They wait a moment for company,
// so that they share batches instead of taking the disk from the others.
const (
	// groupMost bounds a group, and so how long an urgent write waits for the one under
	// way; four times as many take three times as long.
	groupMost = 128
	// groupBytes bounds a group's size, which the server stages twice.
	groupBytes = 8 << 20
	// batchLeast is the smallest group that is worth a batch's CPU on any disk: a write
	// of its own costs the server some 0.05 ms.
	batchLeast = 16
	// lazyPatience is how many times as long lazy writes wait that are enough for a batch
	// and not for a full one: a group of 28, as 50 ms bring at 300 messages a second,
	// costs as much to stage as one of 128, and staging was 4 % of a message's CPU.
	lazyPatience = 4
)

var (
	// errConflict: the key's revision was another one; nothing was written.
	errConflict = errors.New("the record was changed by another")
	// errUnsure: no answer came. The write may have happened, or may still.
	errUnsure = errors.New("the store did not answer")
	// errStore: the store can't take it now; nothing was written.
	errStore = errors.New("the store takes no writes")
	// errRefused: the store will never take this one; nothing was written.
	errRefused = errors.New("the store refused the write")
)

// wrongLastSequence is the server's error code for a failed compare-and-set.
const wrongLastSequence = 10071

// constantSequence is its code for a key that a batch or an earlier write still in
// progress writes as well.
const constantSequence = 10164

// write is one message on its way into a stream.
type write struct {
	msg *nats.Msg
	// urgent writes go before the others that wait with them.
	urgent bool
	// lazy is how long the write may wait for company; 0: not at all.
	lazy time.Duration
	// done is called once, from one goroutine for all; it must not block.
	done func(seq uint64, err error)
}

// appender puts writes into one stream in groups.
type appender struct {
	stream string
	acks   *acks

	mu      sync.Mutex
	urgent  []*write    // guarded by mu
	waiting []*write    // guarded by mu
	lazy    []*write    // guarded by mu
	since   time.Time   // guarded by mu: when the oldest lazy one came
	alarm   *time.Timer // guarded by mu: rings when lazy ones may be due; nil while none waits
	busy    bool        // guarded by mu: a group is under way

	pace pace // of the group under way; its goroutine's

	// failing since then (Unix nanoseconds), 0 when the last group was answered.
	failing atomic.Int64
}

// pace is what this stream's writes take, learnt from each group.
type pace struct {
	single time.Duration // one write of a group that went singly
	batch  time.Duration // a whole batch
}

// newPace starts from what a common SSD does.
func newPace() pace { return pace{single: 200 * time.Microsecond, batch: 3 * time.Millisecond} }

// batches decides how a group of n goes.
func (p *pace) batches(n int) bool {
	if n < batchLeast {
		return false
	}
	if time.Duration(n)*p.single >= p.batch {
		return true
	}
	// Not forgotten for ever because of one slow batch.
	p.batch -= p.batch / 256
	return false
}

// learn takes in how long a group of n took.
func (p *pace) learn(n int, batch bool, took time.Duration) {
	if batch {
		p.batch += (took - p.batch) / 8
	} else {
		p.single += (took/time.Duration(n) - p.single) / 8
	}
}

// add hands over a write.
func (a *appender) add(w *write) {
	a.mu.Lock()
	switch {
	case w.lazy > 0:
		a.lazy = append(a.lazy, w)
		if a.alarm == nil {
			a.since, a.alarm = time.Now(), time.AfterFunc(w.lazy, a.kick)
		}
	case w.urgent:
		a.urgent = append(a.urgent, w)
	default:
		a.waiting = append(a.waiting, w)
	}
	a.startLocked()
}

// kick starts a group if none is under way, or lets the lazy ones wait on.
func (a *appender) kick() {
	a.mu.Lock()
	if due := a.lazyDue(); due > 0 {
		a.alarm.Reset(due)
	}
	a.startLocked()
}

// lazyDue is how long lazy writes have to wait yet; mu must be held.
func (a *appender) lazyDue() time.Duration {
	n := len(a.lazy)
	if n == 0 || n >= groupMost {
		return 0
	}
	wait := a.lazy[0].lazy
	if n >= batchLeast {
		wait *= lazyPatience
	}
	return wait - time.Since(a.since)
}

// ended starts the next group, if one waits.
func (a *appender) ended() {
	a.mu.Lock()
	a.busy = false
	a.startLocked()
}

// startLocked sends the next group unless one is under way. It unlocks mu.
func (a *appender) startLocked() {
	if a.busy {
		a.mu.Unlock()
		return
	}
	group := a.take()
	a.busy = len(group) > 0
	a.mu.Unlock()
	if len(group) > 0 {
		a.send(group)
	}
}

// take removes the next group; mu must be held.
func (a *appender) take() []*write {
	queues := []*[]*write{&a.urgent, &a.waiting}
	lazy := len(a.lazy) > 0 && a.lazyDue() <= 0
	if lazy {
		queues = append(queues, &a.lazy)
	}
	var group []*write
	size := 0
	for _, q := range queues {
		n := 0
		for n < len(*q) && len(group) < groupMost && size < groupBytes {
			group = append(group, (*q)[n])
			size += len((*q)[n].msg.Data)
			n++
		}
		if rest := (*q)[n:]; len(rest) == 0 {
			*q = nil
		} else {
			*q = rest
		}
	}
	if lazy && len(a.lazy) == 0 {
		a.alarm.Stop()
		a.alarm = nil
	}
	return group
}

func (a *appender) send(group []*write) {
	from := time.Now()
	batch := a.pace.batches(len(group))
	end := func(err error) {
		if err == nil {
			a.pace.learn(len(group), batch, time.Since(from))
		}
		a.ended()
	}
	if batch {
		a.batch(group, end)
	} else {
		a.singles(group, end)
	}
}

// singles publishes the group's writes one by one without waiting between them; the
// server keeps their order.
func (a *appender) singles(group []*write, end func(error)) {
	var left atomic.Int32
	left.Store(int32(len(group)))
	for _, w := range group {
		a.acks.publish(w.msg, func(seq uint64, err error) {
			a.note(err)
			w.done(seq, err)
			if left.Add(-1) == 0 {
				end(err)
			}
		})
	}
}

// batch publishes the group as one atomic batch. When one write of it can't be, none
// is, and they go singly, each to its own answer.
func (a *appender) batch(group []*write, end func(error)) {
	id := nuid.Next()
	last := len(group) - 1
	fail := func(err error) {
		a.note(err)
		for _, w := range group {
			w.done(0, err)
		}
		end(err)
	}
	for i, w := range group {
		m := &nats.Msg{Subject: w.msg.Subject, Data: w.msg.Data, Header: make(nats.Header, len(w.msg.Header)+3)}
		maps.Copy(m.Header, w.msg.Header)
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
		if i < last {
			if err := a.acks.nc.PublishMsg(m); err != nil {
				// Uncommitted, the batch lapses in the server. Singly, each gets its answer.
				a.singles(group, end)
				return
			}
			continue
		}
		m.Header["Nats-Batch-Commit"] = []string{"1"}
		a.acks.publish(m, func(seq uint64, err error) {
			switch {
			case err == nil:
				a.note(nil)
				for i, w := range group {
					w.done(seq-uint64(last-i), nil)
				}
				end(nil)
			case errors.Is(err, errUnsure):
				fail(err)
			default:
				a.singles(group, func(error) { end(err) })
			}
		})
	}
}

func (a *appender) note(err error) {
	if errors.Is(err, errUnsure) || errors.Is(err, errStore) {
		a.failing.CompareAndSwap(0, time.Now().UnixNano())
	} else {
		a.failing.Store(0)
	}
}

// acks receives the answers of all appenders on one subscription.
type acks struct {
	nc      *nats.Conn
	timeout time.Duration
	fault   func(subject string) error // tests: what befalls the next write; see Options.fault

	sub    *nats.Subscription
	prefix string
	stop   chan struct{} // closed by close
	ended  chan struct{} // closed when the connection is watched no more

	mu      sync.Mutex
	next    uint64                // guarded by mu
	pending map[string]*ackWaiter // guarded by mu, by the reply subject's last token
	closed  bool                  // guarded by mu
}

type ackWaiter struct {
	timer *time.Timer
	done  func(seq uint64, err error)
}

func newAcks(nc *nats.Conn, timeout time.Duration) (*acks, error) {
	a := &acks{nc: nc, timeout: timeout, prefix: nc.NewInbox() + ".", pending: map[string]*ackWaiter{}}
	sub, err := nc.Subscribe(a.prefix+"*", func(m *nats.Msg) {
		seq, err := parseAck(m)
		a.answer(m.Subject[len(a.prefix):], seq, err)
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	a.sub = sub
	a.stop, a.ended = make(chan struct{}), make(chan struct{})
	lost := nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	go func() {
		defer close(a.ended)
		defer nc.RemoveStatusListener(lost)
		for {
			select {
			case <-lost:
				a.abandon()
			case <-a.stop:
				return
			}
		}
	}()
	return a, nil
}

// abandon fails what waits for an answer, which a connection that broke won't bring:
// its callers need not wait out the timeout to hear it. A write that went over the
// next connection meanwhile is as unsure as the others.
func (a *acks) abandon() {
	a.mu.Lock()
	pending := a.pending
	a.pending = map[string]*ackWaiter{}
	a.mu.Unlock()
	for _, w := range pending {
		w.timer.Stop()
		w.done(0, errUnsure)
	}
}

// publish sends m; done is called exactly once, never from the caller's goroutine.
func (a *acks) publish(m *nats.Msg, done func(seq uint64, err error)) {
	if a.fault != nil {
		if err := a.fault(m.Subject); err != nil {
			if errors.Is(err, errUnsure) { // it happens, and the answer is lost
				err = errors.Join(err, a.nc.PublishMsg(m))
			}
			go done(0, err)
			return
		}
	}
	a.mu.Lock()
	if a.closed || !a.nc.IsConnected() {
		a.mu.Unlock()
		go done(0, fmt.Errorf("%w: not connected", errStore))
		return
	}
	a.next++
	token := strconv.FormatUint(a.next, 36)
	w := &ackWaiter{done: done}
	w.timer = time.AfterFunc(a.timeout, func() { a.answer(token, 0, errUnsure) })
	a.pending[token] = w
	a.mu.Unlock()
	m.Reply = a.prefix + token
	if err := a.nc.PublishMsg(m); err != nil {
		why := errStore
		if errors.Is(err, nats.ErrMaxPayload) {
			why = errRefused
		}
		go a.answer(token, 0, fmt.Errorf("%w: %w", why, err))
	}
}

func (a *acks) answer(token string, seq uint64, err error) {
	a.mu.Lock()
	w := a.pending[token]
	delete(a.pending, token)
	a.mu.Unlock()
	if w != nil {
		w.timer.Stop()
		w.done(seq, err)
	}
}

// close fails what is pending. Closing twice does nothing.
func (a *acks) close() {
	a.mu.Lock()
	again := a.closed
	a.closed = true
	a.mu.Unlock()
	if again {
		return
	}
	close(a.stop)
	<-a.ended
	_ = a.sub.Unsubscribe() // fails only on a closed connection
	a.abandon()
}

func parseAck(m *nats.Msg) (uint64, error) {
	if len(m.Data) == 0 {
		// "503 No Responders": no such stream, or JetStream is not up.
		return 0, fmt.Errorf("%w: %s", errStore, strings.TrimSpace("no stream answers "+m.Header.Get("Status")))
	}
	var ack struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			Status      int    `json:"code"`
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, fmt.Errorf("%w: unreadable acknowledgement", errUnsure)
	}
	switch {
	case ack.Error == nil:
		return ack.Seq, nil
	case ack.Error.Code == wrongLastSequence || ack.Error.Code == constantSequence:
		return 0, errConflict
	case ack.Error.Status < 500:
		return 0, fmt.Errorf("%w: %s (%d)", errRefused, ack.Error.Description, ack.Error.Code)
	}
	return 0, fmt.Errorf("%w: %s (%d)", errStore, ack.Error.Description, ack.Error.Code)
}
