package deliver

import (
	"net/netip"
	"sync"
	"time"
)

// How long what was learned of an address counts.
const (
	deadFor       = 60 * time.Second // FAULTS A01: shorter than most retries, so that each asks anew
	slowFor       = 5 * time.Minute  // FAULTS A51, C12: the host's other address goes first
	brokenTLSFor  = time.Hour        // FAULTS B06
	sequentialFor = time.Hour        // FAULTS A31
	limitFor      = time.Hour
	maxRemembered = 4096
)

// memory is what was learned of addresses, for a while. It orders tries and
// chooses among ways that are all allowed; it never decides what becomes of a
// message.
type memory struct {
	mu    sync.Mutex
	hosts map[netip.Addr]learned
}

type learned struct {
	deadUntil  time.Time // it did not answer
	clearUntil time.Time // its TLS failed
	plainUntil time.Time // it offers PIPELINING and can't do it
	limit      int       // messages that it takes on one connection; 0: not known
	limitUntil time.Time
}

func (l learned) last() time.Time {
	t := l.deadUntil
	for _, u := range []time.Time{l.clearUntil, l.plainUntil, l.limitUntil} {
		if u.After(t) {
			t = u
		}
	}
	return t
}

func (m *memory) learn(a netip.Addr, change func(*learned, time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.hosts == nil {
		m.hosts = make(map[netip.Addr]learned)
	}
	if _, known := m.hosts[a]; !known && len(m.hosts) >= maxRemembered {
		m.forget(now)
	}
	l := m.hosts[a]
	change(&l, now)
	m.hosts[a] = l
}

// forget drops what is past, and if that is little, others as well: to know less only
// costs a try. A quarter at a time, so that a flood of addresses costs little.
func (m *memory) forget(now time.Time) {
	for a, l := range m.hosts {
		if l.last().Before(now) {
			delete(m.hosts, a)
		}
	}
	for a := range m.hosts {
		if len(m.hosts) < maxRemembered*3/4 {
			return
		}
		delete(m.hosts, a)
	}
}

func (m *memory) of(a netip.Addr) learned {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hosts[a]
}

func (m *memory) dead(a netip.Addr) {
	m.learn(a, func(l *learned, now time.Time) { l.deadUntil = now.Add(deadFor) })
}

// slow notes that the same host's other address, which was dialled later, connected
// earlier.
func (m *memory) slow(a netip.Addr) {
	m.learn(a, func(l *learned, now time.Time) { l.deadUntil = now.Add(slowFor) })
}

func (m *memory) alive(a netip.Addr) {
	if m.isDead(a) {
		m.learn(a, func(l *learned, _ time.Time) { l.deadUntil = time.Time{} })
	}
}

func (m *memory) isDead(a netip.Addr) bool { return time.Now().Before(m.of(a).deadUntil) }

func (m *memory) brokenTLS(a netip.Addr) {
	m.learn(a, func(l *learned, now time.Time) { l.clearUntil = now.Add(brokenTLSFor) })
}

func (m *memory) tlsIsBroken(a netip.Addr) bool { return time.Now().Before(m.of(a).clearUntil) }

func (m *memory) cannotPipeline(a netip.Addr) {
	m.learn(a, func(l *learned, now time.Time) { l.plainUntil = now.Add(sequentialFor) })
}

func (m *memory) pipelines(a netip.Addr) bool { return !time.Now().Before(m.of(a).plainUntil) }

// limited notes that a server ended a connection after n messages (FAULTS A46).
func (m *memory) limited(a netip.Addr, n int) {
	m.learn(a, func(l *learned, now time.Time) { l.limit, l.limitUntil = n, now.Add(limitFor) })
}

// limit returns how many messages a connection to a may carry, 0 if nothing was
// learned.
func (m *memory) limit(a netip.Addr) int {
	if l := m.of(a); time.Now().Before(l.limitUntil) {
		return l.limit
	}
	return 0
}

// inOrder puts the addresses that did not answer a moment ago last, and of them
// only one where there is no other: a message that can wait must not wait for ten
// connect timeouts, but one that can't is still tried.
func (m *memory) inOrder(ts []target) []target {
	var live, dead []target
	for _, t := range ts {
		if m.isDead(t.addr.Addr()) {
			dead = append(dead, t)
		} else {
			live = append(live, t)
		}
	}
	if len(live) == 0 && len(dead) > 1 {
		return dead[:1]
	}
	return append(live, dead...)
}
