package queue

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// sim plays attempts against servers that are functions, in simulated time, through the
// real scheduler: what a test of A52 to A54 over hours and 50,000 messages takes.
type sim struct {
	s       *sched
	now     time.Duration
	retry   time.Duration
	ends    []simEnd
	servers map[string]*simServer
	domain  func(n uint64) string
}

// simServer is a destination. try says how an attempt that begins now will end, and
// after how long.
type simServer struct {
	try      func(now time.Duration, open int) (mail.Contact, time.Duration)
	open     int // connections
	most     int // of them at once since the last report
	accepted int
	refused  int // with a 421 or not at all
	firstOK  time.Duration
}

type simEnd struct {
	at      time.Duration
	t       taken
	server  *simServer
	contact mail.Contact
}

// run plays until a time, and calls report every so often.
func (m *sim) run(until, every time.Duration, report func()) {
	next := m.now + every
	for m.now < until {
		for {
			t, _, ok := m.s.take(epoch.Add(m.now))
			if !ok {
				break
			}
			m.begin(t)
		}
		_, wait, _ := m.s.take(epoch.Add(m.now))
		at := min(m.now+max(wait, time.Millisecond), until, next)
		if len(m.ends) > 0 {
			at = min(at, m.ends[0].at)
		}
		m.now = max(at, m.now)
		for len(m.ends) > 0 && m.ends[0].at <= m.now {
			m.end()
		}
		if m.now >= next {
			report()
			next += every
		}
	}
}

func (m *sim) begin(t taken) {
	if t.ending {
		m.s.done(t)
		return
	}
	server := m.servers[m.domain(binary.BigEndian.Uint64(t.id[8:]))]
	server.open++
	server.most = max(server.most, server.open)
	contact, took := server.try(m.now, server.open)
	e := simEnd{m.now + took, t, server, contact}
	i, _ := slices.BinarySearchFunc(m.ends, e, func(a, b simEnd) int { return cmp.Compare(a.at, b.at) })
	m.ends = slices.Insert(m.ends, i, e)
}

func (m *sim) end() {
	e := m.ends[0]
	m.ends = m.ends[1:]
	e.server.open--
	m.s.feedback(e.t, &mail.Outcome{Contact: e.contact}, epoch.Add(m.now))
	if e.contact == mail.ContactOK {
		if e.server.accepted == 0 {
			e.server.firstOK = m.now
		}
		e.server.accepted++
		m.s.done(e.t)
		return
	}
	e.server.refused++
	m.s.again(e.t, epoch.Add(m.now+m.retry))
}

// TestA52Simulation: a server lets 5 connections in and answers 421 to more. The table
// is what the window does.
func TestA52Simulation(t *testing.T) {
	t.Parallel()
	five := &simServer{try: func(_ time.Duration, open int) (mail.Contact, time.Duration) {
		if open > 5 {
			return mail.ContactBusy, 20 * time.Millisecond
		}
		return mail.ContactOK, 300 * time.Millisecond
	}}
	m := &sim{s: testSched(Options{Concurrency: 200, PerDestination: 25}), retry: time.Minute,
		servers: map[string]*simServer{"a": five}, domain: func(uint64) string { return "a" }}
	for n := range uint64(40_000) { // all 25 at once, as after a start with what was learned elsewhere
		m.s.add(n, "3", "a", 0, 24*time.Hour)
	}
	track := m.s.tracks.of(provisional("a"))
	t.Log("minute  window  accepted  421s")
	accepted, refused := 0, 0
	m.run(30*time.Minute, time.Minute, func() {
		got, no := five.accepted-accepted, five.refused-refused
		t.Logf("%6.0f  %6d  %8d  %4d", m.now.Minutes(), track.Size, got, no)
		// 4 of 5 slots are an invite's: 4 every 300 ms are 800 a minute.
		if got < 700 {
			t.Errorf("in minute %.0f only %d were accepted", m.now.Minutes(), got)
		}
		if m.now > time.Minute && no > 3 {
			t.Errorf("in minute %.0f it was asked too much %d times", m.now.Minutes(), no)
		}
		accepted, refused = five.accepted, five.refused
	})
	if track.Size > 7 {
		t.Errorf("the window is %d in the end", track.Size)
	}
}

