package deliver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// The commands of a pipelined envelope, and of one that goes command by command.
const (
	commands = `
		C: MAIL FROM:<bounce@acme.example>
		C: RCPT TO:<kari@dest.example>
		C: DATA
	`
	mailCmd = "C: MAIL FROM:<bounce@acme.example>\n"
	rcptCmd = "C: RCPT TO:<kari@dest.example>\n"
	dataCmd = "C: DATA\n"
	ok      = "S: 250 ok\n"
	goOn    = "S: 354 go on\n"
)

// The rows of part A from MAIL to DATA.
func TestFaultsOfTheEnvelope(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{
		{name: "A15 bare codes", scripts: only("S: 220\nC: EHLO\nS: 250\n" + mailCmd + "S: 250\n" + rcptCmd + "S: 250\n" + dataCmd + "S: 354\nC.\nS: 250\n" + bye),
			state: mail.StateAccepted, text: "250"},
		{name: "A18 any 2xx is a yes", scripts: only(hi + commands + "S: 200 ok\nS: 251 will forward\n" + goOn + "C.\nS: 251 ok\n" + bye), state: mail.StateAccepted},
		{name: "A18 252 to RCPT", scripts: only(hi + commands + ok + "S: 252 perhaps\n" + goOn + "C.\nS: 200 ok\n" + bye), state: mail.StateAccepted},
		{name: "A19 354 to MAIL", scripts: only(hiPlain + mailCmd + goOn + "hang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageMail},
		{name: "A19 354 to RCPT", scripts: only(hiPlain + mailCmd + ok + rcptCmd + goOn + "hang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageRcpt},
		{name: "A19 250 to DATA: nothing of the body is sent", scripts: only(hiPlain + mailCmd + ok + rcptCmd + ok + dataCmd + ok + "hang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageData, text: "250", check: nothingOfTheBody},
		{name: "A19 334 to DATA", scripts: only(hiPlain + mailCmd + ok + rcptCmd + ok + dataCmd + "S: 334 what\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageData},
		{name: "A20 ESC, Latin-1, NUL and bidi in a reply", scripts: only(hiPlain + mailCmd + `S= "550 5.7.1 caf\xe9 \x1b[31mred \x00 \u202eevil\r\n"` + "\n" + bye),
			state: mail.StateRefused, cause: "*", stage: mail.StageMail, text: `550 5.7.1 caf\xe9 \x1b[31mred \x00 \xe2\x80\xaeevil`},
		{name: "A21 the basic code decides", scripts: only(hiPlain + mailCmd + ok + rcptCmd + "S: 450 5.7.1 hm\n" + bye),
			state: mail.StateDelayed, cause: "*", text: "450 5.7.1 hm",
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if o.Evidence.Reply.Enhanced != (mail.EnhancedCode{}) {
					t.Errorf("kept the enhanced code %v of another class", o.Evidence.Reply.Enhanced)
				}
			}},
		{name: "A22 #5.1.1", scripts: only(hiPlain + mailCmd + ok + rcptCmd + "S: 550 #5.1.1 no such user\n" + bye),
			state: mail.StateRefused, cause: mail.CauseBadMailbox, suppress: true, stage: mail.StageRcpt, text: "550 5.1.1 no such user"},
		{name: "A22 5.1.1 alone", scripts: only(hiPlain + mailCmd + ok + rcptCmd + "S: 550 5.1.1\n" + bye),
			state: mail.StateRefused, cause: mail.CauseBadMailbox, suppress: true, text: "550 5.1.1"},
		{name: "A23 421 to MAIL and closed: the next host", scripts: then(hi + commands + "S: 421 4.3.2 shutting down\nclose"),
			state: mail.StateAccepted, host: "mx2.dest.example"},
		{name: "A23 421 to MAIL everywhere", scripts: only(hi + commands + "S: 421 4.3.2 shutting down\nclose"),
			state: mail.StateDelayed, cause: "*", stage: mail.StageMail, text: "421"},
		{name: "A23 421 to RCPT and no close: the next host at once", scripts: then(hi + commands + ok + "S: 421 4.3.2 shutting down\nhang"),
			state: mail.StateAccepted, host: "mx2.dest.example", within: time.Second},
		{name: "450 to MAIL is the host's: the next", scripts: then(hiPlain + mailCmd + "S: 450 4.7.1 not from you now\n" + bye),
			state: mail.StateAccepted, host: "mx2.dest.example"},
		{name: "452 4.3.1 to RCPT is the host's: the next", scripts: then(hiPlain + mailCmd + ok + rcptCmd + "S: 452 4.3.1 disk full\n" + bye),
			state: mail.StateAccepted, host: "mx2.dest.example"},
		{name: "421 to DATA is the host's: the next", scripts: then(hiPlain + mailCmd + ok + rcptCmd + ok + dataCmd + "S: 421 4.3.2 shutting down\nclose"),
			state: mail.StateAccepted, host: "mx2.dest.example"},
		{name: "a 5.1.1 before MAIL never suppresses", number: 2, scripts: only("S: 220 mx\nC: EHLO\nS: 550 5.1.1 no such user\n" + bye),
			state: mail.StateRefused, cause: "*"},
		{name: "a full mailbox by 5xx, once", scripts: only(hiPlain + mailCmd + ok + rcptCmd + "S: 550 5.2.2 mailbox full\n" + bye),
			state: mail.StateDelayed, cause: mail.CauseMailboxFull},
		{name: "a full mailbox by 5xx, again", number: 2, scripts: only(hiPlain + mailCmd + ok + rcptCmd + "S: 550 5.2.2 mailbox full\n" + bye),
			state: mail.StateRefused, cause: mail.CauseMailboxFull},
		{name: "greylisted by 5xx", number: 3, scripts: only(hiPlain + mailCmd + ok + rcptCmd + "S: 550 5.7.1 Greylisted, please try again later\n" + bye),
			state: mail.StateDelayed, cause: mail.CauseGreylisted},
		{name: "the provider is known by its host", scripts: only(accepting), state: mail.StateAccepted,
			change: func(_ *Options, p *Plan, _ *mail.Attempt) { p.Hosts[0].Name = "aspmx.l.google.com" },
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if !strings.HasPrefix(o.Evidence.Provider, "g") {
					t.Errorf("the provider is %q", o.Evidence.Provider)
				}
			}},
		{name: "A24 450 greylisted", scripts: only(hi + commands + ok + "S: 450 4.2.0 Greylisted, please try again in 300 seconds\nS: 554 5.5.1 no valid recipients\n" + bye0),
			state: mail.StateDelayed, cause: mail.CauseGreylisted, stage: mail.StageRcpt,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if o.RetryAfter != 300*time.Second {
					t.Errorf("retry after %v, want what the server asked for", o.RetryAfter)
				}
			}},
		{name: "A24 451 4.7.1", scripts: map[string][]string{mx1: {hi + commands + ok + "S: 451 4.7.1 please try again later\nS: 554 no\n" + bye0}, mx2: nil},
			state: mail.StateDelayed, cause: "*", host: "mx1.dest.example"},
		{name: "A25 452 4.5.3 to the first RCPT", scripts: only(hi + commands + ok + "S: 452 4.5.3 too many recipients\nS: 554 no\n" + bye0),
			state: mail.StateDelayed, cause: "*", stage: mail.StageRcpt},
		{name: "A26 552 to RCPT, once", scripts: only(hi + commands + ok + "S: 552 too many\nS: 554 no\n" + bye0),
			state: mail.StateDelayed, cause: "*", stage: mail.StageRcpt, text: "552"},
		{name: "A26 552 to RCPT, again", number: 2, scripts: only(hi + commands + ok + "S: 552 too many\nS: 554 no\n" + bye0),
			state: mail.StateRefused, cause: "*", stage: mail.StageRcpt, text: "552"},
		{name: "A27 RCPT refused and DATA taken: a lone dot", scripts: only(hi + commands + ok + "S: 550 5.1.1 no such user\n" + goOn + "C: .\nS: 554 5.5.1 no recipients\n" + bye),
			state: mail.StateRefused, cause: mail.CauseBadMailbox, suppress: true, stage: mail.StageRcpt},
		{name: "A27 MAIL refused, RCPT and DATA taken: nobody gets an empty mail", scripts: only(hi + commands + "S: 550 5.7.1 go away\n" + ok + goOn + "hang"),
			state: mail.StateRefused, cause: "*", stage: mail.StageMail, check: nothingOfTheBody},
		{name: "A28 RCPT refused, then closed", scripts: only(hi + commands + ok + "S: 550 5.1.1 no such user\nclose"),
			state: mail.StateRefused, cause: mail.CauseBadMailbox, suppress: true, stage: mail.StageRcpt, text: "550 5.1.1"},
		{name: "A28 RCPT refused for now, then closed", scripts: only(hi + commands + ok + "S: 450 4.2.1 not now\nclose"),
			state: mail.StateDelayed, cause: "*", stage: mail.StageRcpt, text: "450 4.2.1"},
		{name: "A29 MAIL refused, and closed while we pipeline", scripts: only(hi + mailCmd + "S: 550 5.7.1 you are blocklisted\nclose"), cut: true,
			state: mail.StateRefused, cause: "*", stage: mail.StageMail, text: "blocklisted"},
		{name: "A30 a reply is missing", scripts: only(hi + commands + ok + goOn + "hang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageRcpt},
		{name: "A30 a reply too many: never credited to the dot", scripts: only(hi + commands + ok + ok + goOn + "S: 250 2.0.0 Ok: queued as FALSE\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageBody, text: "before the message was sent", check: nothingOfTheBody},
		{name: "A30 replies out of order", scripts: only(hi + commands + goOn + ok + ok + "hang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageMail},
		{name: "A31 PIPELINING, and deaf after MAIL", scripts: only(hi + mailCmd + ok + "deaf"),
			state: mail.StateDelayed, cause: mail.CauseTimeout, stage: mail.StageRcpt, within: 5 * time.Minute},
		{name: "A32 no answer to DATA", scripts: only(hiPlain + mailCmd + ok + rcptCmd + ok + dataCmd + "hang"),
			state: mail.StateDelayed, cause: mail.CauseTimeout, stage: mail.StageData, within: 2 * time.Minute},
		{name: "A49 an address that needs SMTPUTF8", unsigned: true, change: func(_ *Options, _ *Plan, a *mail.Attempt) { a.Message.To = "jürgen@dest.example" },
			state: mail.StateRefused, cause: mail.CauseProtocol, text: "5.6.7"},
		{name: "A49 an IDN domain is sent as its A-label",
			scripts: only(hiPlain + mailCmd + ok + "C: RCPT TO:<kari@xn--bcher-kva.example>\n" + ok + dataCmd + goOn + "C.\n" + queued + bye),
			change:  func(_ *Options, _ *Plan, a *mail.Attempt) { a.Message.To = "kari@xn--bcher-kva.example" },
			state:   mail.StateAccepted},
		{name: "D02 an address that ends its command", unsigned: true, change: func(_ *Options, _ *Plan, a *mail.Attempt) { a.Message.To = "a@b> NOTIFY=NEVER <x" },
			state: mail.StateRefused, cause: mail.CauseProtocol, text: "5.1.3"},
		{name: "A50 our own name, before TLS and after", scripts: only("S: 220 mx\nC: EHLO out.acme.example\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\ntls\nC: EHLO out.acme.example\nS: 250 mx\n" + oneByOne + queued + bye),
			state: mail.StateAccepted},
		{name: "A13 starttls in lower case", scripts: only("S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-starttls\nS: 250 pipelining\nC: STARTTLS\nS: 220 go\ntls\nC: EHLO out.acme.example\nS: 250 mx\n" + oneByOne + queued + bye),
			state: mail.StateAccepted,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if o.Evidence.TLS == nil || o.Evidence.TLS.Version != "TLS 1.3" {
					t.Errorf("TLS: %+v", o.Evidence.TLS)
				}
			}},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// bye0 ends a connection on which a transaction may still be open.
const bye0 = bye

func nothingOfTheBody(t *testing.T, n *smtptest.Network, _ mail.Outcome) {
	if lines := n.Lines(); !strings.EqualFold(lines[len(lines)-1], "DATA") {
		t.Errorf("after DATA came %q", lines[len(lines)-1])
	}
}

// The rows of part A from the body to QUIT.
func TestFaultsOfTheDot(t *testing.T) {
	t.Parallel()
	upToDot := hi + envelopeOK
	for _, f := range []fault{
		{name: "A33 nothing read after 354", scripts: only(hi + commands + ok + ok + goOn + "deaf"),
			change: func(_ *Options, _ *Plan, a *mail.Attempt) { a.Signed = []byte(strings.Repeat("x: y\r\n", 200_000)) },
			state:  mail.StateDelayed, cause: mail.CauseTimeout, stage: mail.StageBody, within: 3*time.Minute + 5*time.Second},
		{name: "A35 closed after the dot", scripts: only(upToDot + "close"),
			state: mail.StateDelayed, cause: mail.CauseNetwork, ambig: true, stage: mail.StageDot, text: "closed"},
		{name: "A35 closed after the dot: no other host is asked", scripts: map[string][]string{mx1: {upToDot + "close"}, mx2: nil},
			state: mail.StateDelayed, cause: mail.CauseNetwork, ambig: true, host: "mx1.dest.example"},
		{name: "A37 never an answer to the dot", scripts: only(upToDot + "hang"),
			state: mail.StateDelayed, cause: mail.CauseTimeout, ambig: true, stage: mail.StageDot, within: 10 * time.Minute,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if o.Evidence.Took < 10*time.Minute {
					t.Errorf("waited %v, and RFC 5321 4.5.3.2.6 asks for 10 minutes", o.Evidence.Took)
				}
			}},
		{name: "A37 an answer after nine minutes", scripts: only(upToDot + "wait 9m\n" + queued + bye), state: mail.StateAccepted, within: 9 * time.Minute},
		{name: "A39 a 250 without its line's end", scripts: only(upToDot + "S= \"250 2.0.0 que\"\nclose"),
			state: mail.StateDelayed, cause: mail.CauseNetwork, ambig: true, stage: mail.StageDot},
		{name: "A39 a 250- without its last line", scripts: only(upToDot + "S: 250-2.0.0 queued\nclose"),
			state: mail.StateDelayed, cause: mail.CauseNetwork, ambig: true, stage: mail.StageDot},
		{name: "A17 two codes after the dot", scripts: only(upToDot + "S: 250-a\nS: 550 b\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, ambig: true, stage: mail.StageDot},
		{name: "A19 354 after the dot", scripts: only(upToDot + goOn + "hang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, ambig: true, stage: mail.StageDot},
		{name: "A40 451 after the dot", scripts: only(upToDot + "S: 451 4.3.0 not now\n" + bye),
			state: mail.StateDelayed, cause: "*", stage: mail.StageDot, text: "451 4.3.0"},
		{name: "A40 421 after the dot", scripts: map[string][]string{mx1: {upToDot + "S: 421 4.3.0 not now\nclose"}, mx2: nil},
			state: mail.StateDelayed, cause: "*", stage: mail.StageDot, text: "421 4.3.0"},
		{name: "A41 554 5.7.1 after the dot", scripts: only(upToDot + "S: 554 5.7.1 Message rejected due to content restrictions\n" + bye),
			state: mail.StateRefused, cause: "*", stage: mail.StageDot, text: "554 5.7.1"},
		{name: "A42 ten more 250 after the dot's", scripts: only(upToDot + queued + strings.Repeat("S: 250 ok\n", 10) + "hang"), cut: true,
			state: mail.StateAccepted, text: "queued as 4VNkGp2Zwz9s"},
		{name: "A43 a reply of 5 MB to the dot", scripts: only(upToDot + `S* 50000 "250-` + strings.Repeat("x", 95) + `\r\n"`),
			state: mail.StateDelayed, cause: mail.CauseProtocol, ambig: true, stage: mail.StageDot},
		{name: "A43 a long reply under the cap", scripts: only(upToDot + `S* 400 "250-` + strings.Repeat("x", 95) + `\r\n"` + "\n" + queued + bye),
			state: mail.StateAccepted},
		{name: "A44 QUIT never answered", scripts: only(upToDot + queued + "C: QUIT\nhang"), state: mail.StateAccepted, within: time.Second},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// Every 4xx and 5xx anywhere keeps the bytes for the next attempt, and the next
// attempt sends them as they were.
func TestTheSameBytesAreSentAgain(t *testing.T) {
	t.Parallel()
	first := fault{scripts: only(hi + envelopeOK + "S: 451 4.3.0 not now\n" + bye), state: mail.StateDelayed, cause: "*"}
	var signed []byte
	first.check = func(_ *testing.T, _ *smtptest.Network, o mail.Outcome) { signed = o.Signed }
	first.run(t)
	second := fault{number: 2, scripts: only(accepting), state: mail.StateAccepted,
		change: func(o *Options, _ *Plan, a *mail.Attempt) {
			a.Signed = signed
			o.Render = func(*mail.Message) ([]byte, error) { t.Error("rendered again"); return nil, nil }
		},
		check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
			if !slices.Equal(o.Signed, signed) {
				t.Error("other bytes were kept")
			}
		}}
	second.run(t)
}
