package deliver

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// sequence sends one message after another to one host, with waits before each, and
// returns the outcomes and the lines that the host got.
func sequence(t *testing.T, scripts map[string][]string, change func(*Options, *Plan), waits ...time.Duration) (outcomes []mail.Outcome, lines []string) {
	t.Helper()
	network := smtptest.NewNetwork(nil, scripts)
	plan := twoHosts(scripts)
	o := testOptions(t, network, plan)
	if change != nil {
		change(&o, &plan)
	}
	d := newDeliverer(t, o)
	for _, w := range waits {
		time.Sleep(w)
		outcomes = append(outcomes, d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}))
	}
	d.Close()
	network.Close()
	if err := network.Wait(); err != nil {
		t.Error(err)
	}
	return outcomes, network.Lines()
}

func allAccepted(t *testing.T, outcomes []mail.Outcome, reused ...bool) {
	t.Helper()
	for i, o := range outcomes {
		if o.State != mail.StateAccepted {
			t.Errorf("message %d: %+v", i, o)
		}
		if o.Evidence.Reused != reused[i] {
			t.Errorf("message %d: reused is %v", i, o.Evidence.Reused)
		}
	}
}

func TestReuse(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		scripts []string
		change  func(*Options, *Plan)
		waits   []time.Duration
		reused  []bool
	}{
		{name: "messages that follow", scripts: []string{hi + envelopeOK + queued + envelopeOK + queued + envelopeOK + queued + bye},
			waits: []time.Duration{0, 0, 4 * time.Second}, reused: []bool{false, true, true}},
		{name: "not after the idle time", scripts: []string{accepting, accepting},
			waits: []time.Duration{0, 6 * time.Second}, reused: []bool{false, false}},
		{name: "not beyond the number of messages", scripts: []string{hi + envelopeOK + queued + envelopeOK + queued + bye, accepting},
			change: func(o *Options, _ *Plan) { o.Pool.Messages = 2 },
			waits:  []time.Duration{0, 0, 0}, reused: []bool{false, true, false}},
		{name: "not beyond the age", scripts: []string{hi + envelopeOK + queued + envelopeOK + queued + bye, accepting},
			change: func(o *Options, _ *Plan) { o.Pool.Age = 6 * time.Second },
			waits:  []time.Duration{0, 4 * time.Second, 3 * time.Second}, reused: []bool{false, true, false}},
		{name: "A42 not after a reply too many", scripts: []string{hi + envelopeOK + "S: 250 ok\nS: 250 ok\nhang", accepting},
			waits: []time.Duration{0, 0}, reused: []bool{false, false}},
		{name: "A45 closed while it waited", scripts: []string{hi + envelopeOK + queued + "close", accepting},
			waits: []time.Duration{0, time.Second}, reused: []bool{false, false}},
		{name: "A45 421 to the first MAIL", scripts: []string{hi + envelopeOK + queued + commands + "S: 421 4.4.2 idle too long\nclose", accepting},
			waits: []time.Duration{0, time.Second}, reused: []bool{false, false}},
		{name: "A45 out of step on a reused connection", scripts: []string{hi + envelopeOK + queued + commands + goOn + ok + ok + "hang", accepting},
			waits: []time.Duration{0, time.Second}, reused: []bool{false, false}},
		{name: "A46 a limit of messages is learned", scripts: []string{
			hi + envelopeOK + queued + envelopeOK + queued + commands + "S: 421 4.7.0 too many messages\nclose",
			hi + envelopeOK + queued + envelopeOK + queued + bye, accepting},
			waits: []time.Duration{0, 0, 0, 0, 0}, reused: []bool{false, true, false, true, false}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				outcomes, _ := sequence(t, only(row.scripts...), row.change, row.waits...)
				allAccepted(t, outcomes, row.reused...)
			})
		})
	}
}

// A refused recipient leaves a transaction open: RSET ends it before the next.
func TestResetBeforeTheNextMessage(t *testing.T) {
	t.Parallel()
	refusing := hi + commands + ok + "S: 550 5.1.1 no such user\nS: 554 5.5.1 no recipients\n" + "C: RSET\n"
	for _, row := range []struct {
		name    string
		scripts []string
		reused  bool
	}{
		{"RSET taken", []string{refusing + "S: 250 flushed\n" + envelopeOK + queued + bye}, true},
		{"A47 RSET refused", []string{refusing + "S: 500 what\nnothing 1s\nhang", accepting}, false},
		{"A47 RSET answered with 421", []string{refusing + "S: 421 bye\nclose", accepting}, false},
		{"A47 RSET never answered", []string{refusing + "hang", accepting}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				outcomes, _ := sequence(t, only(row.scripts...), nil, 0, 0)
				if outcomes[0].State != mail.StateRefused {
					t.Errorf("the first: %+v", outcomes[0])
				}
				allAccepted(t, outcomes[1:], row.reused)
			})
		})
	}
}

// A42: a connection on which more was said than asked for is not kept.
func TestFaultA42NotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := smtptest.NewNetwork(nil, only(hi+envelopeOK+"S: 250 ok\nS: 250 ok\nhang"))
		d := newDeliverer(t, testOptions(t, network, twoHosts(nil)))
		o := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
		if o.State != mail.StateAccepted || d.pool.total != 0 {
			t.Errorf("%d connections wait, %+v", d.pool.total, o)
		}
		if err := network.Wait(); err != nil { // before d is closed
			t.Error(err)
		}
	})
}

