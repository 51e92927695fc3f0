package deliver

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// overLoopback is fault.run over real sockets and in real time, for what only a
// kernel does: resets, full buffers, ends that are noticed late.
func overLoopback(t *testing.T, f *fault) {
	t.Helper()
	cert, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "mx1.dest.example")
	if err != nil {
		t.Fatal(err)
	}
	network := smtptest.NewNetwork(&cert, f.scripts).Loopback()
	plan := twoHosts(f.scripts)
	a := &mail.Attempt{Message: testMessage(), Number: max(1, f.number)}
	o := testOptions(t, network, plan)
	if f.change != nil {
		f.change(&o, &plan, a)
	}
	d := newDeliverer(t, o)
	began := time.Now()
	got := d.Attempt(t.Context(), a)
	f.judge(t, got, time.Since(began))
	d.Close()
	network.Close()
	if err := network.Wait(); err != nil && !f.cut {
		t.Errorf("the other side: %v", err)
	}
	if f.check != nil {
		f.check(t, network, got)
	}
}

// large is a message that no pair of socket buffers holds.
func large(a *mail.Attempt) {
	a.Signed = bytes.Repeat([]byte(strings.Repeat("x", 62)+"\r\n"), 16<<20/64)
}

func TestFaultsOverLoopback(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{
		{name: "A29 MAIL refused, and a reset while we pipeline", scripts: only(hi + mailCmd + "S: 550 5.7.1 you are blocklisted\nrst"), cut: true,
			state: mail.StateRefused, cause: "*", stage: mail.StageMail, text: "blocklisted"},
		{name: "A33 zero window", scripts: only(hi + commands + ok + ok + goOn + "deaf"),
			change: func(o *Options, _ *Plan, a *mail.Attempt) {
				large(a)
				o.Timeouts.Write, o.Timeouts.Quit = 200*time.Millisecond, 200*time.Millisecond
			},
			state: mail.StateDelayed, cause: mail.CauseTimeout, stage: mail.StageBody},
		{name: "A34 550 and closed in the middle of DATA", scripts: only(hi + commands + ok + ok + goOn + "read 100000\nS: 554 5.7.1 spam, I say\nwait 100ms\nclose"),
			change: func(_ *Options, _ *Plan, a *mail.Attempt) { large(a) },
			state:  mail.StateRefused, cause: "*", stage: mail.StageBody, text: "554 5.7.1 spam, I say"},
		{name: "A34 451 and a reset in the middle of DATA", scripts: only(hi + commands + ok + ok + goOn + "read 100000\nS: 451 4.3.0 full\nwait 100ms\nrst"),
			change: func(_ *Options, _ *Plan, a *mail.Attempt) { large(a) },
			state:  mail.StateDelayed, cause: "*", stage: mail.StageBody},
		{name: "A34 554 and a reset while our write stands still", scripts: only(hi + commands + ok + ok + goOn + "wait 300ms\nS: 554 5.7.1 spam, I say\nwait 50ms\nrst"),
			change: func(_ *Options, _ *Plan, a *mail.Attempt) { large(a) },
			state:  mail.StateRefused, cause: "*", stage: mail.StageBody, text: "554 5.7.1 spam, I say"},
		{name: "A34 closed in the middle of DATA without a word", scripts: only(hi + commands + ok + ok + goOn + "read 100000\nclose"),
			change: func(_ *Options, _ *Plan, a *mail.Attempt) { large(a) },
			state:  mail.StateDelayed, cause: mail.CauseNetwork, stage: mail.StageBody},
		{name: "A36 a reset after the dot", scripts: only(hi + envelopeOK + "rst"),
			state: mail.StateDelayed, cause: mail.CauseNetwork, ambig: true, stage: mail.StageDot},
		{name: "A38 250, then a reset", scripts: only(hi + envelopeOK + queued + "wait 50ms\nrst"), state: mail.StateAccepted},
		{name: "A30 a reply too many, over TLS, in the record of the 354", scripts: only(offers + tlsHello + commands + ok + ok + goOn + "S: 250 2.0.0 Ok: queued as FALSE\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageBody},
		{name: "a message of many blocks", scripts: only(hi + envelopeOK + queued + bye),
			change: func(_ *Options, _ *Plan, a *mail.Attempt) { large(a) },
			state:  mail.StateAccepted},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			overLoopback(t, &f)
		})
	}
}

// A02: a real port on which nobody listens.
func TestFaultA02Kernel(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Plan, o.Dial = Fixed("nobody.test", addr, TLSNone), nil
	got := newDeliverer(t, o).Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
	if got.State != mail.StateDelayed || got.Cause != mail.CauseNetwork || got.Evidence.Error != "connection refused" || got.Evidence.IP != "127.0.0.1" {
		t.Errorf("got %+v", got)
	}
}

// A45 in a kernel: the end of a connection that waits is seen before anything is
// written on it, and a reply too many as well.
func TestQuiet(t *testing.T) {
	t.Parallel()
	pair := func() (client, server net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if server, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); server.Close() })
		return client, server
	}
	becomes := func(c net.Conn, what bool) {
		t.Helper()
		for quiet(c) != what {
			runtime.Gosched() // the kernel hands it over in its own time
		}
	}
	a, b := pair()
	if !quiet(a) {
		t.Error("a fresh connection is not quiet")
	}
	b.Write([]byte("2"))
	becomes(a, false)
	a.Read(make([]byte, 1))
	becomes(a, true)
	b.Close()
	becomes(a, false)
	c, _ := pair()
	c.Close()
	if quiet(c) {
		t.Error("a closed connection is quiet")
	}
}

// Sources bind the family that is dialled.
func TestSources(t *testing.T) {
	t.Parallel()
	sink := newSink(t, smtptest.SinkOptions{})
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Plan, o.Dial = Fixed("sink.test", sink.Addr(), TLSNone), nil
	o.Sources = []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.77")}
	d := newDeliverer(t, o)
	defer d.Close()
	if got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}); got.State != mail.StateAccepted {
		t.Fatalf("got %+v", got)
	}
	for m := range sink.Mails() {
		if !strings.HasPrefix(m.Client, "127.0.0.77:") {
			t.Errorf("sent from %s", m.Client)
		}
	}
}

// An address that isn't ours to send from is a fault of our own.
func TestSourceThatIsNotOurs(t *testing.T) {
	t.Parallel()
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Plan, o.Dial = Fixed("sink.test", testPort, TLSNone), nil
	o.Sources = []netip.Addr{netip.MustParseAddr("192.0.2.99")}
	got := newDeliverer(t, o).Attempt(context.Background(), &mail.Attempt{Message: testMessage(), Number: 1})
	if got.State != "" || got.Local == "" {
		t.Errorf("got %+v", got)
	}
}
