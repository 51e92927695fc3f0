package deliver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// busy is a connection that has carried one message and takes a tenth of a second for
// the second's envelope, in which a third gets in line behind it.
const busy = hi + envelopeOK + queued + `
	C: MAIL FROM:<bounce@acme.example>
	C: RCPT TO:<kari@dest.example>
	C: DATA
	wait 100ms
	S: 250 2.1.0 ok
	S: 250 2.1.5 ok
	S: 354 go on
	C.
`

// boards is the third's envelope behind the second's dot.
const boards = `
	C: MAIL FROM:<bounce@acme.example>
	C: RCPT TO:<kari@dest.example>
	C: DATA
`

// riding plays three messages against the scripts of one host, and returns what
// became of the second and of the third.
func riding(t *testing.T, scripts []string, cut bool, third func(*mail.Attempt)) (owner, rider mail.Outcome, network *smtptest.Network) {
	t.Helper()
	network = smtptest.NewNetwork(nil, only(scripts...))
	d := newDeliverer(t, testOptions(t, network, twoHosts(nil)))
	if o := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}); o.State != mail.StateAccepted {
		t.Fatalf("the first: %+v", o)
	}
	second := make(chan mail.Outcome)
	go func() { second <- d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}) }()
	time.Sleep(50 * time.Millisecond)
	a := &mail.Attempt{Message: testMessage(), Number: 1}
	if third != nil {
		third(a)
	}
	done := make(chan mail.Outcome)
	go func() { done <- d.Attempt(t.Context(), a) }()
	for range 2 {
		select {
		case owner = <-second:
		case rider = <-done:
		}
	}
	for k, s := range d.pool.stations {
		if s.seats != 0 || len(s.line) != 0 {
			t.Errorf("at %v: %d seats, %d in line", k, s.seats, len(s.line))
		}
	}
	d.Close()
	network.Close()
	if err := network.Wait(); err != nil && !cut {
		t.Error(err)
	}
	return owner, rider, network
}

