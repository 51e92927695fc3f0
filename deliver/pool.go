package deliver

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// PoolLimits bound the connections that wait for a next message. A zero field means
// the value that is named; Messages = 1 turns reuse off.
type PoolLimits struct {
	Idle     time.Duration // 5 s; Postfix waits 2, so that a busy server gets its slot back
	Age      time.Duration // 5 min, as Postfix's smtp_connection_reuse_time_limit
	Messages int           // 100 on one connection
	PerHost  int           // 20 idle ones for a host and policy
	Total    int           // 500 idle ones
}

func (l PoolLimits) withDefaults() PoolLimits {
	if l.Idle <= 0 {
		l.Idle = 5 * time.Second
	}
	if l.Age <= 0 {
		l.Age = 5 * time.Minute
	}
	if l.Messages <= 0 {
		l.Messages = 100
	}
	if l.PerHost <= 0 {
		l.PerHost = 20
	}
	if l.Total <= 0 {
		l.Total = 500
	}
	return l
}

// poolKey is what two messages must have in common to share a connection: the
// server, the name that its certificate was checked for, how it is protected, and
// who we are there.
type poolKey struct {
	addr netip.AddrPort
	host string
	tls  TLSPolicy
	// names tells connections apart whose certificate was good for other names, and
	// require those whose server passes protection on.
	names   string
	require bool
	user    string
	from    *origin
}

func keyOf(p *Plan, t target) poolKey {
	demand := t.demand()
	k := poolKey{addr: t.addr, host: t.host, tls: demand.Level, names: demand.Sharing(), require: demand.RequireTLS, from: p.from}
	if p.Login != nil {
		k.user = p.Login.User
	}
	return k
}

// pool keeps connections on which another message may follow, and lets messages wait
// for one (ride.go).
type pool struct {
	limits PoolLimits
	memory *memory

	mu       sync.Mutex
	stations map[poolKey]*station
	total    int // idle ones
	closed   bool
	quits    sync.WaitGroup // the QUITs under way
}

// station is where the connections to one host, under one policy, and the messages
// for it meet.
type station struct {
	idle  []*parked
	line  []*ride // no more than seats
	seats int     // busy connections that take one along
}

// at returns the station of k. The caller holds the mutex.
func (p *pool) at(k poolKey) *station {
	s := p.stations[k]
	if s == nil {
		if p.stations == nil {
			p.stations = make(map[poolKey]*station)
		}
		s = &station{}
		p.stations[k] = s
	}
	return s
}

// tidy forgets a station at which there is nothing. The caller holds the mutex.
func (p *pool) tidy(k poolKey, s *station) {
	if len(s.idle) == 0 && len(s.line) == 0 && s.seats == 0 {
		delete(p.stations, k)
	}
}

// parked is a connection that waits. Whoever takes it from its station under the
// mutex owns it: an attempt, or its timer.
type parked struct {
	*conn
	key   poolKey
	timer *time.Timer
}

// take returns a connection that waits and looks alive and in sync, or nil.
func (p *pool) take(ctx context.Context, k poolKey) *conn {
	for {
		c := p.pop(k)
		if c == nil || p.ready(ctx, k, c) {
			return c
		}
	}
}

// join returns a connection that becomes free soon, or on which r's envelope is
// already under way, or nil.
func (p *pool) join(ctx context.Context, k poolKey, r *ride) *conn {
	if !p.queue(k, r) {
		return nil
	}
	c := p.await(ctx, k, r)
	if c == nil || c.boarded || p.ready(ctx, k, c) {
		return c
	}
	return nil
}

// ready reports whether the next message can follow on c, and closes c where not.
func (p *pool) ready(ctx context.Context, k poolKey, c *conn) bool {
	ok := c.insync()
	if ok && c.dirty {
		release := c.bind(ctx)
		ok = c.reset() && release()
	}
	if ok {
		return true
	}
	p.withdraw(k, c)
	c.raw.Close()
	return false
}

// pop takes the newest that waits: it is the least likely to have been closed, and the
// others can end.
func (p *pool) pop(k poolKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stations[k]
	if s == nil || len(s.idle) == 0 {
		return nil
	}
	w := s.idle[len(s.idle)-1]
	p.remove(w)
	w.timer.Stop()
	p.offer(k, w.conn)
	return w.conn
}

// remove takes w out of its station, and reports whether it was there. The caller
// holds the mutex.
func (p *pool) remove(w *parked) bool {
	s := p.stations[w.key]
	if s == nil {
		return false
	}
	for i, x := range s.idle {
		if x != w {
			continue
		}
		s.idle = append(s.idle[:i], s.idle[i+1:]...)
		p.tidy(w.key, s)
		p.total--
		return true
	}
	return false
}

// perConn is how many messages c may carry.
func (p *pool) perConn(k poolKey, c *conn) int {
	limit := p.limits.Messages
	for _, n := range []int{c.messages, p.memory.limit(k.addr.Addr())} {
		if n > 0 {
			limit = min(limit, n)
		}
	}
	return limit
}

// put gives c to a message that waits for it, or keeps it for one that follows, or
// ends it where it is out of sync or has served long enough.
func (p *pool) put(k poolKey, c *conn) {
	switch {
	case c.broken || c.replies.buffered():
		p.withdraw(k, c)
		c.raw.Close() // FAULTS A42: more was said than asked for
	case c.carried >= p.perConn(k, c) || time.Since(c.born) >= p.limits.Age:
		p.withdraw(k, c)
		p.end(c)
	case !p.keep(k, c):
		p.end(c)
	}
}

// keep reports whether c has a place to stay.
func (p *pool) keep(k poolKey, c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	s := p.at(k)
	defer p.tidy(k, s)
	if r := s.first(); r != nil {
		p.offer(k, c)
		r.hand(c)
		return true
	}
	if c.seat {
		c.seat = false
		s.seats--
	}
	if p.total >= p.limits.Total || len(s.idle) >= p.limits.PerHost {
		return false
	}
	w := &parked{conn: c, key: k}
	s.idle = append(s.idle, w)
	p.total++
	wait := min(p.limits.Idle, p.limits.Age-time.Since(c.born))
	w.timer = time.AfterFunc(wait, func() { p.expire(w) })
	return true
}

// expire ends a connection that nobody took in time.
func (p *pool) expire(w *parked) {
	p.mu.Lock()
	mine := p.remove(w)
	p.mu.Unlock()
	if mine {
		p.end(w.conn)
	}
}

// end says QUIT in the background: what was accepted is settled long before the
// server answers it (FAULTS A44).
func (p *pool) end(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.raw.Close()
		return
	}
	p.quits.Go(c.quit)
}

// close ends every connection that waits, and returns when the last QUIT is
// answered or given up. What is put or ended later is cut. Who stands in line is told
// to dial.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for k, s := range p.stations {
		for _, w := range s.idle {
			w.timer.Stop()
			p.quits.Go(w.quit)
		}
		for r := s.first(); r != nil; r = s.first() {
			r.hand(nil)
		}
		s.idle = nil
		p.tidy(k, s)
	}
	p.total = 0
	p.mu.Unlock()
	p.quits.Wait()
}
