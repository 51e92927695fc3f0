package bounces

import (
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// The laws of classification, one reply each; wording is in the rules' examples.
func TestClassify(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		reply    string
		stage    mail.Stage
		cause    mail.Cause
		hard     bool
		suppress bool
		wait     time.Duration
	}{
		{"5.1.1", "550 5.1.1 <a@b.example>: User unknown", mail.StageRcpt, mail.CauseBadMailbox, true, true, 0},
		{"4xx never suppresses", "450 4.1.1 <a@b.example>: User unknown", mail.StageRcpt, mail.CauseBadMailbox, false, false, 0},
		{"5.7.x never suppresses", "550 5.7.1 <a@b.example>: User unknown", mail.StageRcpt, mail.CauseBadMailbox, true, false, 0},
		{"a text about us wins over 5.1.1", "550 5.1.1 SPF check failed for a@b.example", mail.StageRcpt, mail.CauseAuthFailed, true, false, 0},
		{"an address on a list wins over 5.1.1", "550 5.1.1 Your IP 192.0.2.1 is blacklisted", mail.StageRcpt, mail.CauseBlocklisted, true, false, 0},
		{"a sender wins over 5.1.1", "550 5.1.1 <a@b.example>: unauthorized sender", mail.StageMail, mail.CauseSenderRejected, true, false, 0},
		{"Gmail's 5.7.27 is SPF, not the registry's null MX", "550-5.7.27 This mail has been blocked because SPF authentication didn't pass. - gsmtp", mail.StageDot, mail.CauseAuthFailed, true, false, 0},
		{"552 at RCPT is temporary", "552 Too much", mail.StageRcpt, mail.CauseMailboxFull, false, false, 0},
		{"552 5.3.4 at RCPT too", "552 5.3.4 Message size exceeds fixed limit", mail.StageRcpt, mail.CauseTooLarge, false, false, 0},
		{"552 after the dot is not", "552 5.3.4 Message size exceeds fixed limit", mail.StageDot, mail.CauseTooLarge, true, false, 0},
		{"a full mailbox passes", "550 5.2.2 Mailbox full", mail.StageRcpt, mail.CauseMailboxFull, false, false, 0},
		{"greylisting with a hint", "451 4.7.1 Greylisted, try again in 300 seconds", mail.StageRcpt, mail.CauseGreylisted, false, false, 300 * time.Second},
		{"a permanent greylisting is not", "550 Greylisted, try again in 300 seconds", mail.StageRcpt, mail.CauseGreylisted, false, false, 300 * time.Second},
		{"qmail's code in the text", "553 sorry (#5.1.1)", mail.StageRcpt, mail.CauseBadMailbox, true, true, 0},
		{"a code in the text of the other class is not", "450 sorry (#5.1.1)", mail.StageRcpt, mail.CauseUnknown, false, false, 0},
		{"nothing known, 5xx: fail, never suppress", "550 xyzzy", mail.StageRcpt, mail.CauseUnknown, true, false, 0},
		{"nothing known, 4xx: retry", "450 xyzzy", mail.StageRcpt, mail.CauseUnknown, false, false, 0},
		{"a bare code", "550", mail.StageRcpt, mail.CauseUnknown, true, false, 0},
		{"a bare enhanced code", "5.1.1", "", mail.CauseBadMailbox, true, true, 0},
	}
	for _, test := range tests {
		reply, _ := ParseReply(test.reply)
		v := Classify(Said{Reply: reply, Stage: test.stage})
		if v.Cause != test.cause || v.Hard != test.hard || v.Retry == test.hard || v.Suppress != test.suppress || v.RetryAfter != test.wait {
			t.Errorf("%s: Classify(%q) = %+v", test.name, test.reply, v)
		}
	}
}

