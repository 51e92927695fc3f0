// Package daemon is deliverd as a value: configuration, wiring, and the doors. Every
// neighbour meets the others here and nowhere else; each is handed functions or small
// interfaces of the others.
//
// Open wires in one straight line: data directory → keys → NATS → queue → read model
// → templates and signer → resolver → deliverer → intake → doors. Run works until
// its context ends, then stops taking work, lets what is under way finish, and
// closes everything in the opposite order.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/deliver/tlsrpt"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// Options are what a daemon is told beside its configuration.
type Options struct {
	Log     *slog.Logger
	Version string
	// Signers is how many messages are rendered and signed at once, those of lane 1
	// apart; 0: half of GOMAXPROCS.
	Signers int
	// Catch, if not nil, stands for every recipient's mail server, and the API needs
	// no token: `deliverd dev`.
	Catch *smtptest.Sink
	// Sockets are listening ones that the service manager handed over, by name: "http",
	// "metrics", "bounces". They count instead of the addresses in [listen].
	Sockets map[string][]net.Listener
	// Hints are commands that the start page proposes while there is no mail.
	Hints []string
}

// Daemon is a running deliverd.
type Daemon struct {
	log      *slog.Logger
	version  string
	signers  int
	config   *Config                  // as started: what a reload can't change
	settings atomic.Pointer[settings] // what it can

	reloading sync.Mutex // held while settings are made anew

	cleanups   cleanups
	embedded   *embedded // nil with a NATS server elsewhere
	nc         *nats.Conn
	queue      *queue.Queue
	view       *console.View
	resolver   *dnscheck.Resolver
	policies   *tlspolicy.Finder   // nil with Catch
	seen       *tlspolicy.Seen     // nil with Catch
	sessions   *tlsrpt.Collector   // nil with Catch, or where tls.reports is off
	returns    *bounces.ReturnPath // nil: bounces go to the sender
	desk       *desk
	intake     *intake.Intake
	metrics    *metrics
	providers  providerMemory
	delays     delays
	tenants    tenantDomains
	tokens     *console.Tokens
	calendar   *console.Calendar
	held       atomic.Pointer[map[string]console.Occurrence] // kinds that maintenance holds back, and when
	serviceLog *console.ServiceLog
	hints      []string
	sample     atomic.Bool // the data is made up, and the pages say so
	catch      *smtptest.Sink
	sockets    map[string][]net.Listener // handed over
	http       net.Listener
}

// grace is how long attempts under way may take to end when the daemon is told to
// stop: a final dot may wait for its reply, but nobody waits ten minutes for a
// restart. What is cut off is tried again, at no cost to the message.
const grace = 30 * time.Second

// Open starts everything but the work: when it returns, the API answers.
func Open(ctx context.Context, c *Config, o Options) (opened *Daemon, err error) {
	d := &Daemon{log: o.Log, version: o.Version, signers: o.Signers, config: c, catch: o.Catch, hints: o.Hints, sockets: o.Sockets, cleanups: cleanups{log: o.Log}, metrics: newMetrics(o.Version)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.cleanups.run(context.WithoutCancel(ctx)))
		}
	}()
	for _, step := range []struct {
		name string
		open func(context.Context) error
	}{
		{"sockets", d.takeSockets},
		{"data directory", d.openData},
		{"queue", d.openQueue},
		{"read model", d.openView},
		{"settings", d.openSettings},
		{"intake", d.openIntake},
		{"maintenance windows", d.openMaintenance},
		{"doors", d.openDoors},
		{"mail to postmaster", d.openDesk},
		{"bounce listener", d.openBounces},
	} {
		if err := step.open(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return d, nil
}

func (d *Daemon) openData(context.Context) error {
	unlock, err := lockData(d.config.Data)
	if err != nil {
		return err
	}
	d.cleanups.add("data directory", func(context.Context) error { return unlock() })
	return nil
}

// start runs a loop in the background until the daemon stops.
func (d *Daemon) start(name string, loop func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		loop(ctx)
	}()
	d.cleanups.add(name, func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// Run delivers mail until ctx ends, then stops gracefully. Its error is what kept
// the daemon from stopping cleanly, nil otherwise.
func (d *Daemon) Run(ctx context.Context) error {
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	stopped := context.AfterFunc(ctx, func() {
		d.log.Info("stopping: no new attempts; those under way may finish", "within", grace)
		time.AfterFunc(grace, stopWorking)
	})
	defer stopped()
	err := d.queue.Work(ctx, working, d.attempt)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return errors.Join(err, d.Close(stop))
}

// Close stops a daemon that does not run.
func (d *Daemon) Close(ctx context.Context) error { return d.cleanups.run(ctx) }

// attempt hands one attempt to the deliverer.
func (d *Daemon) attempt(ctx context.Context, a *mail.Attempt) mail.Outcome {
	o := d.settings.Load().deliverer.Attempt(ctx, a)
	if o.State == "" && ctx.Err() == nil && o.Evidence.Stage != "" {
		d.metrics.localFaults.WithLabelValues(string(o.Evidence.Stage)).Inc()
	}
	return o
}

// Alive returns once the scheduler has answered: that of a daemon that is stuck never
// does. A store that takes no writes is no reason to restart a daemon that mends it.
func (d *Daemon) Alive() { d.queue.WaitingHere() }

// HTTPAddr is where the API answers.
func (d *Daemon) HTTPAddr() net.Addr { return d.http.Addr() }

// NATSAddr is the embedded server's listener, nil without one.
func (d *Daemon) NATSAddr() net.Addr {
	if d.embedded == nil {
		return nil
	}
	return d.embedded.addr()
}
