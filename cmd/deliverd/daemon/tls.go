package daemon

import (
	"context"
	"time"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// tendTLSEvery is how often policies that are due are fetched anew, and old marks
// forgotten.
const tendTLSEvery = time.Hour

// web is how the hosts are reached that a domain's policies name.
func (c *Config) web() dnscheck.Web {
	return dnscheck.Web{Dial: c.labDial(), Anywhere: c.labbed("443")}
}

// openTLS makes what knows and remembers how connections have to be protected. All
// nodes share it. With a relay nothing is asked of it, but a reload may end that.
func (d *Daemon) openTLS(ctx context.Context) error {
	if d.catch != nil {
		return nil
	}
	marks, err := d.queue.Shared(ctx, "tlsseen")
	if err != nil {
		return err
	}
	d.seen = tlspolicy.NewSeen(marks, d.log)
	d.start("who offers TLS", d.seen.Keep)
	d.policies = &tlspolicy.Finder{}
	if d.config.TLS.DANE {
		d.policies.Associations = d.resolver.Associations
		if d.config.Send.Relay == "" {
			d.start("DNSSEC", d.sayDNSSEC)
		}
	}
	if d.config.TLS.MTASTS {
		policies, err := d.queue.Shared(ctx, "mtasts")
		if err != nil {
			return err
		}
		d.policies.STS = tlspolicy.NewSTS(d.resolver, d.config.web(), policies, d.log)
		d.cleanups.add("MTA-STS policies", func(context.Context) error { d.policies.STS.Close(); return nil })
	}
	d.start("TLS policies", d.tendTLS)
	return d.openTLSReports(ctx)
}

// tendTLS keeps what is remembered fresh and small.
func (d *Daemon) tendTLS(ctx context.Context) {
	for sleep(ctx, tendTLSEvery) {
		if err := d.seen.Forget(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("old marks of who offers TLS could not be forgotten", "error", err)
		}
		if d.policies.STS == nil {
			continue
		}
		if err := d.policies.STS.Tend(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("MTA-STS policies could not be looked after", "error", err)
		}
	}
}

// validationTime bounds the question whether the resolver validates.
const validationTime = 10 * time.Second

// What the log and the doctor say of a resolver that gives DANE nothing to stand on.
const (
	notValidating     = "the DNS resolver does not validate DNSSEC, or its word does not count: DANE (RFC 7672) is off, and mail to domains that rely on it goes as to any other"
	notValidatingCure = "run a validating resolver such as unbound on this machine, or set dns.validating if yours validates and the way to it is safe"
)

// sayDNSSEC tells at the start whether DANE can have any effect (FAULTS B18).
func (d *Daemon) sayDNSSEC(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, validationTime)
	defer cancel()
	validates, err := d.resolver.Validates(ctx)
	switch {
	case ctx.Err() != nil && err != nil:
	case err != nil:
		d.log.Warn("whether the DNS resolver validates DNSSEC could not be learned; DANE counts where it does", "error", err)
	case !validates:
		d.log.Warn(notValidating, "cure", notValidatingCure)
	default:
		d.log.Info("the DNS resolver validates DNSSEC: DANE counts")
	}
}

// floors returns the least that connections for a kind's messages must be. Kinds are
// those of the start, as the queue's are.
func (d *Daemon) floors() func(kind string) mail.TLSFloor {
	kinds := d.config.queueKinds()
	return func(kind string) mail.TLSFloor { return kinds[kind].TLS }
}
