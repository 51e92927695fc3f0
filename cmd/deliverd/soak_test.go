package main

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestSoak mixes all faults at random under mail for SOAK: a mail server that
// greylists, is busy, vanishes, stalls and loses its replies; a daemon that is killed,
// stopped and started again; a store that dies and takes every connection with it.
// After each, what was accepted before it is held against the laws, and what the daemon
// holds against its bounds. SOAK_SEED repeats the moves of a run that printed it.
func TestSoak(t *testing.T) {
	text := os.Getenv("SOAK")
	if text == "" {
		t.Skip("an hour of faults: make soak")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	seed := seedOf(t, "SOAK_SEED")
	t.Logf("SOAK_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := newFleet(t, 1, 1)
	d, store := f.nodes[0], f.stores[0]
	moves := []struct {
		name string
		do   func()
	}{
		{"deliverd is killed", func() { d.kill(); d.start(f) }},
		{"deliverd is restarted", func() { d.stop(); d.start(f) }},
		{"deliverd is stopped for a while", func() { d.pause(time.Duration(rnd.IntN(8000)) * time.Millisecond) }},
		{"the store is killed", func() { store.kill(); store.start(f); f.storesWell() }},
		{"connections to the mail server break", f.sink.CloseConns},
		{"the mail server is odd", func() {
			f.odd(oneOf(oddities, rnd.IntN(len(oddities))))
			time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			f.odd("accept")
			f.sink.CloseConns() // those that stall
		}},
	}
	l := f.load(100 * time.Millisecond)
	var checked, twice, doubts int
	check := func(ids []mail.ID) {
		two, may := f.settled(ids)
		checked, twice, doubts = checked+len(ids), twice+two, doubts+may
		u, err := d.use()
		if err != nil {
			t.Fatal(err)
		}
		if u.goroutines > soakGoroutines || u.descriptors > soakDescriptors || u.megabytes > soakMegabytes {
			t.Errorf("deliverd holds %+v", u)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	for began := time.Now(); time.Since(began) < length; {
		m := oneOf(moves, rnd.IntN(len(moves)))
		t.Logf("%v: %s", time.Since(began).Round(time.Second), m.name)
		m.do()
		time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
		check(l.take())
	}
	l.end()
	check(l.take())
	u, err := d.use()
	t.Logf("%d messages; %d came twice, %d may have; deliverd holds %+v, %v", checked, twice, doubts, u, err)
}

// Bounds of what a daemon holds with some forty messages a second: several times what
// it was seen to, as a leak shows within minutes.
const (
	soakGoroutines  = 1000
	soakDescriptors = 400
	soakMegabytes   = 600
)

// oddities are what befalls mail to flaky destinations for a moment.
var oddities = []string{
	"greylist 1", "refuse 421 4.7.0 Too many connections", "refuse 451 4.3.0 Later", "vanish at data", "stall at data", "stall at dot", "lose", "delay 1s at dot",
}

// odd changes how mail to flaky addresses is treated from now on.
func (f *fleet) odd(text string) {
	f.t.Helper()
	b, err := smtptest.ParseBehaviour(text)
	if err == nil {
		err = f.sink.Tell("flaky*@*", b)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}
