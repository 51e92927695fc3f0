package deliver

import (
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// The rows of part A of the fault suite up to MAIL: connection, greeting and EHLO.
func TestFaultsBeforeMail(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{
		{name: "A01 no answer to the SYN: the next host", scripts: then("drop"),
			state: mail.StateAccepted, host: "mx2.dest.example", within: 30 * time.Second,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if len(o.Evidence.Tries) != 1 || o.Evidence.Tries[0].Error != errTimeout.Error() || o.Evidence.Tries[0].Took != 30*time.Second {
					t.Errorf("tries: %+v", o.Evidence.Tries)
				}
			}},
		{name: "A01 no answer anywhere", scripts: only("drop"),
			state: mail.StateDelayed, cause: mail.CauseTimeout, stage: mail.StageConnect, within: 30 * time.Second},
		{name: "A02 refused: the next host at once", scripts: then("refuse"), state: mail.StateAccepted, host: "mx2.dest.example", within: time.Second},
		{name: "A02 refused everywhere", scripts: only("refuse"),
			state: mail.StateDelayed, cause: mail.CauseNetwork, stage: mail.StageConnect, text: "connection refused"},
		{name: "A03 no greeting", scripts: then("hang"), state: mail.StateAccepted, host: "mx2.dest.example", within: 5 * time.Minute},
		{name: "A03 no greeting anywhere", scripts: only("hang"),
			state: mail.StateDelayed, cause: mail.CauseTimeout, stage: mail.StageGreeting, within: 5 * time.Minute},
		{name: "A04 a byte every 5 s", scripts: only(strings.Repeat("S= \"2\"\nwait 5s\n", 100)), cut: true,
			state: mail.StateDelayed, cause: mail.CauseTimeout, stage: mail.StageGreeting, within: 5 * time.Minute},
		{name: "A04 a part of a line is no reply", scripts: only("S= \"220 mx.dest.example\"\nclose"),
			state: mail.StateDelayed, cause: mail.CauseNetwork, stage: mail.StageGreeting, text: "in the middle of a reply"},
		{name: "A05 SSH", scripts: then("S: SSH-2.0-OpenSSH_9.6\nhang"), state: mail.StateAccepted, host: "mx2.dest.example", within: time.Second},
		{name: "A05 HTTP", scripts: only("S: HTTP/1.1 400 Bad Request\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageGreeting, text: "HTTP/1.1", within: time.Second},
		{name: "A05 a TLS alert", scripts: only(`S= "\x15\x03\x01\x00\x02\x02\x46\n"` + "\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageGreeting, within: time.Second},
		{name: "A05 NULs", scripts: only(`S= "\x00\x00\x00\x00\n"` + "\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageGreeting, within: time.Second},
		{name: "A05 closed at once", scripts: only("close"),
			state: mail.StateDelayed, cause: mail.CauseNetwork, stage: mail.StageGreeting, text: "closed"},
		{name: "A06 554 at first: the next host", scripts: then("S: 554 no\n" + bye), state: mail.StateAccepted, host: "mx2.dest.example"},
		{name: "A06 554 from every host, once: later", scripts: only("S: 554 5.3.2 we take no mail\n" + bye),
			state: mail.StateDelayed, cause: "*", stage: mail.StageGreeting, text: "554 5.3.2"},
		{name: "A06 554 from every best host, again: refused", number: 2, scripts: only("S: 554 5.3.2 we take no mail\n" + bye),
			state: mail.StateRefused, cause: "*", stage: mail.StageGreeting, text: "554 5.3.2"},
		{name: "554 from our relay: later, whenever", number: 5, scripts: only("S: 554 5.7.1 I don't know you\n" + bye),
			change: func(_ *Options, p *Plan, _ *mail.Attempt) { p.Relay = true },
			state:  mail.StateDelayed, cause: "*", stage: mail.StageGreeting},
		{name: "A06 554 from a backup, and a best host without addresses today", number: 2, scripts: only("S: 554 no\n" + bye),
			change: func(_ *Options, p *Plan, _ *mail.Attempt) {
				p.Hosts = append([]Host{{Name: "mx0.dest.example", Pref: 5}}, p.Hosts...)
			},
			state: mail.StateDelayed, cause: "*", text: "554"},
		{name: "A06 554 from the best host and no answer from another: later", number: 2,
			scripts: map[string][]string{mx1: {"S: 554 no\n" + bye}, mx2: {"refuse"}},
			change:  func(_ *Options, p *Plan, _ *mail.Attempt) { p.Hosts[1].Pref = p.Hosts[0].Pref },
			state:   mail.StateDelayed, cause: "*", text: "554"},
		{name: "A07 421", scripts: then("S: 421 4.3.2 busy\nclose"), state: mail.StateAccepted, host: "mx2.dest.example"},
		{name: "A07 450 everywhere", scripts: only("S: 450 4.3.2 busy\n" + bye), state: mail.StateDelayed, cause: "*", stage: mail.StageGreeting, text: "450"},
		{name: "A08 a greeting of several lines", scripts: only(strings.Replace(accepting, "S: 220 ", "S: 220-a\nS: 220-b\nS: 220-c\nS: 220 ", 1)),
			state: mail.StateAccepted},
		{name: "A09 talks before its turn", scripts: then("S: 220 mx\nS: 250 already\nhang"), state: mail.StateAccepted, host: "mx2.dest.example"},
		{name: "A09 talks before its turn, everywhere", scripts: only("S: 220 mx\nS: 250 already\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageGreeting, text: "before its turn"},
		{name: "A10 an EHLO reply without end", scripts: only("S: 220 mx\nC: EHLO\n" + `S* 100000 "250-x\r\n"`),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageHello, text: "without end"},
		{name: "A11 a line of 10 MB", scripts: only("S: 220 mx\nC: EHLO\n" + `S* 10000 "` + strings.Repeat("x", 1000) + `"`),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageHello, text: "2 KiB"},
		{name: "A12 500: HELO", scripts: only("S: 220 mx\nC: EHLO\nS: 500 what?\nC: HELO out.acme.example\nS: 250 mx\n" + oneByOne + queued + bye),
			state: mail.StateAccepted},
		{name: "A12 502: HELO", scripts: only("S: 220 mx\nC: EHLO\nS: 502 no\nC: HELO out.acme.example\nS: 250 mx\n" + oneByOne + queued + bye),
			state: mail.StateAccepted},
		{name: "A12 501 is about us", number: 2, scripts: only("S: 220 mx\nC: EHLO\nS: 501 5.5.4 bad name\n" + bye),
			state: mail.StateRefused, cause: "*", stage: mail.StageHello, text: "501 5.5.4"},
		{name: "A12 550 is about us", scripts: only("S: 220 mx\nC: EHLO\nS: 550 5.7.1 bad name\n" + bye),
			state: mail.StateDelayed, cause: "*", stage: mail.StageHello},
		{name: "A12 550 inside TLS", scripts: only(offers + "C: STARTTLS\nS: 220 go\ntls\nC: EHLO\nS: 550 5.7.1 bad name\n" + bye),
			state: mail.StateDelayed, cause: "*", stage: mail.StageHello,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if o.Evidence.TLS == nil || o.Evidence.TLS.Version != "TLS 1.3" {
					t.Errorf("TLS: %+v", o.Evidence.TLS)
				}
			}},
		{name: "A16 LF alone", scripts: only("S= \"220 mx\\n\"\nC: EHLO\nS= \"250-mx\\n250 PIPELINING\\n\"\n" + envelopeOK + "S= \"250 ok\\n\"\n" + bye),
			state: mail.StateAccepted},
		{name: "A17 two codes in a reply", scripts: only("S: 220 mx\nC: EHLO\nS: 250-a\nS: 550 b\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageHello, text: "two codes", within: time.Second},
		{name: "A48 another name, and 8BITMIME taken back", scripts: only("S: 220 one.example\nC: EHLO\nS: 250-two.example\nS: 250 PIPELINING\n" + envelopeOK + queued + bye),
			state: mail.StateAccepted},
		{name: "A55 the greeting is our own name", scripts: only("S: 220 OUT.acme.example ESMTP\n" + bye),
			state: mail.StateRefused, cause: mail.CauseLoop, text: "loop"},
		{name: "A55 EHLO's reply is our own name", scripts: only("S: 220 mx\nC: EHLO\nS: 250 out.acme.example\n" + bye),
			state: mail.StateRefused, cause: mail.CauseLoop, text: "loop"},
		{name: "A55 a backup is ourselves: the best host decides", number: 2,
			scripts: map[string][]string{mx1: {"refuse"}, mx2: {"S: 220 out.acme.example\n" + bye}},
			state:   mail.StateDelayed, cause: mail.CauseLoop},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// oneByOne is an envelope without PIPELINING.
const oneByOne = `
	C: MAIL FROM:<bounce@acme.example>
	S: 250 2.1.0 ok
	C: RCPT TO:<kari@dest.example>
	S: 250 2.1.5 ok
	C: DATA
	S: 354 go on
	C.
`

// A14: whatever SIZE says, nothing overflows, and only a true limit counts.
func TestFaultA14Size(t *testing.T) {
	t.Parallel()
	for size, fits := range map[string]bool{
		"SIZE": true, "SIZE 0": true, "SIZE -1": true, "SIZE 99999999999999999999": true, "SIZE x": true, "size 1000000": true,
		"SIZE 100": false,
	} {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			hello := "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-" + size + "\nS: 250 PIPELINING\n"
			if fits {
				f := fault{scripts: only(hello + envelopeOK + queued + bye), state: mail.StateAccepted}
				f.run(t)
				return
			}
			f := fault{scripts: map[string][]string{mx1: {hello + bye}, mx2: {hello + bye}},
				state: mail.StateRefused, cause: mail.CauseTooLarge, stage: mail.StageMail}
			f.run(t)
			f = fault{name: "one host takes it", scripts: then(hello + bye), state: mail.StateAccepted, host: "mx2.dest.example"}
			f.run(t)
		})
	}
}

// The size is told where the server wants to know it (RFC 1870 6).
func TestSizeIsTold(t *testing.T) {
	t.Parallel()
	f := fault{scripts: only("S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-SIZE 1000000\nS: 250 PIPELINING\n" + envelopeOK + queued + bye), state: mail.StateAccepted,
		check: func(t *testing.T, n *smtptest.Network, o mail.Outcome) {
			for _, line := range n.Lines() {
				if strings.HasPrefix(line, "MAIL") && !strings.Contains(line, " SIZE=") {
					t.Errorf("got %q", line)
				}
			}
		}}
	f.run(t)
}
