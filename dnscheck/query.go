package dnscheck

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// try is one server to ask in one way.
type try struct {
	server *server
	edns   bool
}

// result is how a try ended.
type result struct {
	try   try
	reply *reply
	err   error
}

// query puts q to the servers until one gives a usable answer: each in turn with
// EDNS, then each that stayed silent once more without (a middlebox may drop what
// it doesn't know), and at once without where that has been the way lately. A try
// that is not answered in time is not given up: its socket stays open while the
// next is asked, and the first good answer wins.
//
// The reply may carry a failure (SERVFAIL, REFUSED) if no server did better. An
// error means that nobody answered.
func (r *Resolver) query(ctx context.Context, q question) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.Total)
	c := &conversation{resolver: r, question: q, began: r.options.Now(), answered: map[*server]bool{}, results: make(chan result)}
	defer c.running.Wait()
	defer cancel()
	for _, first := range []bool{true, false} {
		for _, s := range r.servers.current() {
			c.plan = append(c.plan, try{s, first && s.edns(c.began)})
		}
	}
	return c.run(ctx)
}

// conversation is one question's way through the servers. Its fields but results
// belong to the goroutine of run.
type conversation struct {
	resolver *Resolver
	question question
	began    time.Time
	plan     []try
	asked    []*server
	answered map[*server]bool
	pending  int
	failure  *reply // the best answer that was none
	err      error  // the last try's error, if no server answered
	results  chan result
	running  sync.WaitGroup
}

func (c *conversation) run(ctx context.Context) (*reply, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	if !c.next(ctx) {
		return nil, errors.New("no dns server is configured")
	}
	for {
		timer.Reset(c.resolver.options.Try)
		select {
		case got := <-c.results:
			c.pending--
			if c.take(got) {
				return got.reply, nil
			}
			if !c.next(ctx) && c.pending == 0 {
				return c.ended(ctx)
			}
		case <-timer.C:
			c.unheard(ctx)
			if !c.next(ctx) && c.failure != nil {
				return c.failure, nil
			}
		case <-ctx.Done():
			return c.ended(ctx)
		}
	}
}

// next starts the plan's next try, leaving out servers that have answered; false
// if there is none.
func (c *conversation) next(ctx context.Context) bool {
	for len(c.plan) > 0 {
		t := c.plan[0]
		c.plan = c.plan[1:]
		if c.answered[t.server] {
			continue
		}
		c.pending++
		c.asked = append(c.asked, t.server)
		c.running.Go(func() {
			reply, err := c.resolver.ask(ctx, t.server, c.question, t.edns)
			select {
			case c.results <- result{t, reply, err}:
			case <-ctx.Done():
			}
		})
		return true
	}
	return false
}

// take keeps what a try brought; true if it settles the question.
func (c *conversation) take(got result) bool {
	if got.err != nil {
		c.err = got.err
		if errors.Is(got.err, errTruncated) {
			c.answered[got.try.server] = true
		}
		return false
	}
	c.answered[got.try.server] = true
	if got.try.server.edns(c.began) {
		got.try.server.learn(got.reply.plain, c.resolver.options.Now())
	}
	switch got.reply.msg.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return true
	}
	// Of two failures the more telling one is kept: SERVFAIL is about the domain,
	// the others are mostly about the server that says so.
	if c.failure == nil || got.reply.msg.Rcode == dns.RcodeServerFailure {
		c.failure = got.reply
	}
	return false
}

// unheard notes who stayed silent and asks them for a sign of life, because the
// silence of a resolver that answers other questions is the domain's fault, and
// of one that answers none is ours.
func (c *conversation) unheard(ctx context.Context) {
	for _, s := range c.asked {
		if c.answered[s] {
			continue
		}
		s.silent.Store(c.resolver.options.Now().UnixNano())
		if !s.alive(c.began) && s.probing.CompareAndSwap(false, true) {
			c.running.Go(func() {
				defer s.probing.Store(false)
				// The root's servers are in every resolver's memory. The answer is
				// of no interest: datagram notes that there was one.
				c.resolver.datagram(ctx, s, question{name: ".", kind: dns.TypeNS}, false)
			})
		}
	}
}

// ended gives the verdict when no usable answer came.
func (c *conversation) ended(ctx context.Context) (*reply, error) {
	if c.failure != nil {
		return c.failure, nil
	}
	lookup := &Error{Kind: Local, Domain: plain(c.question.name), Type: dns.TypeToString[c.question.kind], Err: c.err}
	if len(c.asked) > 0 {
		lookup.Server = c.asked[len(c.asked)-1].addr
	}
	if err := ctx.Err(); err != nil {
		lookup.Err = err
	}
	for _, s := range c.asked {
		if s.alive(c.began) {
			lookup.Kind, lookup.Server = Temporary, s.addr
		}
	}
	if errors.Is(c.err, errTruncated) {
		lookup.Kind, lookup.Err = Temporary, c.err
	}
	return nil, lookup
}
