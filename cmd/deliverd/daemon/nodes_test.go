package daemon

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue/natstest"
)

// TestTwoDaemonsOneStore runs two daemons on a NATS server that is neither's: each
// takes mail, they share the work, and every message is handed over once. One stops,
// and the other goes on with all of it.
func TestTwoDaemonsOneStore(t *testing.T) {
	t.Parallel()
	ns, err := natstest.Open(t.TempDir(), func(o *server.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", server.RANDOM_PORT
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Stop)
	sink, err := smtptest.Listen(smtptest.SinkOptions{Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })

	ring := "file:" + t.TempDir() + "/seal.ring" // shared, as on a cluster
	dkim := rehearsalKeys(t)
	node := func() *Daemon {
		return rehearsal(t, sink, func(c *Config) {
			c.NATS.URL = ns.ClientURL()
			c.Keys.Seal = Secret(ring)
			c.DKIM = dkim
		})
	}
	first := node()
	stopFirst := first.runUntil(t)
	second := node()
	second.run(t)
	caller := intake.Caller{Source: "test", Tenants: []string{intake.AllTenants}}
	send := func(d *Daemon, n int) (ids []mail.ID) {
		t.Helper()
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				r, err := d.intake.Submit(t.Context(), caller, mail.Request{
					Kind: "pin", To: fmt.Sprintf("kari.%d@company%d.example", i, i), PersonID: fmt.Sprintf("%p-%d-%d", d, n, i),
					Data: map[string]any{"code": "482913"},
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				ids = append(ids, r.ID)
				mu.Unlock()
			})
		}
		wg.Wait()
		return ids
	}
	ids := append(send(first, 50), send(second, 50)...)
	for _, id := range ids {
		if s := second.waitEnded(t.Context(), id); s != mail.StateAccepted {
			t.Errorf("%s ended as %q", id, s)
		}
	}
	stopFirst()
	began := time.Now()
	for _, id := range send(second, 50) {
		if s := second.waitEnded(t.Context(), id); s != mail.StateAccepted {
			t.Errorf("%s ended as %q after the other node had gone", id, s)
		}
		ids = append(ids, id)
	}
	t.Logf("all of it was the second node's after %v", time.Since(began).Round(time.Millisecond))
	ledger := sink.Ledger()
	for _, id := range ids {
		if n := ledger["<"+string(id)+"@acme.example>"]; n != 1 {
			t.Errorf("%s was handed over %d times", id, n)
		}
	}
}
