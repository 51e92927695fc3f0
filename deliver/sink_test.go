package deliver

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

func newSink(t testing.TB, o smtptest.SinkOptions) *smtptest.Sink {
	t.Helper()
	s, err := smtptest.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// intoSink is a Deliverer that signs, and sends everything into the sink.
func intoSink(t testing.TB, s *smtptest.Sink, policy TLSPolicy) (*Deliverer, []*Key) {
	t.Helper()
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Plan, o.Dial, o.RootCAs = Fixed("sink.test", s.Addr(), policy), nil, s.Roots()
	var keys []*Key
	o.Sign, keys = testSigner(t, "acme.example")
	o.RequireDKIM = true
	d := newDeliverer(t, o)
	t.Cleanup(d.Close)
	return d, keys
}

// The whole attempt: what arrives is what was signed, over a TLS that was verified.
func TestAttemptIntoSink(t *testing.T) {
	t.Parallel()
	sink := newSink(t, smtptest.SinkOptions{})
	d, keys := intoSink(t, sink, TLSVerified)
	for i := range 3 {
		m := testMessage()
		o := d.Attempt(t.Context(), &mail.Attempt{Message: m, Number: 1})
		if o.State != mail.StateAccepted || o.Evidence.QueueID == "" || !o.Evidence.TLS.Verified || o.Evidence.Reused != (i > 0) {
			t.Fatalf("got %+v", o)
		}
		for got := range sink.Mails() {
			if !bytes.Equal(got.Raw, o.Signed) {
				t.Errorf("arrived:\n%q\nsigned:\n%q", got.Raw, o.Signed)
			}
			verifyAll(t, got.Raw, keys)
			if got.From != "bounce@acme.example" || got.To != string(m.To) || got.Hello != "out.acme.example" || got.TLS != "TLS 1.3" || !strings.Contains(got.MessageID, string(m.ID)) {
				t.Errorf("got %+v", got)
			}
			break
		}
	}
	if st := sink.Stats(); st.Connections != 1 || st.TLS != 1 || st.Accepted != 3 {
		t.Errorf("the sink counts %+v", st)
	}
}

// The sink's behaviours, seen from the client.
func TestBehaviours(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		to, what string
		want     []mail.State
		ambig    bool
	}{
		{"accept@dest.example", "accept", []mail.State{mail.StateAccepted}, false},
		{"grey@dest.example", "greylist 2", []mail.State{mail.StateDelayed, mail.StateDelayed, mail.StateAccepted}, false},
		{"gone@dest.example", "refuse 550 5.1.1 no such user", []mail.State{mail.StateRefused}, false},
		{"spam@dest.example", "refuse 554 5.7.1 spam at dot", []mail.State{mail.StateRefused}, false},
		{"busy@dest.example", "refuse 421 4.7.0 busy", []mail.State{mail.StateDelayed}, false},
		{"stall@dest.example", "stall at data", []mail.State{mail.StateDelayed}, false},
		{"stalldot@dest.example", "stall at dot", []mail.State{mail.StateDelayed}, true},
		{"vanish@dest.example", "vanish at data", []mail.State{mail.StateDelayed}, false},
		{"lose@dest.example", "lose", []mail.State{mail.StateDelayed}, true},
		{"slow@dest.example", "delay 20ms at dot", []mail.State{mail.StateAccepted}, false},
	} {
		t.Run(row.to, func(t *testing.T) {
			t.Parallel()
			sink := newSink(t, smtptest.SinkOptions{})
			b, err := smtptest.ParseBehaviour(row.what)
			if err != nil {
				t.Fatal(err)
			}
			if err := sink.Tell(row.to, b); err != nil {
				t.Fatal(err)
			}
			o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
			o.Plan, o.Dial = Fixed("sink.test", sink.Addr(), TLSOpportunistic), nil
			o.Timeouts = Timeouts{Data: 300 * time.Millisecond, Dot: 300 * time.Millisecond}
			d := newDeliverer(t, o)
			defer d.Close()
			m := testMessage()
			m.To = mail.Address(row.to)
			for i, want := range row.want {
				got := d.Attempt(t.Context(), &mail.Attempt{Message: m, Number: i + 1})
				if got.State != want || got.PossibleDuplicate != row.ambig {
					t.Errorf("attempt %d: %+v", i+1, got)
				}
			}
		})
	}
}

