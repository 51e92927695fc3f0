package deliver

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// tries is one attempt on its way along the hosts of its plan.
type tries struct {
	attempt *mail.Attempt
	plan    Plan
	env     envelope
	wait    Timeouts
	bytes   int
	failed  []*failure
}

// handOver finds the way and walks it until somebody decides.
func (d *Deliverer) handOver(ctx context.Context, a *mail.Attempt, from mail.Address, signed []byte) mail.Outcome {
	t, targets, err := d.way(ctx, a, from, signed)
	if err != nil {
		o := byPlan(ctx, a, err)
		o.Contact = planContact(err)
		return o
	}
	if a.Enter != nil {
		if err := a.Enter(t.plan.Destination); err != nil {
			o := mail.Outcome{}
			ours(&o, err)
			return o
		}
	}
	o := d.walk(ctx, t, targets)
	if o.State != "" {
		o.Contact = t.contact(&o)
	}
	return o
}

// walk goes along the hosts until somebody decides.
func (d *Deliverer) walk(ctx context.Context, t *tries, targets []target) mail.Outcome {
	if o, done := d.reuse(ctx, t, targets); done {
		return o
	}
	for _, target := range d.memory.inOrder(targets) {
		if t.tried(target) {
			continue // on a connection that waited
		}
		if o, done := d.fresh(ctx, t, target); done {
			return o
		}
	}
	return t.verdict()
}

// way plans an attempt: it returns what can be dialled, in order.
func (d *Deliverer) way(ctx context.Context, a *mail.Attempt, from mail.Address, signed []byte) (*tries, []target, error) {
	t := &tries{attempt: a, bytes: len(signed), wait: d.wait, env: envelope{
		from: from, to: a.Message.To, message: signed, proceed: a.Proceed, expires: a.Message.ExpiresAt,
	}}
	if !a.Message.ExpiresAt.IsZero() {
		t.wait = t.wait.within(time.Until(a.Message.ExpiresAt))
	}
	var err error
	t.plan, err = d.options.Plan(ctx, a.Message.To.Domain())
	t.plan.from = d.originOf(a.Message.Kind)
	t.plan.kind, t.plan.floor = a.Message.Kind, d.options.floor(a.Message.Kind)
	t.env.requireTLS = t.plan.floor == mail.TLSFloorRequire
	targets := t.plan.targets()
	if err == nil && len(targets) == 0 {
		err = &dnscheck.Error{Kind: dnscheck.NoAddress, Domain: a.Message.To.Domain(), Type: "MX"}
	}
	return t, targets, err
}

// reuse tries a connection that waits at one of the best hosts, or one that another
// message is about to leave. Where it turns out to be at its end, nothing has
// happened.
func (d *Deliverer) reuse(ctx context.Context, t *tries, targets []target) (o mail.Outcome, done bool) {
	for best := range bestOf(targets) {
		if c := d.pool.take(ctx, keyOf(&t.plan, best)); c != nil {
			return d.again(ctx, t, c, best)
		}
	}
	for best := range bestOf(targets) {
		r := &ride{env: &t.env, pool: d.pool, handed: make(chan *conn, 1)}
		if c := d.pool.join(ctx, keyOf(&t.plan, best), r); c != nil {
			return d.again(ctx, t, c, best)
		}
	}
	return o, false
}

// bestOf yields the targets of the lowest preference that may be dialled.
func bestOf(targets []target) iter.Seq[target] {
	return func(yield func(target) bool) {
		for _, t := range targets {
			if t.pref != targets[0].pref || t.barred == nil && !yield(t) {
				return
			}
		}
	}
}

// again sends the message on a connection that carried another.
func (d *Deliverer) again(ctx context.Context, t *tries, c *conn, target target) (o mail.Outcome, done bool) {
	c.adopt(target)
	started := time.Now()
	o, f := d.transact(ctx, t, c, true)
	switch {
	case f == nil:
		return o, true
	case f.stale():
		d.learnPipelining(f)
		if f.reply != nil && f.reply.Code == 421 {
			d.memory.limited(f.target.addr.Addr(), f.carried)
		}
		return o, false
	}
	f.took = time.Since(started)
	return t.after(f)
}

// tried reports whether an address has failed in this attempt.
func (t *tries) tried(target target) bool {
	return slices.ContainsFunc(t.failed, func(f *failure) bool { return f.target.is(target) })
}