// The next envelope behind the dot, and all that may become of the two.
func TestRide(t *testing.T) {
	t.Parallel()
	const accepted, delayed, refused = mail.StateAccepted, mail.StateDelayed, mail.StateRefused
	for _, row := range []struct {
		name         string
		then         string // after the second's dot
		fresh        bool   // the third goes over a connection of its own
		owner, rider mail.State
		ambig        bool // the second
		third        func(*mail.Attempt)
		dots         int // in all
	}{
		{name: "one round trip", then: boards + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nC.\n" + queued + bye, owner: accepted, rider: accepted, dots: 3},
		{name: "550 to the dot", then: boards + "S: 550 5.7.1 spam\nS: 250 ok\nS: 250 ok\nS: 354 go\nC.\n" + queued + bye, owner: refused, rider: accepted, dots: 3},
		{name: "A40 451 to the dot", then: boards + "S: 451 4.3.0 later\nS: 250 ok\nS: 250 ok\nS: 354 go\nC.\n" + queued + bye, owner: delayed, rider: accepted, dots: 3},
		{name: "A40 421 to the dot", then: boards + "S: 421 4.3.2 going down\nclose", fresh: true, owner: delayed, rider: accepted, dots: 3},
		{name: "A35 closed after the dot", then: boards + "close", fresh: true, owner: delayed, ambig: true, rider: accepted, dots: 3},
		{name: "A38 250 and closed", then: boards + "S: 250 ok\nclose", fresh: true, owner: accepted, rider: accepted, dots: 3},
		{name: "A39 250 without its end", then: boards + "S= \"250 2.0.0 que\"\nclose", fresh: true, owner: delayed, ambig: true, rider: accepted, dots: 3},
		{name: "A42 a 250 too many, late", then: boards + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nhang", fresh: true, owner: accepted, rider: accepted, dots: 3},
		{name: "A30 one reply is missing", then: boards + "S: 250 ok\nS: 250 ok\nS: 354 go\nhang", fresh: true, owner: accepted, rider: accepted, dots: 3},
		{name: "A30 the 354 first", then: boards + "S: 354 go\nS: 250 ok\nS: 250 ok\nS: 250 ok\nhang", fresh: true, owner: delayed, ambig: true, rider: accepted, dots: 3},
		{name: "A09 a reply too many behind the 354", then: boards + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nS: 250 ok\nhang", fresh: true, owner: accepted, rider: accepted, dots: 3},
		{name: "A27 the rider is refused and 354 comes", then: boards + "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no such user\nS: 354 go\nC: .\nS: 554 no\n" + bye, owner: accepted, rider: refused, dots: 3},
		{name: "the rider is refused", then: boards + "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no such user\nS: 554 no\n" + bye, owner: accepted, rider: refused, dots: 2},
		{name: "A23 421 to the rider", then: boards + "S: 250 ok\nS: 421 4.7.0 enough\nclose", fresh: true, owner: accepted, rider: accepted, dots: 3},
		{name: "A47 the refused one is not forgotten", then: boards + "S: 554 no\nS: 503 nested MAIL\nS: 503 no\nS: 503 no\n" + bye, fresh: true, owner: refused, rider: accepted, dots: 3},
		{name: "A31 what follows a dot is lost", then: boards + "S: 250 ok\nhang", fresh: true, owner: accepted, rider: accepted, dots: 3},
		{name: "A37 the dot takes long", then: boards + "wait 5m\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nhang", fresh: true, owner: accepted, rider: accepted, dots: 3},
		{name: "expired before it is taken along", then: queued + bye, owner: accepted, rider: mail.StateExpired, dots: 2, third: proceeds(1, mail.ErrExpired)},
		{name: "superseded before it is taken along", then: queued + bye, owner: accepted, rider: mail.StateSuperseded, dots: 2, third: proceeds(1, mail.ErrSuperseded)},
		{name: "superseded before its body", then: boards + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nhang", owner: accepted, rider: mail.StateSuperseded, dots: 2, third: proceeds(2, mail.ErrSuperseded)},
		{name: "cancelled before its body", then: boards + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nhang", owner: accepted, rider: mail.StateCancelled, dots: 2, third: proceeds(2, mail.ErrCancelled)},
		{name: "expired before its dot", then: boards + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nhang", owner: accepted, rider: mail.StateExpired, dots: 2, third: proceeds(3, mail.ErrExpired)},
		{name: "superseded before its dot finishes", then: boards + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nC.\n" + queued + bye, owner: accepted, rider: accepted, dots: 3, third: proceeds(3, mail.ErrSuperseded)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				scripts := []string{busy + row.then}
				if row.fresh && row.name == "A31 what follows a dot is lost" {
					scripts = append(scripts, hi+mailCmd+"nothing 1s\n"+ok+rcptCmd+"nothing 1s\n"+ok+dataCmd+goOn+"C.\n"+queued+bye)
				} else if row.fresh {
					scripts = append(scripts, accepting)
				}
				began := time.Now()
				owner, rider, network := riding(t, scripts, false, row.third)
				if owner.State != row.owner || owner.PossibleDuplicate != row.ambig {
					t.Errorf("the second: %+v", owner)
				}
				if rider.State != row.rider || rider.PossibleDuplicate {
					t.Errorf("the third: %+v", rider)
				}
				if rider.State == accepted && rider.Evidence.Reused == row.fresh {
					t.Errorf("the third, on a fresh connection %v: %+v", row.fresh, rider.Evidence)
				}
				if rider.Evidence.Took > time.Minute {
					t.Errorf("the third waited %v", rider.Evidence.Took)
				}
				dots := 0
				for _, line := range network.Lines() {
					if line == "." {
						dots++
					}
				}
				if dots != row.dots {
					t.Errorf("%d dots were sent, want %d: %q", dots, row.dots, network.Lines())
				}
				if took := time.Since(began); took > 6*time.Minute {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// proceeds makes a Proceed that says yes n times, and then err.
func proceeds(n int, err error) func(*mail.Attempt) {
	return func(a *mail.Attempt) { after(n, err)(nil, nil, a) }
}

// Whoever stands in line and is not taken along gets the connection when it is free,
// or dials when it breaks.
func TestInLine(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, then string
		fresh      bool
	}{
		{"the owner is refused", "S: 250 ok\nS: 550 5.1.1 no\nS: 554 no\nC: RSET\nS: 250 ok\n" + envelopeOK + queued + bye, false},
		{"the connection ends", "S: 250 ok\nS: 550 5.1.1 no\nclose", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				scripts := []string{hi + envelopeOK + queued + commands + "wait 100ms\n" + row.then}
				if row.fresh {
					scripts = append(scripts, accepting)
				}
				owner, rider, _ := riding(t, scripts, false, nil)
				if owner.State != mail.StateRefused || rider.State != mail.StateAccepted || rider.Evidence.Reused == row.fresh {
					t.Errorf("the second: %+v\nthe third: %+v", owner, rider)
				}
			})
		})
	}
}

// The end of the owner's context after its dot is the rider's misfortune, and its own
// that of nobody else.
func TestRideContexts(t *testing.T) {
	t.Parallel()
	t.Run("the owner's", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			network := smtptest.NewNetwork(nil, only(busy+boards+"hang", accepting))
			d := newDeliverer(t, testOptions(t, network, twoHosts(nil)))
			d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			second := make(chan mail.Outcome)
			go func() { second <- d.Attempt(ctx, &mail.Attempt{Message: testMessage(), Number: 1}) }()
			time.Sleep(50 * time.Millisecond)
			rider := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
			if owner := <-second; !owner.PossibleDuplicate || rider.State != mail.StateAccepted || rider.Evidence.Reused {
				t.Errorf("the owner: %+v\nthe rider: %+v", owner, rider)
			}
			d.Close()
			network.Close()
		})
	})
	t.Run("the rider's", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			network := smtptest.NewNetwork(nil, only(busy+boards+"wait 300ms\nS: 250 ok\nhang"))
			d := newDeliverer(t, testOptions(t, network, twoHosts(nil)))
			d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
			second := make(chan mail.Outcome)
			go func() { second <- d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}) }()
			time.Sleep(50 * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			rider := d.Attempt(ctx, &mail.Attempt{Message: testMessage(), Number: 1})
			if owner := <-second; owner.State != mail.StateAccepted || rider.State != "" || rider.PossibleDuplicate {
				t.Errorf("the owner: %+v\nthe rider: %+v", owner, rider)
			}
			if d.pool.total != 0 {
				t.Error("a connection with an open envelope was kept")
			}
			d.Close()
			if err := network.Wait(); err != nil { // it was closed, and is nobody's
				t.Error(err)
			}
		})
	})
}

