package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/queue"
)

const (
	// aheadMost bounds what the server sends before it is written: the daemon that
	// makes a backup has other things to do with its memory.
	aheadMost = 4 << 20
	// silence is no end: a consumer says that it is alive.
	heartbeat = time.Second
	expiry    = 5 * time.Second
	tries     = 5 // to go on with a stream whose feed broke
)

// Take writes a copy of the store behind a connection. The store may be in use. An
// error leaves w without its end, and a file without its end says so when it is read.
func Take(ctx context.Context, nc *nats.Conn, w io.Writer, version string) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	var names []string
	list := js.StreamNames(ctx)
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("list the streams: %w", err)
	}
	names = queue.StreamsToCopy(names)
	if len(names) == 0 {
		return errors.New("there is no store of a deliverd")
	}
	out, err := newWriter(w, Head{Format: format, Began: time.Now().UTC(), Version: version})
	if err != nil {
		return err
	}
	t := taking{js: js, out: out, after: map[string]uint64{}}
	for _, name := range names {
		if err := t.stream(ctx, name); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	// What was accepted meanwhile has its event in the log that was copied: here is its
	// record.
	for _, name := range names {
		if !queue.HoldsRecords(name) {
			continue
		}
		if err := t.again(ctx, name); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return out.close()
}

// taking is one copy on its way.
type taking struct {
	js    jetstream.JetStream
	out   *writer
	after map[string]uint64 // by stream: the last place that was read
	late  bool              // the log was read
}

// stream copies a stream.
func (t *taking) stream(ctx context.Context, name string) error {
	st, err := t.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	if err := t.out.begin(st.CachedInfo().Config); err != nil {
		return err
	}
	if err := t.toTheEnd(ctx, st, name); err != nil {
		return err
	}
	return t.end(ctx, st, name)
}

// again copies what came to a stream since.
func (t *taking) again(ctx context.Context, name string) error {
	t.late = true
	st, err := t.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	t.out.resume(name)
	if err := t.toTheEnd(ctx, st, name); err != nil {
		return err
	}
	return t.end(ctx, st, name)
}

// end notes the last place of a stream, so that the restored one goes on behind it: the
// marks of what was published are such places. A log's is that of its last event here:
// a place without one is a hole.
func (t *taking) end(ctx context.Context, st jetstream.Stream, name string) error {
	info, err := st.Info(ctx)
	if err != nil {
		return err
	}
	last := info.State.LastSeq
	if after := t.after[name]; after > 0 && queue.IsLog(name) {
		last = after
	}
	return t.out.end(last)
}

// toTheEnd copies until nothing is left behind the last message that came.
func (t *taking) toTheEnd(ctx context.Context, st jetstream.Stream, name string) error {
	for try := 1; ; try++ {
		began := t.after[name]
		err := t.follow(ctx, st, name)
		if err == nil {
			return nil
		}
		if broken, ok := errors.AsType[*brokenFeed](err); !ok || ctx.Err() != nil || try == tries {
			return err
		} else if t.after[name] > began {
			try = 0
		} else if !sleep(ctx, time.Duration(try)*100*time.Millisecond) {
			return broken
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// brokenFeed is an error after which following can go on where it stopped.
type brokenFeed struct{ error }

func (b *brokenFeed) Unwrap() error { return b.error }

func (t *taking) follow(ctx context.Context, st jetstream.Stream, name string) error {
	cons, err := st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: t.after[name] + 1})
	if err != nil {
		return &brokenFeed{err}
	}
	if info, err := cons.Info(ctx); err != nil {
		return &brokenFeed{err}
	} else if info.NumPending == 0 && info.Delivered.Consumer == 0 {
		return nil
	}
	it, err := cons.Messages(jetstream.PullMaxBytes(aheadMost), jetstream.PullExpiry(expiry), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return &brokenFeed{err}
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return &brokenFeed{err}
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		l := line{Seq: meta.Sequence.Stream, Subject: m.Subject(), Time: meta.Timestamp.UTC(), Header: m.Headers(), Data: m.Data()}
		// The mark of a removal would come without the event that it waited for.
		if !t.late || !queue.Removes(l.Header) {
			if err := t.out.message(&l); err != nil {
				return err
			}
		}
		t.after[name] = l.Seq
		if meta.NumPending == 0 {
			return nil
		}
	}
}
