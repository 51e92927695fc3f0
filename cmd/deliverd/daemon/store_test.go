package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
)

func anInvite(tenant, to string) mail.Request {
	return mail.Request{Kind: "invite", To: to, Tenant: tenant, Data: map[string]any{"link": "https://login.acme.example/i/1", "inviter": "Lars"}}
}

// submit hands a message over as a caller of every tenant.
func (d *Daemon) submit(ctx context.Context, r mail.Request) (mail.Receipt, error) {
	return d.intake.Submit(ctx, intake.Caller{Source: "login", Tenants: []string{intake.AllTenants}}, r)
}

// settled waits until every message has ended, and holds the whole against the laws:
// each has one end and was handed over, once or with the doubt told.
func (d *Daemon) settled(t *testing.T, sink *smtptest.Sink, ids []mail.ID) {
	t.Helper()
	for _, id := range ids {
		if s := d.waitEnded(t.Context(), id); s != mail.StateAccepted {
			t.Errorf("%s ended as %s", id, s)
		}
	}
	ledger := sink.Ledger()
	for _, id := range ids {
		facts, err := d.view.Facts(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		ends, doubt := 0, false
		for _, e := range facts.Events {
			doubt = doubt || e.PossibleDuplicate
			if e.State.Terminal() {
				ends++
			}
		}
		if ends != 1 {
			t.Errorf("%s has %d ends", id, ends)
		}
		if n := ledger["<"+string(id)+"@acme.example>"]; n == 0 || n > 1 && !doubt {
			t.Errorf("%s arrived %d times; in doubt: %v", id, n, doubt)
		}
	}
	a, err := d.queue.Audit(t.Context())
	if err != nil || !a.OK() {
		t.Errorf("the audit says %+v, %v", a, err)
	}
}

// TestStoreRestartUnderLoad: the cure of a store that a full disk closed is to
// restart it. Nothing that was acknowledged is lost by it, who asks in between is told
// to come again, and work goes on by itself (F12).
func TestStoreRestartUnderLoad(t *testing.T) {
	t.Parallel()
	const senders, between = 4, 50
	d, sink := open(t, smtptest.SinkOptions{Ledger: true, Keep: -1}, nil)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ids := make([][]mail.ID, senders)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				m := anInvite("4711", fmt.Sprintf("kari.%d.%d@company%d.example", s, i, i%7))
				m.IdempotencyKey = m.To // so that asking again is the same
				for ctx.Err() == nil {
					r, err := d.submit(ctx, m)
					if err == nil {
						ids[s] = append(ids[s], r.ID)
						taken.Add(1)
						break
					}
					p, ok := errors.AsType[*mail.Problem](err)
					if !ok || ctx.Err() == nil && (p.Status != http.StatusServiceUnavailable || p.RetryAfter == 0) {
						t.Errorf("%v", err)
					}
				}
			}
		})
	}
	more := func() {
		before := taken.Load()
		waitFor(t, "more was taken", func() bool { return taken.Load() >= before+between })
	}
	more()
	if err := d.embedded.restart(); err != nil {
		t.Fatal(err)
	}
	more()
	stop()
	wg.Wait()
	var all []mail.ID
	for _, of := range ids {
		all = append(all, of...)
	}
	d.settled(t, sink, all)
	t.Logf("%d messages over a restart", len(all))
}