// TestA53Simulation: a destination is down for 6 hours while 50,000 messages come to
// wait for it. It is looked at now and then, and found again; and then it is ramped up
// to from 5 connections.
func TestA53Simulation(t *testing.T) {
	t.Parallel()
	const back = 6 * time.Hour
	server := &simServer{try: func(now time.Duration, _ int) (mail.Contact, time.Duration) {
		if now < back {
			return mail.ContactDown, 30 * time.Second
		}
		return mail.ContactOK, 300 * time.Millisecond
	}}
	m := &sim{s: testSched(Options{Concurrency: 200, PerDestination: 20, Limits: func(string) Limits { return Limits{} }}), retry: time.Minute,
		servers: map[string]*simServer{"a": server}, domain: func(uint64) string { return "a" }}
	for n := range uint64(50_000) {
		m.s.addFor(fmt.Sprint(n%7), n, "3", "a", time.Duration(n)*400*time.Millisecond, 7*24*time.Hour)
	}
	m.run(back, time.Hour, func() {
		t.Logf("hour %.0f: %d attempts so far, at most %d at once", m.now.Hours(), server.refused, server.most)
	})
	if server.refused > 100 || server.most > initialWindow {
		t.Errorf("%d attempts in 6 hours, %d at once", server.refused, server.most)
	}
	track := m.s.tracks.of(provisional("a"))
	server.most = 0
	m.run(back+lastLook+time.Second, time.Second, func() {
		since := m.now - server.firstOK
		if server.accepted == 0 || since > 10*time.Second {
			return
		}
		t.Logf("%4.1f s after the first accept: window %d, at most %d connections, %d accepted", since.Seconds(), track.Size, server.most, server.accepted)
		if since < 2*time.Second && server.most > 2*initialWindow {
			t.Errorf("%d connections at once %v after it came back", server.most, since)
		}
	})
	if server.firstOK > back+lastLook+time.Second {
		t.Errorf("it was found again after %v", server.firstOK-back)
	}
	m.run(back+time.Hour, time.Hour, func() {})
	if server.accepted != 50_000 {
		t.Errorf("an hour later %d of 50,000 are accepted", server.accepted)
	}
}

// TestA54Simulation: twenty providers, each of whose connections hangs for 5 minutes,
// and one that is well. The hanging ones must not get all the slots.
func TestA54Simulation(t *testing.T) {
	t.Parallel()
	well := &simServer{try: func(time.Duration, int) (mail.Contact, time.Duration) { return mail.ContactOK, 300 * time.Millisecond }}
	m := &sim{s: testSched(Options{Concurrency: 200, PerDestination: 20, Limits: func(string) Limits { return Limits{} }}), retry: time.Minute,
		servers: map[string]*simServer{"well": well}}
	const holes = 200 // each has 5 slots at first: 1,000, were there as many
	m.domain = func(n uint64) string {
		if n >= 1_000_000 {
			return "well"
		}
		return fmt.Sprint(n % holes)
	}
	for i := range holes {
		m.servers[fmt.Sprint(i)] = &simServer{try: func(time.Duration, int) (mail.Contact, time.Duration) { return mail.ContactDown, 5 * time.Minute }}
	}
	for n := range uint64(50_000) { // of the same tenant, and more urgent
		m.s.addFor("a", n, "2", m.domain(n), 0, time.Hour)
	}
	m.s.proven(provisional("well"))
	for n := range uint64(2_000) { // 10 a second
		m.s.addFor("a", 1_000_000+n, "3", "well", time.Duration(n)*100*time.Millisecond, 2*time.Hour)
	}
	worst := 0
	m.run(210*time.Second, time.Second, func() { worst = max(worst, m.s.sending) })
	if well.accepted != 2_000 {
		t.Errorf("%d of 2,000 were accepted where all is well", well.accepted)
	}
	t.Logf("at most %d of 200 slots were in use", worst)
	if worst > 120 {
		t.Errorf("%d slots were in use", worst)
	}
}