// After the lone dot of A27 the transaction is over, and the next begins at once.
func TestFaultA27NextMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outcomes, lines := sequence(t, only(hi+commands+ok+"S: 550 5.1.1 no\n"+goOn+"C: .\nS: 554 no\n"+envelopeOK+queued+bye), nil, 0, 0)
		allAccepted(t, outcomes[1:], true)
		if strings.Contains(strings.Join(lines, "\n"), "RSET") {
			t.Error("said RSET without need")
		}
	})
}

// A31: a server that offers PIPELINING and loses what was pipelined is asked step by
// step for an hour.
func TestFaultA31IsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outcomes, _ := sequence(t, only(
			hi+mailCmd+ok+"hang",
			hi+mailCmd+"nothing 1s\n"+ok+rcptCmd+"nothing 1s\n"+ok+dataCmd+goOn+"C.\n"+queued+bye,
			accepting,
		), nil, 0, 0, 61*time.Minute)
		if outcomes[0].State != mail.StateDelayed {
			t.Errorf("the first: %+v", outcomes[0])
		}
		allAccepted(t, outcomes[1:], false, false)
	})
}

// A01, A51: an address that did not answer is asked last for a minute.
func TestFaultA51TheHealthyOneFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		outcomes, _ := sequence(t, map[string][]string{mx1: {"hang", accepting}, mx2: {accepting, accepting}}, nil,
			0, 10*time.Second, 61*time.Second)
		allAccepted(t, outcomes, false, false, false)
		for i, host := range []string{"mx2.dest.example", "mx2.dest.example", "mx1.dest.example"} {
			if outcomes[i].Evidence.Host != host {
				t.Errorf("message %d went to %s, want %s", i, outcomes[i].Evidence.Host, host)
			}
		}
		if took := time.Since(began); took > 7*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

// Where all addresses are dead, one is tried all the same.
func TestFaultA01AllDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outcomes, _ := sequence(t, map[string][]string{mx1: {"drop", "drop"}, mx2: {"drop"}}, nil, 0, time.Second)
		for i, tries := range []int{1, 0} {
			if o := outcomes[i]; o.State != mail.StateDelayed || len(o.Evidence.Tries) != tries {
				t.Errorf("attempt %d: %+v", i, o)
			}
		}
	})
}

// What failed on a connection that waited is not asked again on a fresh one.
func TestReusedConnectionDecides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outcomes, _ := sequence(t, map[string][]string{
			mx1: {hi + envelopeOK + queued + commands + "S: 450 4.3.2 not now\nS: 503 no\nS: 503 no\n" + bye},
			mx2: {accepting},
		}, nil, 0, 0)
		allAccepted(t, outcomes, false, false)
		if o := outcomes[1]; o.Evidence.Host != "mx2.dest.example" || len(o.Evidence.Tries) != 1 {
			t.Errorf("got %+v", o)
		}
	})
}

// A45 in a kernel: what ended or was said while a connection waited is noticed when it
// is taken, before anything is written.
func TestTakeLooksFirst(t *testing.T) {
	t.Parallel()
	for _, script := range []string{hi + envelopeOK + queued + "close", hi + envelopeOK + queued + "wait 10ms\nS: 421 idle\nhang"} {
		network := smtptest.NewNetwork(nil, only(script)).Loopback()
		plan := twoHosts(nil)
		d := newDeliverer(t, testOptions(t, network, plan))
		if o := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}); o.State != mail.StateAccepted {
			t.Fatalf("got %+v", o)
		}
		plan.from = d.usual
		key := keyOf(&plan, plan.targets()[0])
		for {
			d.pool.mu.Lock()
			waits := d.pool.at(key).idle
			d.pool.mu.Unlock()
			if len(waits) == 0 || !quiet(waits[0].raw) {
				break
			}
			runtime.Gosched()
		}
		if c := d.pool.take(t.Context(), key); c != nil {
			t.Error("a connection at its end was given out")
		}
		d.Close()
		network.Close()
	}
}

// The pool keeps no more than it may, and none across policies.
func TestPoolBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := hi + envelopeOK + "wait 1s\n" + queued + bye // so that none is free for another
		network := smtptest.NewNetwork(nil, only(slow, slow, slow))
		plan := twoHosts(nil)
		o := testOptions(t, network, plan)
		o.Pool.PerHost, o.Pool.Idle = 2, time.Hour
		d := newDeliverer(t, o)
		done := make(chan mail.Outcome)
		for range 3 {
			go func() { done <- d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}) }()
		}
		for range 3 {
			if o := <-done; o.State != mail.StateAccepted {
				t.Errorf("got %+v", o)
			}
		}
		synctest.Wait()
		if d.pool.total != 2 {
			t.Errorf("%d connections wait, want 2", d.pool.total)
		}
		encrypted := plan
		encrypted.TLS, encrypted.from = TLSEncrypted, d.usual
		other := keyOf(&encrypted, encrypted.targets()[0])
		if c := d.pool.take(t.Context(), other); c != nil {
			t.Error("a connection in clear was given to mail that must be encrypted")
		}
		d.Close()
		if err := network.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// What is remembered is bounded.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m := &memory{}
	a := twoHosts(nil).Hosts[0].Addrs[0]
	for range 3 * maxRemembered {
		m.dead(a)
		a = a.Next()
	}
	if len(m.hosts) > maxRemembered {
		t.Errorf("%d addresses are remembered", len(m.hosts))
	}
}