// Nobody stands in line behind a server that thinks long about its dots, nor behind
// one that takes a command at a time, nor for the last message that a connection may
// carry.
func TestNoSeat(t *testing.T) {
	t.Parallel()
	fast := conn{caps: capabilities{pipelining: true}, carried: 1, envelopeTook: 20 * time.Millisecond, dotTook: 20 * time.Millisecond, born: time.Now()}
	for name, change := range map[string]func(*conn){
		"no pipelining":       func(c *conn) { c.caps.pipelining = false },
		"the first message":   func(c *conn) { c.carried = 0 },
		"slow at the dot":     func(c *conn) { c.dotTook = 200 * time.Millisecond },
		"slow at all":         func(c *conn) { c.dotTook, c.envelopeTook = time.Second, time.Second },
		"the last message":    func(c *conn) { c.carried = 99 },
		"the plan's last one": func(c *conn) { c.messages = 2 },
		"old":                 func(c *conn) { c.born = time.Now().Add(-time.Hour) },
	} {
		p := &pool{limits: PoolLimits{}.withDefaults(), memory: &memory{}}
		c := fast
		if p.offer(poolKey{}, &c); !c.seat {
			t.Fatal("a fast connection offers no seat")
		}
		p.withdraw(poolKey{}, &c)
		change(&c)
		if p.offer(poolKey{}, &c); c.seat {
			t.Errorf("%s: it offers a seat", name)
		}
		if len(p.stations) != 0 {
			t.Errorf("%s: stations stay: %v", name, p.stations)
		}
	}
}
