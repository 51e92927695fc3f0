package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/mail"
)

// Record adds a fact from elsewhere to the event log: used, returned, resent … Nil
// means that it is safe. An event without an ID gets the one of its message, state and
// attempt; recording it twice changes nothing.
func (q *Queue) Record(ctx context.Context, e mail.Event) error {
	if e.ID == "" {
		e.ID = mail.EventID(e.Message, e.State, e.Attempt)
	}
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	w := eventWrite(e)
	w.lazy = 0 // someone waits
	w.done = func(_ uint64, err error) { done <- err }
	q.store.appenders[eventStream].add(w)
	if err := <-done; err != nil {
		return q.storeProblem(err)
	}
	if q.o.Observe != nil {
		q.o.Observe(e)
	}
	return nil
}

// LastSeq is the place of the newest event, 0 for an empty log.
func (q *Queue) LastSeq(ctx context.Context) (uint64, error) {
	st, err := q.store.js.Stream(ctx, eventStream)
	if err != nil {
		return 0, fmt.Errorf("event log: %w", err)
	}
	return st.CachedInfo().State.LastSeq, nil
}

// Bounds are the places of the oldest and the newest event that the log holds, 0 and
// 0 for an empty log.
func (q *Queue) Bounds(ctx context.Context) (first, last uint64, err error) {
	st, err := q.store.js.Stream(ctx, eventStream)
	if err != nil {
		return 0, 0, fmt.Errorf("event log: %w", err)
	}
	s := st.CachedInfo().State
	if s.Msgs == 0 {
		return 0, 0, nil
	}
	return s.FirstSeq, s.LastSeq, nil
}

// Events replays the log from after a place and then follows it until ctx ends or the
// loop is left. It survives the server's restarts: an error that it yields beside a
// place says that the event there can't be read, and one without a place, at last, why
// it ended; what is good comes once and in order. The same event may stand in the log twice. Where states are named, only
// events of these come, and the others cost nothing.
func (q *Queue) Events(ctx context.Context, after uint64, states ...mail.State) iter.Seq2[mail.LoggedEvent, error] {
	return func(yield func(mail.LoggedEvent, error) bool) {
		c := jetstream.OrderedConsumerConfig{FilterSubjects: []string{eventSubjects}}
		if len(states) > 0 {
			c.FilterSubjects = nil
			for _, s := range states {
				c.FilterSubjects = append(c.FilterSubjects, "deliverd.v1.event.*."+mail.SubjectToken(string(s)))
			}
		}
		err := q.read(ctx, c, after, func(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
			e := mail.LoggedEvent{Seq: meta.Sequence.Stream}
			if err := json.Unmarshal(m.Data(), &e.Event); err != nil {
				return yield(e, fmt.Errorf("event at %d: not readable", e.Seq))
			}
			return yield(e, nil)
		})
		if err != nil {
			yield(mail.LoggedEvent{}, err)
		}
	}
}

// read follows the event log from after a place until ctx ends, the queue is closed or
// f returns false, which is the only end without an error.
func (q *Queue) read(ctx context.Context, c jetstream.OrderedConsumerConfig, after uint64,
	f func(jetstream.Msg, *jetstream.MsgMetadata) bool) error {
	left := false
	visit := func(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
		after = meta.Sequence.Stream
		left = !f(m, meta)
		return !left
	}
	for tries := 0; ; tries++ {
		began := after
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, after+1
		err := q.readOnce(ctx, eventStream, c, visit)
		switch {
		case left:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case q.ctx.Err() != nil:
			return errors.New("queue: closed")
		}
		if after > began { // it worked for a while: this is a new break
			tries = 0
		}
		q.o.Log.Warn("the event log's feed broke; following it again", "after", after, "err", err)
		q.sleep(ctx, backoff(tries))
	}
}

// readOnce is read for any stream, and ends when its feed breaks.
func (q *Queue) readOnce(ctx context.Context, stream string, c jetstream.OrderedConsumerConfig, f func(jetstream.Msg, *jetstream.MsgMetadata) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(q.ctx, cancel)()
	cons, err := q.store.js.OrderedConsumer(ctx, stream, c)
	if err != nil {
		return err
	}
	it, err := cons.Messages(jetstream.PullMaxMessages(feedAhead), jetstream.PullExpiry(feedExpiry), jetstream.PullHeartbeat(feedHeartbeat))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, it.Stop)()
	defer it.Stop()
	for {
		// Stop alone does not end a Next whose consumer is being made anew at that moment
		// (nats.go 1.55, while the server restarts): the context does.
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if !f(m, meta) {
			return nil
		}
	}
}
