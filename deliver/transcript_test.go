package deliver

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// exchanged is a conversation as lines, without its times.
func exchanged(e mail.Evidence) []string {
	var lines []string
	for _, x := range e.Conversation {
		lines = append(lines, x.Command+" => "+x.Reply+x.Error)
	}
	return lines
}

// What each attempt keeps of the conversation.
func TestTranscript(t *testing.T) {
	t.Parallel()
	token := func(o *Options, _ *Plan, _ *mail.Attempt) {
		o.ReturnPath = func(mail.ID) string { return "bounce+t0k3n@acme.example" }
	}
	login := func(_ *Options, p *Plan, _ *mail.Attempt) {
		p.Relay, p.TLS, p.Login = true, TLSEncrypted, &Login{User: "mailer", Password: "correct horse"}
	}
	ehlo := "EHLO out.acme.example => 250 mx.dest.example greets out.acme.example"
	envelope := []string{"MAIL FROM:<bounce@acme.example> => 250 2.1.0 ok", "RCPT TO:<kari@dest.example> => 250 2.1.5 ok", "DATA => 354 go on"}
	for _, f := range []struct {
		fault
		want   []string
		offers []string
	}{
		{fault{name: "an accept", scripts: only(accepting), state: mail.StateAccepted},
			slices.Concat([]string{" => 220 mx.dest.example ESMTP", ehlo}, envelope, []string{". => 250 2.0.0 Ok: queued as 4VNkGp2Zwz9s"}), []string{"PIPELINING"}},
		{fault{name: "one command at a time", scripts: only(hiPlain + "C: MAIL FROM:<bounce+t0k3n@acme.example>\n" + ok + rcptCmd + "S: 550 5.1.1 no\n" + bye),
			change: token, state: mail.StateRefused, cause: "*", suppress: true},
			[]string{" => 220 mx.dest.example ESMTP", "EHLO out.acme.example => 250 mx.dest.example", "MAIL FROM:<bounce+...@acme.example> => 250 ok", "RCPT TO:<kari@dest.example> => 550 5.1.1 no"}, nil},
		{fault{name: "TLS and AUTH", scripts: only("S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\ntls\nC: EHLO\nS: 250-mx\nS: 250 AUTH LOGIN\n" +
			"C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: bWFpbGVy\nS: 334 UGFzc3dvcmQ6\nC: Y29ycmVjdCBob3JzZQ==\nS: 535 correct horse is wrong\n" + bye),
			change: login, state: "", stage: mail.StageAuth, text: "535"},
			[]string{" => 220 mx", "EHLO out.acme.example => 250 mx", "STARTTLS => 220 go", "(TLS handshake) => TLS 1.3, TLS_AES_128_GCM_SHA256",
				"EHLO out.acme.example => 250 mx", "AUTH LOGIN ... => 334", "... => 334", "... => 535"}, []string{"AUTH LOGIN"}},
		{fault{name: "an early no", scripts: only(hi + commands + ok + ok + goOn + "S: 552 5.3.4 too much\nhang"), state: mail.StateRefused, cause: "*"},
			slices.Concat([]string{" => 220 mx.dest.example ESMTP", ehlo}, []string{"MAIL FROM:<bounce@acme.example> => 250 ok", "RCPT TO:<kari@dest.example> => 250 ok", "DATA => 354 go on", "(the message) => 552 5.3.4 too much"}), []string{"PIPELINING"}},
		{fault{name: "a silence", scripts: only(hiPlain + mailCmd + "hang"), state: mail.StateDelayed, cause: "*", within: 6 * time.Minute},
			[]string{" => 220 mx.dest.example ESMTP", "EHLO out.acme.example => 250 mx.dest.example", "MAIL FROM:<bounce@acme.example> => no answer in time"}, nil},
	} {
		f.check = func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
			if got := exchanged(o.Evidence); !slices.Equal(got, f.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(f.want, "\n"))
			}
			if !slices.Equal(o.Evidence.Capabilities, f.offers) {
				t.Errorf("capabilities %q, want %q", o.Evidence.Capabilities, f.offers)
			}
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// A message on a connection that carried another tells of itself alone, whether it
// found the connection or rode on it.
func TestTranscriptOfOneMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		owner, rider, _ := riding(t, []string{busy + boards + "wait 20ms\nS: 250 2.0.0 yours\nS: 250 mail\nS: 250 rcpt\nS: 354 go\nC.\nS: 250 2.0.0 mine\n" + bye}, false, nil)
		for _, row := range []struct {
			o    mail.Outcome
			want []string
		}{
			{owner, []string{"MAIL FROM:<bounce@acme.example> => 250 2.1.0 ok", "RCPT TO:<kari@dest.example> => 250 2.1.5 ok", "DATA => 354 go on", ". => 250 2.0.0 yours"}},
			{rider, []string{"MAIL FROM:<bounce@acme.example> => 250 mail", "RCPT TO:<kari@dest.example> => 250 rcpt", "DATA => 354 go", ". => 250 2.0.0 mine"}},
		} {
			if got := exchanged(row.o.Evidence); !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		}
		if took := rider.Evidence.Conversation[0].Took; took != 20*time.Millisecond {
			t.Errorf("the rider's MAIL took %v", took)
		}
	})
}

// However much a server says, what is kept is bounded, clean text.
func TestTranscriptIsBounded(t *testing.T) {
	t.Parallel()
	var tr transcript
	for range 1000 {
		tr.note("RCPT TO:<"+strings.Repeat("ä", 300), reply{code: 250, lines: strings.Repeat("\x1b\xffö", 500)}, nil, time.Now())
	}
	b, err := json.Marshal(tr.exchanges)
	if err != nil || len(b) > maxTranscript+512 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, x := range tr.exchanges {
		if !utf8.ValidString(x.Command) || !utf8.ValidString(x.Reply) || strings.ContainsRune(x.Reply, 0x1b) {
			t.Errorf("kept %q", x)
		}
	}
	var lines []string
	for range maxReplyLines {
		lines = append(lines, "X-"+strings.Repeat("\x07", 200))
	}
	if b, err := json.Marshal(offered(lines)); err != nil || len(b) > 2*maxCapabilities+512 {
		t.Errorf("%d bytes of capabilities, %v", len(b), err)
	}
}
