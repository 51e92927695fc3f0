package deliver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// A kind's mail comes from its own address, under its own name, on its own connections.
func TestOrigins(t *testing.T) {
	t.Parallel()
	sink := newSink(t, smtptest.SinkOptions{NoTLS: true})
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Plan, o.Dial = Fixed("sink.test", sink.Addr(), TLSNone), nil
	auth := &Origin{Hello: "auth.acme.example", Sources: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}
	o.Origins = map[string]*Origin{"pin": auth, "reset": auth}
	d := newDeliverer(t, o)
	defer d.Close()
	for _, row := range []struct {
		kind, hello, from string
		reused            bool
	}{
		{"invite", "out.acme.example", "127.0.0.1:", false},
		{"pin", "auth.acme.example", "127.0.0.2:", false},
		{"reset", "auth.acme.example", "127.0.0.2:", true},
		{"invite", "out.acme.example", "127.0.0.1:", true},
	} {
		m := testMessage()
		m.Kind = row.kind
		got := d.Attempt(t.Context(), &mail.Attempt{Message: m, Number: 1})
		if got.State != mail.StateAccepted || got.Evidence.Reused != row.reused {
			t.Fatalf("%s: %+v", row.kind, got)
		}
		for arrived := range sink.Mails() {
			if arrived.Hello != row.hello || !strings.HasPrefix(arrived.Client, row.from) {
				t.Errorf("%s came from %s as %s", row.kind, arrived.Client, arrived.Hello)
			}
			break
		}
	}
}

// The name of an origin ends up in a command.
func TestOriginsAreChecked(t *testing.T) {
	t.Parallel()
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Origins = map[string]*Origin{"pin": {Hello: "a b"}}
	if _, err := New(o); err == nil {
		t.Error("an EHLO name of two words is taken")
	}
}
