package daemon

import (
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
	"github.com/deliverd/deliverd/queue/natstest"
)

// TestSuppressorPassesTheUnreadable: what somebody published on the log's subject by
// mistake keeps the suppressor from nothing that follows.
func TestSuppressorPassesTheUnreadable(t *testing.T) {
	t.Parallel()
	nc := natstest.Start(t, t.TempDir()).Connect(t)
	q, err := queue.Open(t.Context(), nc, queue.Options{Kinds: mail.DefaultKinds(), Seal: queue.NewKeyRing(), Shards: 1, Alone: true, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	if _, err := nc.Request("deliverd.v1.event.4711.refused", []byte("no event"), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	const to = "kari@nordlys.example"
	if err := q.Record(t.Context(), mail.Event{ID: "bounced", At: time.Now().UTC(), State: mail.StateReturned, Tenant: "4711", To: to, Cause: mail.CauseBadMailbox, Suppress: true}); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{queue: q, log: discard, cleanups: cleanups{log: discard}}
	d.start("suppressions", d.suppressLoop)
	t.Cleanup(func() { d.Close(t.Context()) })
	waitFor(t, to+" was suppressed", func() bool {
		s, err := q.Suppressed(t.Context(), "4711", to)
		return err == nil && s != nil
	})
}
