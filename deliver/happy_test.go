package deliver

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

const (
	v6 = "[2001:db8::1]:25"
	v4 = "192.0.2.1:25"
)

// C11, C12, A02, A51: of a host's two families the one that works is used, at once,
// and for minutes first.
func TestHappyOrder(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		v6, v4  []string
		waits   []time.Duration
		dialled []string
		ip      []string // of each message
		within  time.Duration
	}{
		{name: "IPv6 works", v6: []string{accepting}, waits: []time.Duration{0}, dialled: []string{v6}, ip: []string{"2001:db8::1"}},
		{name: "C12 IPv6 is silent", v6: []string{"drop"}, v4: []string{accepting}, waits: []time.Duration{0},
			dialled: []string{v6, v4}, ip: []string{"192.0.2.1"}, within: headStart},
		{name: "A51 and the next messages don't try it", v6: []string{"drop", "drop"}, v4: []string{accepting, accepting, accepting}, waits: []time.Duration{0, time.Minute, slowFor},
			dialled: []string{v6, v4, v4, v6, v4}, ip: []string{"192.0.2.1", "192.0.2.1", "192.0.2.1"}, within: 6*time.Minute + 2*headStart},
		{name: "A02 IPv6 refuses", v6: []string{"refuse"}, v4: []string{accepting}, waits: []time.Duration{0}, dialled: []string{v6, v4}, ip: []string{"192.0.2.1"}},
		{name: "A01 both are silent", v6: []string{"drop"}, v4: []string{"drop"}, waits: []time.Duration{0}, dialled: []string{v6, v4}, ip: []string{""}, within: 30*time.Second + headStart},
		{name: "A01 IPv6 is silent, IPv4 refuses", v6: []string{"drop"}, v4: []string{"refuse"}, waits: []time.Duration{0}, dialled: []string{v6, v4}, ip: []string{""}, within: 30 * time.Second},
		{name: "A03 IPv6 connects and never greets", v6: []string{"hang"}, v4: []string{accepting}, waits: []time.Duration{0},
			dialled: []string{v6, v4}, ip: []string{"192.0.2.1"}, within: 5 * time.Minute},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				network := smtptest.NewNetwork(nil, map[string][]string{v6: row.v6, v4: row.v4})
				plan := Plan{Hosts: []Host{{Name: "mx.dest.example", Addrs: addrs("2001:db8::1", "192.0.2.1")}}}
				o := testOptions(t, network, plan)
				o.Pool.Messages = 1
				d := newDeliverer(t, o)
				began := time.Now()
				for i, wait := range row.waits {
					time.Sleep(wait)
					o := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
					want := mail.StateAccepted
					if row.ip[i] == "" {
						want = mail.StateDelayed
						if len(o.Evidence.Tries) != 1 {
							t.Errorf("message %d: tries %+v", i, o.Evidence.Tries)
						}
					}
					if o.State != want || want == mail.StateAccepted && o.Evidence.IP != row.ip[i] {
						t.Errorf("message %d: %+v", i, o)
					}
				}
				if took := time.Since(began); took > row.within {
					t.Errorf("took %v, want at most %v", took, row.within)
				}
				d.Close()
				if err := network.Wait(); err != nil {
					t.Error(err)
				}
				if got := network.Dialled(); !slices.Equal(got, row.dialled) {
					t.Errorf("dialled %v, want %v", got, row.dialled)
				}
			})
		})
	}
}

// C11: where there is no way for IPv6 at all, the next host's IPv4 is tried at once.
func TestFaultC11NoRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := smtptest.NewNetwork(nil, map[string][]string{v4: {accepting}})
		plan := Plan{Hosts: []Host{
			{Name: "mx1.dest.example", Pref: 10, Addrs: addrs("2001:db8::1")}, {Name: "mx2.dest.example", Pref: 20, Addrs: addrs("192.0.2.1")},
		}}
		o := testOptions(t, network, plan)
		o.Dial = func(ctx context.Context, family, addr string) (net.Conn, error) {
			if family == "tcp6" {
				return nil, &net.OpError{Op: "dial", Net: "tcp6", Err: syscall.ENETUNREACH}
			}
			return network.Dial(ctx, family, addr)
		}
		d := newDeliverer(t, o)
		began := time.Now()
		got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
		if got.State != mail.StateAccepted || time.Since(began) > 0 || len(got.Evidence.Tries) != 1 {
			t.Errorf("after %v: %+v", time.Since(began), got)
		}
		d.Close()
		network.Close()
	})
}

// The one that loses is closed, however late it connects, and nobody waits for it
// longer than its end takes.
func TestHappyLoserIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := smtptest.NewNetwork(nil, map[string][]string{v4: {accepting}})
		plan := Plan{Hosts: []Host{{Name: "mx.dest.example", Addrs: addrs("2001:db8::1", "192.0.2.1")}}}
		o := testOptions(t, network, plan)
		late, other := net.Pipe()
		o.Dial = func(ctx context.Context, family, addr string) (net.Conn, error) {
			if family == "tcp6" {
				<-ctx.Done() // and connected all the same
				return late, nil
			}
			return network.Dial(ctx, family, addr)
		}
		d := newDeliverer(t, o)
		if got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1}); got.State != mail.StateAccepted {
			t.Errorf("got %+v", got)
		}
		if _, err := other.Read(make([]byte, 1)); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("the loser: %v", err)
		}
		d.Close()
		network.Close()
	})
}
