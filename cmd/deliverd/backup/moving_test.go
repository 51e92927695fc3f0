package backup

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/queue/natstest"
)

// onceFull calls something when a first piece has been written to it.
type onceFull struct {
	bytes.Buffer
	then func()
	once sync.Once
}

func (o *onceFull) Write(p []byte) (int, error) {
	if o.Len() > pieceSize/2 {
		o.once.Do(o.then)
	}
	return o.Buffer.Write(p)
}

// A record that is written anew while its stream is read, as one is after each attempt,
// moves to the end of it: behind the place that was the last when the copy was begun.
// It is in the copy all the same, and what came after it too.
func TestRecordsThatMoveAreInTheCopy(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t, filepath.Join(t.TempDir(), "nats"))
	q := open(t, s)
	const n = 30 // of 600 kB: more than is read ahead
	for i := range n {
		m := message(0, "kari")
		m.Data["link"] = strings.Repeat("x", 600_000)
		m.To = "kari@nordlys.example" // one shard
		if i == n-1 {
			m.Data = map[string]any{"link": "the last"}
		}
		if _, err := q.Enqueue(t.Context(), &m, [32]byte{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	moved := false
	out := &onceFull{then: func() { moved = move(t, s) }}
	if err := Take(t.Context(), s.Connect(t), out, "test"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyFile(path); err != nil || !r.OK() || r.Waiting != n || !moved {
		t.Errorf("%v %+v, moved: %v", err, r, moved)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(path, dir, false); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyDir(dir); err != nil || !r.OK() || r.Waiting != n {
		t.Errorf("restored: %v %+v", err, r)
	}
}

// move writes the newest record anew, as it is.
func move(t *testing.T, s *natstest.Server) bool {
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Error(err)
		return false
	}
	for _, bucket := range []string{"DELIVERD_Q0", "DELIVERD_Q1"} {
		st, err := js.Stream(t.Context(), "KV_"+bucket)
		if err != nil {
			t.Error(err)
			return false
		}
		m, err := st.GetMsg(t.Context(), st.CachedInfo().State.LastSeq)
		if err != nil {
			continue // the other shard has them
		}
		m.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(m.Sequence, 10))
		ack, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		if err != nil {
			t.Error(err)
			return false
		}
		return ack.Sequence > m.Sequence
	}
	return false
}
