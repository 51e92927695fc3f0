package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
)

// rehearsal opens a daemon in process that hands everything to a sink, as a relay.
func rehearsal(tb testing.TB, sink *smtptest.Sink, change func(*Config)) *Daemon {
	tb.Helper()
	c := Defaults()
	c.Data = tb.TempDir()
	c.Listen.HTTP = "127.0.0.1:0"
	c.Send.Relay = sink.Addr().String()
	c.Send.From = "Acme <no-reply@acme.example>"
	c.Send.Hello = "mail.acme.example"
	c.Send.ReturnPathDomain = "bounce.acme.example"
	c.Limits = LimitsConfig{}
	c.DKIM = rehearsalKeys(tb)
	if change != nil {
		change(c)
	}
	if err := c.Validate(); err != nil {
		tb.Fatal(err)
	}
	d, err := Open(tb.Context(), c, Options{Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// rehearsalKeys makes a signing key of each sort.
func rehearsalKeys(tb testing.TB) (keys []DKIMConfig) {
	tb.Helper()
	for selector, alg := range map[string]deliver.Algorithm{"r": deliver.RSA2048, "e": deliver.Ed25519} {
		pem, err := deliver.NewKey(alg)
		if err != nil {
			tb.Fatal(err)
		}
		file := filepath.Join(tb.TempDir(), selector+".pem")
		if err := os.WriteFile(file, pem, 0o600); err != nil {
			tb.Fatal(err)
		}
		keys = append(keys, DKIMConfig{Domain: "acme.example", Selector: selector, Key: Secret("file:" + file)})
	}
	return keys
}

// run runs the daemon until the test ends.
func (d *Daemon) run(tb testing.TB) { tb.Cleanup(d.runUntil(tb)) }

// runUntil runs the daemon until stop is called.
func (d *Daemon) runUntil(tb testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	}
}

// BenchmarkMessage is a message's whole way in one process, without a door: from
// Submit to the sink's last reply, with the sink's own work. Profile it to find what
// a message costs; `deliverd bench` measures the daemon alone.
func BenchmarkMessage(b *testing.B) {
	var arrived sync.WaitGroup
	sink, err := smtptest.Listen(smtptest.SinkOptions{Keep: -1, OnMail: func(smtptest.Mail) { arrived.Done() }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { sink.Close() })
	d := rehearsal(b, sink, nil)
	d.run(b)
	caller := intake.Caller{Source: "bench", Tenants: []string{intake.AllTenants}}
	b.ReportAllocs()
	b.ResetTimer()
	arrived.Add(b.N)
	next := make(chan int)
	var senders sync.WaitGroup
	for range 64 {
		senders.Go(func() {
			for i := range next {
				_, err := d.intake.Submit(b.Context(), caller, mail.Request{
					Kind: "invite", To: fmt.Sprintf("kari.%d@company%d.example", i, i%500), ToName: "Kari Nordmann", Tenant: fmt.Sprint(i % 500),
					PersonID: fmt.Sprint("usr_", i), Data: map[string]any{"link": fmt.Sprintf("https://login.acme.example/i/%032x", i), "inviter": "Lars"},
				})
				if err != nil {
					b.Error(err)
					arrived.Done()
				}
			}
		})
	}
	for i := range b.N {
		next <- i
	}
	close(next)
	senders.Wait()
	arrived.Wait()
	b.ReportMetric(float64(sink.Stats().Connections)/float64(b.N), "connections/op")
}
