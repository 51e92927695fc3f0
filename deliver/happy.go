package deliver

import (
	"context"
	"net"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// headStart is how long the first address of a host has the field to itself, before
// the one of the other family is tried beside it (RFC 8305 5 recommends 250 ms, for a
// person who waits). Where IPv6 is broken on the way, and it is often broken by
// silence, that is what it costs.
const headStart = 300 * time.Millisecond

// dialled is how a dial ended.
type dialled struct {
	to   target
	conn net.Conn
	err  error
}

// dialHost dials a target, and the host's address of the other family if the first
// takes long and the other is not known to be dead. The first to connect is taken, the
// other one given up; if both fail it returns both, the target's first.
func (d *Deliverer) dialHost(ctx context.Context, from *origin, t target, timeout time.Duration) (won dialled, also *dialled) {
	if !t.other.IsValid() || d.memory.isDead(t.other.Addr()) {
		raw, err := from.connect(ctx, t.addr, timeout)
		return dialled{t, raw, err}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan dialled, 2)
	dial := func(t target) {
		raw, err := from.connect(ctx, t.addr, timeout)
		ended <- dialled{t, raw, err}
	}
	go dial(t)
	start := time.NewTimer(headStart)
	defer start.Stop()
	select {
	case first := <-ended:
		return first, nil
	case <-start.C:
	}
	go dial(t.twin())
	won = <-ended
	if won.err == nil {
		cancel()
		if late := <-ended; late.conn != nil {
			late.conn.Close()
		}
		if won.to.addr != t.addr {
			d.memory.slow(t.addr.Addr())
		}
		return won, nil
	}
	second := <-ended
	switch {
	case second.err == nil:
		return second, nil
	case won.to.addr != t.addr:
		won, second = second, won
	}
	return won, &second
}

// twin is the same host at its other address.
func (t target) twin() target {
	t.addr, t.other = t.other, t.addr
	return t
}

// paired gives each of a host's two targets the other's address, where one of them is
// IPv4 and the other IPv6.
func paired(ts []target) {
	if len(ts) == 2 && ts[0].addr.Addr().Is4() != ts[1].addr.Addr().Is4() {
		ts[0].other, ts[1].other = ts[1].addr, ts[0].addr
	}
}

// unconnected is the failure that a dial came to.
func unconnected(won dialled, also *dialled) *failure {
	f := &failure{target: won.to, stage: mail.StageConnect, err: won.err}
	if also != nil {
		f.twin = &failure{target: also.to, stage: mail.StageConnect, err: also.err}
	}
	return f
}
