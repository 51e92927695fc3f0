package deliver

import (
	"context"
	"time"
)

// On a busy connection the next message's envelope goes out in the packet of this
// one's dot, which RFC 2920 3.1 allows: the end of a message may be the first command
// of a group. So each costs one round trip, where it would cost two:
//
//	alone   MAIL RCPT DATA ⇄ 250 250 354     body . ⇄ 250
//	riding  body . MAIL RCPT DATA ⇄ 250 250 250 354
//
// The two messages belong to two attempts, on two goroutines. An attempt that finds no
// connection waiting stands in line behind a busy one. Whoever owns the connection
// looks into the line as it sends its dot (pool.board), takes the first along, reads
// its own reply, and hands the connection over with the next three replies unread. The
// rider reads those itself, and owns the connection from then on.
//
// What may happen to a rider, none of which counts as an attempt:
//
//	its time is over while it waits     it is asked before it is taken along, and again before its body
//	the dot before it fares badly       4xx, 5xx: the connection goes on. 421, closed, silence: a fresh one
//	the connection is slow              it leaves after ridePatience and dials; the connection, on which its
//	                                    envelope is open, is closed when the dot before it is answered
//
// Nothing of a rider's body goes out before its own 354, so that to give it up is
// always safe. A reply too many shifts the four replies, and the 354 then stands where
// a 250 should: the connection ends before any body.
type ride struct {
	env    *envelope
	pool   *pool
	handed chan *conn // gets one value; nil: find another way
	// Guarded by the pool's mutex.
	over bool // handed has its value
	left bool // nobody waits for that any more
}

// ridePatience is how long an attempt stands in line. It does so only behind
// connections whose last message took a fraction of that.
const ridePatience = time.Second

// brisk reports whether the next message had better wait for c than open another
// connection. Where a server thinks long about each dot, connections side by side
// carry more than one after the other.
func (c *conn) brisk() bool {
	return !c.broken && c.caps.pipelining && c.carried > 0 && c.dotTook < ridePatience/4 && c.dotTook <= 2*c.envelopeTook+time.Millisecond
}

// offer says whether c, which is in use or about to be, has a seat for one who stands
// in line. It keeps it while it is in use: with one taken along, the next may come. The
// caller holds the mutex.
func (p *pool) offer(k poolKey, c *conn) {
	fit := !p.closed && c.brisk() && c.carried+1 < p.perConn(k, c) && time.Since(c.born) < p.limits.Age
	if fit == c.seat {
		return
	}
	c.seat = fit
	s := p.at(k)
	if fit {
		s.seats++
		return
	}
	if s.seats--; len(s.line) > s.seats {
		last := len(s.line) - 1
		s.line[last].hand(nil)
		s.line = s.line[:last]
	}
	p.tidy(k, s)
}

// withdraw takes c's offer back: it is at its end.
func (p *pool) withdraw(k poolKey, c *conn) {
	if !c.seat {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.broken = true
	p.offer(k, c)
}

// board returns the first in line for c, nil: nobody.
func (p *pool) board(k poolKey, c *conn) *ride {
	if !c.seat {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at(k).first()
}

// first takes the first out of the line.
func (s *station) first() *ride {
	if len(s.line) == 0 {
		return nil
	}
	r := s.line[0]
	s.line = s.line[1:]
	return r
}

// hand ends r's wait. The caller holds the pool's mutex.
func (r *ride) hand(c *conn) {
	r.over = true
	r.handed <- c
}

// handOver gives c, on which r's envelope is, to r's attempt.
func (p *pool) handOver(k poolKey, c *conn, r *ride) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.broken = c.broken || r.left
	c.boarded = !c.broken
	p.offer(k, c)
	if c.broken {
		c.raw.Close()
		c = nil
	}
	r.hand(c)
}

// refuse tells r, which was taken out of the line, to find another way.
func (r *ride) refuse() {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	r.hand(nil)
}

// queue puts r in line behind a busy connection, if there is one with room.
func (p *pool) queue(k poolKey, r *ride) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stations[k]
	if s == nil || len(s.line) >= s.seats {
		return false
	}
	s.line = append(s.line, r)
	return true
}

// await waits in the line that r stands in, and returns the connection, nil if there
// is none to be had.
func (p *pool) await(ctx context.Context, k poolKey, r *ride) *conn {
	patience := time.NewTimer(ridePatience)
	defer patience.Stop()
	select {
	case c := <-r.handed:
		return c
	case <-patience.C:
	case <-ctx.Done():
	}
	return p.leave(k, r)
}

// leave gives up the wait. It may come too late: then here is the connection.
func (p *pool) leave(k poolKey, r *ride) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.over {
		return <-r.handed
	}
	r.left = true
	s := p.stations[k]
	if s == nil {
		return nil
	}
	for i, other := range s.line {
		if other == r {
			s.line = append(s.line[:i], s.line[i+1:]...)
			break
		}
	}
	return nil
}
