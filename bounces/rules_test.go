package bounces

import (
	"testing"

	"github.com/deliverd/deliverd/mail"
)

// Each rule decides its own examples, so that none is hidden by one before it; and
// names are unique, since a verdict names its rule.
func TestRuleExamples(t *testing.T) {
	t.Parallel()
	table, err := loadTable()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for n := range table.rules {
		r := &table.rules[n]
		if names[r.name] {
			t.Errorf("two rules are called %s", r.name)
		}
		names[r.name] = true
		if len(r.examples) == 0 {
			t.Errorf("rule %s has no example", r.name)
		}
		for _, example := range r.examples {
			said := Said{}
			said.Reply, _ = ParseReply(example)
			if r.stages != nil {
				said.Stage = r.stages[0]
			}
			if v := Classify(said); v.Rule != r.name || v.Cause != r.cause {
				t.Errorf("rule %s: its example %q is decided by rule %q as %s", r.name, example, v.Rule, v.Cause)
			}
		}
	}
	if got := len(table.rules) * targetKinds; got > maxTargets {
		t.Errorf("%d targets, more than %d", got, maxTargets)
	}
}

// Host names' suffixes and texts name the provider.
func TestProvider(t *testing.T) {
	t.Parallel()
	tests := []struct {
		said Said
		want string
	}{
		{Said{Host: "nordlys-fi.mail.protection.outlook.com."}, "microsoft365"},
		{Said{Host: "NORDLYS-FI.Mail.Protection.Outlook.COM"}, "microsoft365"},
		{Said{Host: "hotmail-com.olc.protection.outlook.com"}, "outlook"},
		{Said{Host: "aspmx.l.google.com"}, "google-workspace"},
		{Said{Host: "alt1.gmail-smtp-in.l.google.com"}, "gmail"},
		{Said{Host: "mta7.am0.yahoodns.net"}, "yahoo-aol"},
		{Said{Host: "notyahoodns.net"}, ""},
		{Said{Host: "mx.example.com"}, ""},
		{Said{Host: "mx.example.com", Provider: "retarus"}, "retarus"},
		{Said{Provider: "of-another-catalogue"}, "of-another-catalogue"},
		{Said{Reply: mail.Reply{Code: 550, Text: "no such user x1si1 - gsmtp"}}, "gmail"},
		{Said{Reply: mail.Reply{Code: 550, Text: "no [AM1.prod.protection.outlook.com]"}}, "microsoft365"},
		{Said{Reply: mail.Reply{Code: 421, Text: "[TSS04] deferred"}}, "yahoo-aol"},
		{Said{Host: "eu-smtp-inbound-1.mimecast.com", Reply: mail.Reply{Code: 550, Text: "no - gsmtp"}}, "mimecast"},
	}
	for _, test := range tests {
		if got := Classify(test.said).Provider; got != test.want {
			t.Errorf("provider of %+v: %q, want %q", test.said, got, test.want)
		}
	}
}