// fresh dials one address.
func (d *Deliverer) fresh(ctx context.Context, t *tries, target target) (o mail.Outcome, done bool) {
	started := time.Now()
	err := t.attempt.Proceed()
	if ctx.Err() != nil { // while it stood in line
		err = mail.ErrInterrupted
	}
	if err != nil {
		return t.after(&failure{stage: mail.StageConnect, err: &errStopped{err}})
	}
	if target.barred != nil {
		return t.after(d.barred(t, target))
	}
	c, f := d.open(ctx, &t.plan, target, t.wait)
	if c != nil {
		target = c.target // the host's other address, perhaps
	} else {
		target = f.target
		if f.twin != nil {
			d.learn(f.twin.target, f.twin)
			f.twin.took = time.Since(started)
			t.failed = append(t.failed, f.twin)
		}
	}
	d.noteTLS(ctx, t, target, c, f)
	if f == nil {
		o, f = d.transact(ctx, t, c, false)
	}
	d.learn(target, f)
	if f == nil {
		return o, true
	}
	f.took = time.Since(started)
	if ctx.Err() != nil && f.reply == nil {
		f.err = &errStopped{mail.ErrInterrupted}
	}
	return t.after(f)
}

// after notes a failure, and decides unless another host may do better.
func (t *tries) after(f *failure) (o mail.Outcome, done bool) {
	t.failed = append(t.failed, f)
	if f.scope() == scopeHost {
		return o, false
	}
	return t.verdict(), true
}

// learn remembers what a try told of an address.
func (d *Deliverer) learn(t target, f *failure) {
	addr := t.addr.Addr()
	switch {
	case f == nil || f.reply != nil:
		d.memory.alive(addr)
	case f.stage == mail.StageConnect, f.stage == mail.StageGreeting && f.timedOut():
		if f.scope() == scopeHost {
			d.memory.dead(addr)
		}
	default:
		d.learnPipelining(f)
	}
}

// learnPipelining remembers a server that lost commands: those after the first, or,
// behind another message's dot, all of them.
func (d *Deliverer) learnPipelining(f *failure) {
	if !f.pipelined || !f.timedOut() {
		return
	}
	switch f.stage {
	case mail.StageMail:
		if f.reused {
			d.memory.cannotPipeline(f.target.addr.Addr())
		}
	case mail.StageRcpt, mail.StageData:
		d.memory.cannotPipeline(f.target.addr.Addr())
	}
}

// transact sends the message on c, and keeps or ends c.
func (d *Deliverer) transact(ctx context.Context, t *tries, c *conn, reused bool) (o mail.Outcome, f *failure) {
	key := keyOf(&t.plan, c.target)
	c.wait, c.messages = t.wait, t.plan.Messages
	if reused {
		c.said = transcript{}
	}
	c.caps.pipelining = c.caps.pipelining && d.memory.pipelines(c.target.addr.Addr())
	release := c.bind(ctx)
	var said mail.Reply
	said, f = c.send(&t.env, func() *ride { return d.pool.board(key, c) })
	if !release() {
		c.broken = true
	}
	if f != nil {
		f.tls, f.reused, f.pipelined, f.carried = c.tls, reused, c.pipelined, c.carried
		f.said, f.offers = c.said.exchanges, c.caps.lines
		if ctx.Err() != nil && f.reply == nil {
			f.err = &errStopped{mail.ErrInterrupted}
		}
	} else {
		o = mail.Outcome{State: mail.StateAccepted, Evidence: t.handedOver(c, said, reused)}
	}
	c.carried++
	// From here on it may be another attempt's.
	if next := c.next; next != nil {
		c.next = nil
		d.pool.handOver(key, c, next)
	} else {
		d.pool.put(key, c)
	}
	return o, f
}

// logAttempt writes the attempt's one line, which can be read aloud: no body, no
// secret, and what a server said only as it was cleaned.
func (d *Deliverer) logAttempt(ctx context.Context, a *mail.Attempt, o *mail.Outcome) {
	level, text := slog.LevelInfo, "message "+string(o.State)
	switch o.State {
	case mail.StateAccepted:
		text = "message handed over"
	case "":
		level, text = slog.LevelWarn, "attempt not counted"
		if o.Local == mail.ErrNoRoom.Error() {
			level = slog.LevelDebug // it waits for its turn, as a backlog does by the thousand
		}
	}
	if !d.log.Enabled(ctx, level) {
		return
	}
	m, e := &a.Message, &o.Evidence
	attrs := []slog.Attr{
		slog.String("message", string(m.ID)), slog.String("ref", string(m.Ref)), slog.String("kind", m.Kind),
		slog.String("to", string(m.To)), slog.Int("attempt", a.Number),
	}
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	add("cause", string(o.Cause))
	add("stage", string(e.Stage))
	add("host", e.Host)
	add("ip", e.IP)
	if e.Reply != nil {
		add("reply", e.Reply.String())
	}
	add("error", e.Error)
	if o.Local != e.Error {
		add("local", o.Local)
	}
	if e.TLS != nil {
		add("tls", e.TLS.Version)
	}
	if o.PossibleDuplicate {
		attrs = append(attrs, slog.Bool("possible_duplicate", true))
	}
	attrs = append(attrs, slog.Duration("took", e.Took.Round(time.Microsecond)))
	d.log.LogAttrs(ctx, level, text, attrs...)
}
