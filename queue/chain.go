package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Record is one record of the chain.
type Record struct {
	Seq  uint64 // its place
	Data []byte
}

// Link appends a record to the chain: records in one order that all nodes agree on,
// each made in view of the one before it. next makes it of the newest record, nil if
// there is none, and is called again when another node was quicker. id names the
// record: a call that got no answer may be repeated with the same id, within two
// minutes, and the record is there once. Nil means that it is safe.
//
// Nothing takes a record out of the chain but its age (Options.ChainLife): the stream
// refuses to delete and to purge.
func (q *Queue) Link(ctx context.Context, id string, next func(last []byte) ([]byte, error)) error {
	for {
		var last []byte
		var at uint64
		e, err := q.newestLink(ctx)
		switch {
		case err == nil:
			last, at = e.data, e.seq
		case !errors.Is(err, ErrNotFound):
			return err
		}
		data, err := next(last)
		if err != nil {
			return err
		}
		if err := q.link(id, data, at); !errors.Is(err, errConflict) {
			return err
		}
	}
}

func (q *Queue) newestLink(ctx context.Context) (*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	return q.store.newest(ctx, chainStream, chainSubject)
}

// link writes a record after the one at a place.
func (q *Queue) link(id string, data []byte, after uint64) error {
	done := make(chan error, 1)
	h := nats.Header{headerCAS: {strconv.FormatUint(after, 10)}, jetstream.MsgIDHeader: {id}}
	q.store.appenders[chainStream].add(&write{
		msg:  &nats.Msg{Subject: chainSubject, Data: data, Header: h},
		done: func(_ uint64, err error) { done <- err },
	})
	return <-done
}

// Links yields the chain's records in their order, from after a place up to the newest
// at this moment. An error is the last that it yields.
func (q *Queue) Links(ctx context.Context, after uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		_, last, err := q.LinkBounds(ctx)
		if err != nil {
			yield(Record{}, err)
			return
		}
		if after >= last {
			return
		}
		left := false
		c := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1}
		err = q.readOnce(ctx, chainStream, c, func(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
			left = !yield(Record{Seq: meta.Sequence.Stream, Data: m.Data()}, nil)
			return !left && meta.Sequence.Stream < last
		})
		if err != nil && !left {
			yield(Record{}, fmt.Errorf("read %s: %w", chainStream, err))
		}
	}
}

// LinkBounds are the places of the oldest and the newest record, 0 and 0 for none.
func (q *Queue) LinkBounds(ctx context.Context) (first, last uint64, err error) {
	st, err := q.store.js.Stream(ctx, chainStream)
	if err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", chainStream, err)
	}
	s := st.CachedInfo().State
	if s.Msgs == 0 {
		return 0, 0, nil
	}
	return s.FirstSeq, s.LastSeq, nil
}
