package smtptest_test

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
)

func sink(t *testing.T, o smtptest.SinkOptions) *smtptest.Sink {
	t.Helper()
	s, err := smtptest.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// talk says lines to a sink, all at once, and returns the codes of its replies.
func talk(t *testing.T, s *smtptest.Sink, lines ...string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(lines, "\r\n") + "\r\n")); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	var codes []string
	for in := bufio.NewScanner(c); in.Scan(); {
		if line := in.Text(); len(line) < 4 || line[3] == ' ' {
			codes = append(codes, line[:3])
		}
	}
	return strings.Join(codes, " ")
}

func TestSinkTalk(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		say  []string
		want string
	}{
		"a mail":              {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "Subject: x", "", "..", ".", "QUIT"}, "220 250 250 250 354 250 221"},
		"a null sender":       {[]string{"HELO me", "MAIL FROM:<>", "RCPT TO:<c@d.example>", "DATA", ".", "QUIT"}, "220 250 250 250 354 250 221"},
		"lower case":          {[]string{"ehlo me", "mail from:<a@b.example> size=10", "rcpt to:<c@d.example>", "rset", "noop", "quit"}, "220 250 250 250 250 250 221"},
		"no EHLO":             {[]string{"MAIL FROM:<a@b.example>"}, "220 503"},
		"no MAIL":             {[]string{"EHLO me", "RCPT TO:<c@d.example>", "DATA"}, "220 250 503 503"},
		"no RCPT":             {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "DATA"}, "220 250 250 554"},
		"two recipients":      {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@d.example>"}, "220 250 250 250 452"},
		"two MAILs":           {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "MAIL FROM:<a@b.example>"}, "220 250 250 503"},
		"no brackets":         {[]string{"EHLO me", "MAIL FROM:a@b.example"}, "220 250 501"},
		"unknown":             {[]string{"HELP"}, "220 502"},
		"junk without end":    {slices.Repeat([]string{"XXXX"}, 30), "220" + strings.Repeat(" 502", 20)},
		"cut in the message":  {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "Subject: x"}, "220 250 250 250 354"},
		"STARTTLS pipelined":  {[]string{"EHLO me", "STARTTLS", "MAIL FROM:<a@b.example>"}, "220 250 220"},
		"too large":           {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", strings.Repeat("x", 2000)}, "220 250 250 250 354 552"},
		"refused, and on":     {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<gone@d.example>", "RCPT TO:<c@d.example>", "DATA", ".", "QUIT"}, "220 250 250 550 250 354 250 221"},
		"421 ends it":         {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<busy@d.example>", "NOOP"}, "220 250 250 421"},
		"vanishes at the dot": {[]string{"EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<v@d.example>", "DATA", "."}, "220 250 250 250 354"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sink(t, smtptest.SinkOptions{MaxSize: 1000, Rules: []smtptest.Rule{
				{Pattern: "GONE@d.example", Behaviour: smtptest.Behaviour{Reply: "550 5.1.1 no"}},
				{Pattern: "busy@*", Behaviour: smtptest.Behaviour{Reply: "421 4.7.0 no"}},
				{Pattern: "v@*", Behaviour: smtptest.Behaviour{Vanish: true, Stage: smtptest.StageDot}},
			}})
			if got := talk(t, s, row.say...); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func deliverOne(t *testing.T, s *smtptest.Sink, to, id, body string) string {
	t.Helper()
	return talk(t, s, "EHLO me", "MAIL FROM:<a@b.example>", "RCPT TO:<"+to+">", "DATA", "Message-ID: <"+id+">", "", body, ".", "QUIT")
}

const accepted = "220 250 250 250 354 250 221"

func TestSinkKeeps(t *testing.T) {
	t.Parallel()
	var seen int
	s := sink(t, smtptest.SinkOptions{Keep: 3, Ledger: true, OnMail: func(smtptest.Mail) { seen++ }})
	for i := range 5 {
		if got := deliverOne(t, s, "k@d.example", fmt.Sprintf("%d@b.example", i/2), "..dots"); got != accepted {
			t.Fatalf("got %s", got)
		}
	}
	var kept []string
	for m := range s.Mails() {
		kept = append(kept, fmt.Sprint(m.Seq, m.MessageID))
		if want := "Message-ID: " + m.MessageID + "\r\n\r\n.dots\r\n"; string(m.Raw) != want || m.To != "k@d.example" || m.From != "a@b.example" || m.Hello != "me" || m.At.IsZero() {
			t.Errorf("got %+v", m)
		}
	}
	if want := []string{"5<2@b.example>", "4<1@b.example>", "3<1@b.example>"}; !slices.Equal(kept, want) {
		t.Errorf("kept %v, want %v", kept, want)
	}
	if l := s.Ledger(); len(l) != 3 || l["<0@b.example>"] != 2 || l["<2@b.example>"] != 1 {
		t.Errorf("ledger: %v", l)
	}
	if st := s.Stats(); st.Accepted != 5 || st.Connections != 5 || seen != 5 {
		t.Errorf("stats: %+v, seen %d", st, seen)
	}
}

func TestSinkKeepsBytes(t *testing.T) {
	t.Parallel()
	s := sink(t, smtptest.SinkOptions{KeepBytes: 2500})
	for i := range 5 {
		deliverOne(t, s, "k@d.example", fmt.Sprint(i), strings.Repeat("x", 1000))
	}
	n := 0
	for range s.Mails() {
		n++
	}
	if n != 2 {
		t.Errorf("%d mails of 1000 bytes are kept in 2500", n)
	}
}

// A rule that is told later wins over one that was told before, an address over a
// pattern; telling one anew starts its count anew.
func TestTell(t *testing.T) {
	t.Parallel()
	s := sink(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()})
	const refused = "220 250 250 550 554 502 502 502 502 221"
	if got := deliverOne(t, s, "refuse.me@d.example", "1", "x"); got != refused {
		t.Errorf("got %s", got)
	}
	tell := func(pattern, what string) {
		t.Helper()
		b, err := smtptest.ParseBehaviour(what)
		if err == nil {
			err = s.Tell(pattern, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tell("*@d.example", "accept")
	if got := deliverOne(t, s, "refuse.me@d.example", "2", "x"); got != accepted {
		t.Errorf("got %s", got)
	}
	tell("Refuse.Me@d.example", "greylist 1")
	tell("*@*", "vanish")
	for i, want := range []string{"220 250 250 451 554 502 502 502 502 221", accepted, accepted} {
		if got := deliverOne(t, s, "refuse.me@d.example", "3", "x"); got != want {
			t.Errorf("attempt %d: got %s, want %s", i, got, want)
		}
	}
	if err := s.Tell("[", smtptest.Behaviour{}); err == nil {
		t.Error("took a pattern that is none")
	}
}

func TestParseBehaviour(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]smtptest.Behaviour{
		"accept":                        {Stage: smtptest.StageRcpt},
		"greylist 3":                    {Greylist: 3, Stage: smtptest.StageRcpt},
		"refuse 550 5.1.1 no such user": {Reply: "550 5.1.1 no such user", Stage: smtptest.StageRcpt},
		"refuse 554 go away at dot":     {Reply: "554 go away", Stage: smtptest.StageDot},
		"refuse 451 look at this":       {Reply: "451 look at this", Stage: smtptest.StageRcpt},
		"vanish":                        {Vanish: true, Stage: smtptest.StageRcpt},
		"delay 5s at dot":               {Delay: 5 * time.Second, Stage: smtptest.StageDot},
		"stall at data":                 {Stall: true, Stage: smtptest.StageData},
		"lose":                          {Lose: true, Stage: smtptest.StageDot},
	} {
		if got, err := smtptest.ParseBehaviour(in); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", in, got, err)
		} else if got.String() != in {
			t.Errorf("%q is written as %q", in, got)
		}
	}
	for _, in := range []string{"", "at dot", "explode", "greylist", "greylist x", "refuse", "refuse 250 ok", "refuse 5500", "delay", "delay 5", "stall at lunch", "accept all"} {
		if got, err := smtptest.ParseBehaviour(in); err == nil {
			t.Errorf("%q: got %+v", in, got)
		}
	}
}

func TestListenOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	if s, err := smtptest.Listen(smtptest.SinkOptions{Addr: "0.0.0.0:0"}); err == nil {
		s.Close()
		t.Error("it listens to the world")
	}
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	s := sink(t, smtptest.SinkOptions{MaxConns: 1})
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
		t.Fatalf("got %q, %v", line, err)
	}
	other, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if line, err := bufio.NewReader(other).ReadString('\n'); err != nil || !strings.HasPrefix(line, "421 ") {
		t.Errorf("got %q, %v", line, err)
	}
}

// A script that does not fit what the client says is an error, and so is one that
// nobody came for.
func TestNetworkTells(t *testing.T) {
	t.Parallel()
	n := smtptest.NewNetwork(nil, map[string][]string{"a:25": {"S: 220 hi\nC: EHLO", "close"}})
	c, err := n.Dial(t.Context(), "tcp", "a:25")
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "220 hi\r\n" {
		t.Errorf("got %q, %v", line, err)
	}
	fmt.Fprintf(c, "HELO x\r\n")
	if _, err := n.Dial(t.Context(), "tcp", "b:25"); err == nil {
		t.Error("connected to an address without scripts")
	}
	err = n.Wait()
	for _, want := range []string{`the client said "HELO x"`, "1 scripts that nobody came for", "b:25"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}
