package deliver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck"
)

func TestConverse(t *testing.T) {
	cert, err := smtptest.SelfSigned(time.Date(2000, 6, 1, 0, 0, 0, 0, time.UTC), "mx1.dest.example")
	if err != nil {
		t.Fatal(err)
	}
	const (
		mailFrom = "\nC: MAIL FROM:<postmaster@bounce.acme.example>\n"
		rcpt     = "\nC: RCPT TO:<postmaster@dest.example>\n"
		upToRCPT = mailFrom + "S: 250 ok" + rcpt
	)
	tests := []struct {
		name, script string
		want         dnscheck.Conversation
		last         string // the last line that is shown
	}{
		{"takes our mail", hiPlain + upToRCPT + "S: 250 2.1.5 ok" + bye, dnscheck.Conversation{Reached: true}, "< 221 bye"},
		{"has no postmaster", hiPlain + upToRCPT + "S: 550 5.1.1 user unknown" + bye, dnscheck.Conversation{Reached: true}, "< 221 bye"},
		{"refuses by policy", hiPlain + upToRCPT + "S: 554 5.7.1 blocked using bl.example" + bye,
			dnscheck.Conversation{Reached: true, Refused: "554 5.7.1 blocked using bl.example"}, "< 221 bye"},
		{"greylists", hiPlain + upToRCPT + "S: 451 4.7.1 try again" + bye, dnscheck.Conversation{Reached: true}, "< 221 bye"},
		{"refuses the sender", hiPlain + mailFrom + "S: 550 5.7.1 no" + bye, dnscheck.Conversation{Reached: true, Refused: "550 5.7.1 no"}, "< 221 bye"},
		{"refuses to talk", "S: 554 go away" + bye, dnscheck.Conversation{Reached: true, Refused: "554 go away"}, "< 221 bye"},
		{"vanishes", hiPlain + mailFrom + "close", dnscheck.Conversation{Reached: true, Err: "the connection was closed"}, "* the connection was closed"},
		{"never greets", "wait 1h", dnscheck.Conversation{Err: "no answer in time"}, "* no answer in time"},
		{"is no mail server", "S: SSH-2.0-OpenSSH_9.9", dnscheck.Conversation{Err: "not SMTP: got: SSH-2.0-OpenSSH_9.9"}, "* not SMTP: got: SSH-2.0-OpenSSH_9.9"},
		{"hides behind controls", "S: 554 \x1b[2Jgo\x07" + bye, dnscheck.Conversation{Reached: true, Refused: `554 \x1b[2Jgo\x07`}, "< 221 bye"},
		{"encrypts", "S: 220 hi\nC: EHLO out.acme.example\nS: 250-mx\nS: 250 starttls\nC: STARTTLS\nS: 220 go\ntls\n" +
			"C: EHLO out.acme.example\nS: 250 mx" + upToRCPT + "S: 250 ok" + bye,
			dnscheck.Conversation{Reached: true, STARTTLS: true, TLS: "TLS 1.3, TLS_AES_128_GCM_SHA256, certificate self-signed"}, "< 221 bye"},
		{"refuses to encrypt", "S: 220 hi\nC: EHLO out.acme.example\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 554 not now" + upToRCPT + "S: 250 ok" + bye,
			dnscheck.Conversation{Reached: true, STARTTLS: true}, "< 221 bye"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := smtptest.NewNetwork(&cert, map[string][]string{mx1: {tt.script}})
				defer network.Close()
				c := &Caller{Hello: "out.acme.example", From: "postmaster@bounce.acme.example", Dial: network.Dial}
				got := c.Converse(t.Context(), "dest.example", dnscheck.Host{Name: "mx1.dest.example", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
				if len(got.Lines) == 0 || got.Lines[len(got.Lines)-1] != tt.last {
					t.Errorf("%s", strings.Join(got.Lines, "\n"))
				}
				if (len(got.Chain) == 1) != (tt.want.TLS != "") {
					t.Errorf("%d certificates", len(got.Chain))
				}
				tt.want.Host, tt.want.Address, got.Lines, got.Chain = "mx1.dest.example", "192.0.2.1", nil, nil
				if got.Host != tt.want.Host || got.Address != tt.want.Address || got.Reached != tt.want.Reached || got.STARTTLS != tt.want.STARTTLS ||
					got.TLS != tt.want.TLS || got.Refused != tt.want.Refused || got.Err != tt.want.Err {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
				network.Close()
				if slices.Contains(network.Lines(), "DATA") {
					t.Error("said DATA")
				}
			})
		})
	}
}

// A host whose first address is dead is talked to at the second.
func TestConverseTriesTheNextAddress(t *testing.T) {
	t.Parallel()
	network := smtptest.NewNetwork(nil, map[string][]string{mx2: {"S: 554 no" + bye}})
	defer network.Close()
	c := &Caller{Hello: "out.acme.example", Dial: network.Dial}
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	got := c.Converse(t.Context(), "dest.example", dnscheck.Host{Name: "mx.dest.example", Addrs: addrs})
	if !got.Reached || got.Address != "192.0.2.2" {
		t.Errorf("%+v", got)
	}
	dead := c.Converse(t.Context(), "dest.example", dnscheck.Host{Name: "mx.dest.example", Addrs: addrs[:1]})
	if dead.Reached || dead.Err == "" {
		t.Errorf("%+v", dead)
	}
}