// Many at once, over connections that break all the time: every message that was
// handed over is in the sink, none that was not without its flag, and no message
// twice without one.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	sink := newSink(t, smtptest.SinkOptions{Ledger: true, Keep: -1})
	d, _ := intoSink(t, sink, TLSOpportunistic)
	var mu sync.Mutex
	handedOver, flagged := map[string]int{}, map[string]int{}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(3 * time.Millisecond):
				sink.CloseConns()
			}
		}
	})
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 25 {
				m := testMessage()
				id := "<" + string(m.ID) + "@acme.example>"
				var signed []byte
				for n := 1; n < 50; n++ {
					o := d.Attempt(t.Context(), &mail.Attempt{Message: m, Number: n, Signed: signed})
					signed = o.Signed
					mu.Lock()
					if o.PossibleDuplicate {
						flagged[id]++
					}
					if o.State == mail.StateAccepted {
						handedOver[id]++
					}
					mu.Unlock()
					if o.State == mail.StateAccepted {
						break
					}
				}
			}
		})
	}
	workers.Wait()
	close(done)
	wg.Wait()
	ledger := sink.Ledger()
	for id, n := range ledger {
		if n > handedOver[id]+flagged[id] {
			t.Errorf("%s arrived %d times, handed over %d, flagged %d", id, n, handedOver[id], flagged[id])
		}
	}
	for id := range handedOver {
		if ledger[id] == 0 {
			t.Errorf("%s was handed over and never arrived", id)
		}
	}
	if len(handedOver) != 200 {
		t.Errorf("%d of 200 were handed over", len(handedOver))
	}
}

// No secret that a server echoes stays in the outcome or the log, however it is cut.
func TestSecretsAreScrubbed(t *testing.T) {
	t.Parallel()
	const link = "https://login.acme.example/i/tok3nThatIsLong"
	for name, says := range map[string]string{
		"whole":               "S: 554 5.7.1 rejected because of " + link + " in it\n",
		"the token alone":     "S: 554 5.7.1 rejected tok3nThatIsLong\n",
		"cut by the line":     "S: 554-5.7.1 rejected https://login.acme.example/i/tok3nTh\nS: 554 5.7.1 atIsLong\n",
		"cut by the text end": "S: 554-" + strings.Repeat("x", maxReplyText-len(" rejected tok3nThatI")) + "\nS: 554 rejected tok3nThatIsLong\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fault{scripts: map[string][]string{mx1: {"S: 450 busy " + link + "\n" + bye}, mx2: {hi + envelopeOK + says + bye}},
				change: func(_ *Options, _ *Plan, a *mail.Attempt) {
					a.Message.Data = map[string]any{"link": link}
					a.Message.Secrets = []string{"link"}
				},
				state: mail.StateRefused, cause: "*", stage: mail.StageDot,
				check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
					s, err := json.Marshal(o.Evidence)
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(string(s), "tok3n") || strings.Contains(string(s), "atIsLong") {
						t.Errorf("the link is in %s", s)
					}
				}}
			f.run(t)
		})
	}
}

func BenchmarkAttempt(b *testing.B) {
	for name, policy := range map[string]TLSPolicy{"clear": TLSNone, "tls": TLSOpportunistic} {
		b.Run(name, func(b *testing.B) {
			sink := newSink(b, smtptest.SinkOptions{Keep: -1})
			o := testOptions(b, smtptest.NewNetwork(nil, nil), Plan{})
			o.Plan, o.Dial, o.Log = Fixed("sink.test", sink.Addr(), policy), nil, nil
			o.Pool.Messages = 1 << 30
			d := newDeliverer(b, o)
			defer d.Close()
			a := &mail.Attempt{Message: testMessage(), Number: 1}
			a.Signed = []byte(shapes["every field we sign"] + strings.Repeat("A line of a mail that has the usual length of lines in mails.\r\n", 120))
			b.ReportAllocs()
			for b.Loop() {
				if got := d.Attempt(b.Context(), a); got.State != mail.StateAccepted {
					b.Fatalf("got %+v", got)
				}
			}
		})
	}
}
