package backup

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/queue"
)

// Whatever the bytes are, reading ends, with damage told or with what was written.
func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	w, err := newWriter(&b, Head{Format: format, Began: time.Now(), Version: "test"})
	if err != nil {
		f.Fatal(err)
	}
	const stream = "KV_DELIVERD_SHARED"
	for _, step := range []func() error{
		func() error { return w.begin(jetstream.StreamConfig{Name: stream}) },
		func() error {
			return w.message(&line{Seq: 7, Subject: "$KV.DELIVERD_SHARED.queue.shards", Header: nats.Header{"A": {"b"}}, Data: []byte("8")})
		},
		func() error { return w.end(7) },
		w.close,
	} {
		if err := step(); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		l := queue.NewLedger()
		c, err := read(bytes.NewReader(b), visitor{message: func(stream string, m *queue.Stored) error {
			l.Add(stream, m)
			return nil
		}})
		if err == nil && len(c.damage) == 0 && c.head.Format != format {
			t.Errorf("whole, and of no format: %+v", c)
		}
		l.Reckon(c.head.Began, c.streams)
	})
}

// A file of the store may be anything after a disk's trouble.
func FuzzReadBlock(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 60))
	f.Add(append([]byte{30, 0, 0, 0x80}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		at, _ := readBlock("DELIVERD_EVENTS", 1, b, func(*queue.Stored) {})
		if at < 0 || at > len(b) {
			t.Errorf("at %d of %d", at, len(b))
		}
		// As if the sum were right.
		if lead := 4; len(b) >= blockHead+lead+blockSum {
			subject := min(int(b[20]), len(b)-blockHead-lead)
			blockMessage(b, b[blockHead:], subject, true)
		}
	})
}
