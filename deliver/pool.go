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
	user string
}

func keyOf(p *Plan, t target) poolKey {
	k := poolKey{addr: t.addr, host: t.host, tls: p.TLS}
	if p.Login != nil {
		k.user = p.Login.User
	}
	return k
}

// pool keeps connections on which another message may follow.
type pool struct {
	limits PoolLimits
	memory *memory

	mu     sync.Mutex
	idle   map[poolKey][]*parked
	total  int
	closed bool
	quits  sync.WaitGroup // the QUITs under way
}

// parked is a connection that waits. Whoever takes it from the pool's map under the
// mutex owns it: an attempt, or its timer.
type parked struct {
	*conn
	key   poolKey
	timer *time.Timer
}

// take returns a connection that looks alive and in sync, or nil. The newest first:
// it is the least likely to have been closed, and the others can end.
func (p *pool) take(ctx context.Context, k poolKey) *conn {
	for {
		w := p.pop(k)
		if w == nil {
			return nil
		}
		release := w.bind(ctx)
		ok := w.insync() && w.reset()
		if release() && ok {
			return w.conn
		}
		w.raw.Close()
	}
}

func (p *pool) pop(k poolKey) *parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	ws := p.idle[k]
	if len(ws) == 0 {
		return nil
	}
	w := ws[len(ws)-1]
	p.remove(w)
	w.timer.Stop()
	return w
}

// remove takes w out of the map, and reports whether it was there. The caller holds
// the mutex.
func (p *pool) remove(w *parked) bool {
	ws := p.idle[w.key]
	for i, x := range ws {
		if x != w {
			continue
		}
		ws = append(ws[:i], ws[i+1:]...)
		if len(ws) == 0 {
			delete(p.idle, w.key)
		} else {
			p.idle[w.key] = ws
		}
		p.total--
		return true
	}
	return false
}

// put keeps c for a message that follows, or ends it where it is out of sync or has
// served long enough.
func (p *pool) put(k poolKey, c *conn) {
	limit := p.limits.Messages
	if n := p.memory.limit(k.addr.Addr()); n > 0 {
		limit = min(limit, n)
	}
	if c.broken || !c.insync() {
		c.raw.Close() // FAULTS A42: more was said than asked for
		return
	}
	if c.carried >= limit || time.Since(c.born) >= p.limits.Age {
		p.end(c)
		return
	}
	w := &parked{conn: c, key: k}
	p.mu.Lock()
	full := p.closed || p.total >= p.limits.Total || len(p.idle[k]) >= p.limits.PerHost
	if !full {
		if p.idle == nil {
			p.idle = make(map[poolKey][]*parked)
		}
		p.idle[k] = append(p.idle[k], w)
		p.total++
		wait := min(p.limits.Idle, p.limits.Age-time.Since(c.born))
		w.timer = time.AfterFunc(wait, func() { p.expire(w) })
	}
	p.mu.Unlock()
	if full {
		p.end(c)
	}
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
// answered or given up. What is put or ended later is cut.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, ws := range p.idle {
		for _, w := range ws {
			w.timer.Stop()
			p.quits.Go(w.quit)
		}
	}
	p.idle, p.total = nil, 0
	p.mu.Unlock()
	p.quits.Wait()
}
