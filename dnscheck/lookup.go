package dnscheck

import (
	"context"
	"errors"

	"github.com/miekg/dns"
)

// flight is a question on its way, shared by everyone who asks it meanwhile.
type flight struct {
	waiting int                // guarded by the resolver's mutex
	cancel  context.CancelFunc // called when nobody waits any more
	done    chan struct{}
	answer  *answer // set before done is closed
}

// find answers a question by name and type, over as many aliases as there are,
// from memory where possible. The answer's err tells absence and failure.
func (r *Resolver) find(ctx context.Context, name string, kind uint16, cd bool) *answer {
	fqdn, err := presentation(name)
	q := question{fqdn, kind, cd}
	if err != nil {
		return failed(question{name, kind, cd}, BadName, err)
	}
	a := r.once(ctx, q)
	if a.next == "" {
		return a
	}
	// A server that doesn't follow aliases beyond its own zone: we do.
	whole := *a
	for whole.next != "" {
		q.name = whole.next
		part := r.once(ctx, q)
		whole.records, whole.err, whole.next = part.records, part.err, part.next
		if part.err != nil {
			whole.err = new(*part.err)
			whole.err.Domain = whole.Name
		}
		whole.AD = whole.AD && part.AD
		whole.TTL = min(whole.TTL, part.TTL)
		whole.Cut = whole.Cut || part.Cut
		whole.Aliases = whole.Aliases[:len(whole.Aliases):len(whole.Aliases)]
		for _, alias := range part.Aliases {
			if err := whole.addAlias(alias); err != nil {
				whole.next = ""
				whole.records = nil
				whole.fail(question{fqdn, kind, cd}, Temporary, dns.RcodeSuccess, err)
				break
			}
		}
	}
	return &whole
}

// once answers one question: from memory, from the same question under way, or
// by asking.
func (r *Resolver) once(ctx context.Context, q question) *answer {
	r.mu.Lock()
	if a := r.cache.get(q, r.options.Now()); a != nil {
		r.mu.Unlock()
		return a
	}
	f := r.flights[q]
	if f == nil {
		f = r.depart(ctx, q)
	}
	f.waiting++
	r.mu.Unlock()

	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		if r.flights[q] == f {
			delete(r.flights, q)
		}
	}
	return r.unanswered(ctx, q)
}

// depart starts asking q. The question outlives the context of whoever asked
// first, because others may wait for it too; it ends with the last of them.
// The mutex is held.
func (r *Resolver) depart(ctx context.Context, q question) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{})}
	r.flights[q] = f
	go func() {
		defer cancel()
		f.answer = r.fetch(ctx, q)
		r.mu.Lock()
		if r.flights[q] == f {
			delete(r.flights, q)
			r.cache.put(q, f.answer, r.options.Now())
		}
		r.mu.Unlock()
		close(f.done)
	}()
	return f
}

// fetch asks the servers, and turns what they say into an answer.
func (r *Resolver) fetch(ctx context.Context, q question) *answer {
	rep, err := r.query(ctx, q)
	if err == nil {
		return digest(q, rep)
	}
	lookup, ok := errors.AsType[*Error](err)
	if !ok {
		return failed(q, Local, err)
	}
	a := &answer{Answer: Answer{Name: lookup.Domain, Server: lookup.Server}, err: lookup}
	if lookup.Kind == Temporary {
		a.keep = failureTTL
	}
	return a
}

// unanswered is the answer of someone who couldn't wait. Whose fault that is
// depends on whether the servers are known to answer at all; giving up for other
// reasons is ours.
func (r *Resolver) unanswered(ctx context.Context, q question) *answer {
	a := failed(q, Local, ctx.Err())
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return a
	}
	for _, s := range r.servers.current() {
		if s.alive(r.options.Now().Add(-sulk)) {
			a.err.Kind, a.err.Server = Temporary, s.addr
		}
	}
	return a
}

func failed(q question, kind Kind, err error) *answer {
	return &answer{
		Answer: Answer{Name: plain(q.name)},
		err:    &Error{Kind: kind, Domain: plain(q.name), Type: dns.TypeToString[q.kind], Err: err},
	}
}