func TestParseReply(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want mail.Reply
		ok   bool
	}{
		{"550 5.1.1 No such user", mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 1, 1}, Text: "No such user"}, true},
		{"550-5.1.1 No\r\n550 5.1.1 such user\r\n", mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 1, 1}, Text: "No such user"}, true},
		{"550-first\n550 5.2.1 second", mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 2, 1}, Text: "first second"}, true},
		{"550 #5.1.0 Address rejected", mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 1, 0}, Text: "Address rejected"}, true},
		{"550", mail.Reply{Code: 550}, true},
		{"  550 x ", mail.Reply{Code: 550, Text: "x"}, true},
		{"5.1.1", mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 1, 1}}, true},
		{"4.7.1 later", mail.Reply{Code: 450, Enhanced: mail.EnhancedCode{4, 7, 1}, Text: "later"}, true},
		{"450 5.7.1 classes differ", mail.Reply{Code: 450, Text: "classes differ"}, true},
		{"550 999.-1.+3 absurd", mail.Reply{Code: 550, Text: "999.-1.+3 absurd"}, true},
		{"550 5.1.1abc", mail.Reply{Code: 550, Text: "5.1.1abc"}, true},
		{"550 192.0.2.1 listed", mail.Reply{Code: 550, Text: "192.0.2.1 listed"}, true},
		{"5501 no code", mail.Reply{Text: "5501 no code"}, false},
		{"650 no code", mail.Reply{Text: "650 no code"}, false},
		{"connection refused", mail.Reply{Text: "connection refused"}, false},
		{"", mail.Reply{}, false},
		{"550 a\x00\x1b[31m\u2028b\xff\u0085c", mail.Reply{Code: 550, Text: "a [31m b\ufffd c"}, true},
	}
	for _, test := range tests {
		got, ok := ParseReply(test.in)
		if got != test.want || ok != test.ok {
			t.Errorf("ParseReply(%q) = %+v, %v, want %+v, %v", test.in, got, ok, test.want, test.ok)
		}
	}
	long, _ := ParseReply("550 " + strings.Repeat("ä ", 4000))
	if len(long.Text) > maxText || len(long.Text) < maxText-4 {
		t.Errorf("a long text was cut to %d bytes, want %d", len(long.Text), maxText)
	}
}

// Classify is total and deterministic; it suppresses only on a final reply, not on
// 5.7.x, and for one of the four causes that are about the address.
func FuzzClassify(f *testing.F) {
	f.Add("550 5.1.1 User unknown", "mx.example.com", "rcpt", "")
	f.Add("450-4.2.2 Mailbox\r\n450 full, retry in 5 minutes", "aspmx.l.google.com", "dot", "microsoft365")
	f.Add("550 ユーザが見つかりません \xff\xfe", "", "", "")
	f.Add("http://x/../:::: 1.2.3.4 ::1 @@ a@b:c@d (((", ".", "greeting", "x")
	f.Fuzz(func(t *testing.T, text, host, stage, provider string) {
		reply, _ := ParseReply(text)
		s := Said{Reply: reply, Host: host, Stage: mail.Stage(stage), Provider: provider}
		v := Classify(s)
		if v != Classify(s) {
			t.Fatal("not deterministic")
		}
		if Explain(v.Cause, "en").Plain == "" || v.Cause == "" || v.Hard == v.Retry {
			t.Fatalf("not total: %+v", v)
		}
		if v.RetryAfter < 0 || v.RetryAfter > 24*time.Hour || v.RetryAfter > 0 && v.Hard {
			t.Fatalf("a wait of %v, hard %v", v.RetryAfter, v.Hard)
		}
		if v.Suppress && (!v.Hard || reply.Code/100 != 5 || reply.Enhanced[1] == 7 || !aboutAddress(v.Cause)) {
			t.Fatalf("suppressed on %q: %+v", text, v)
		}
	})
}

// A text that comes from outside the reply reader, without its limits, is bounded.
func TestClassifyHugeText(t *testing.T) {
	t.Parallel()
	v := Classify(Said{Reply: mail.Reply{Code: 550, Text: strings.Repeat("é", 1<<20) + " user unknown"}, Host: strings.Repeat("a.", 1<<16)})
	if v.Cause != mail.CauseUnknown {
		t.Errorf("looked beyond its bound: %+v", v)
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	said := Said{Stage: mail.StageRcpt, Host: "mx.example.com", Reply: mail.Reply{Code: 550, Text: "<a@b.example>: Recipient address rejected: Überzählig, try again in 5 minutes. See https://example.com/help"}}
	if n := testing.AllocsPerRun(100, func() { Classify(said) }); n != 0 {
		t.Errorf("Classify allocates %v times", n)
	}
}

func BenchmarkClassify(b *testing.B) {
	said := Said{Stage: mail.StageRcpt, Host: "aspmx.l.google.com", Reply: mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 1, 1}, Text: "The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or unnecessary spaces. For more information, go to https://support.google.com/mail/?p=NoSuchUser x1si1 - gsmtp"}}
	b.ReportAllocs()
	for b.Loop() {
		Classify(said)
	}
}
