package bounces

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Every language has every cause whole, with known placeholders only, each in
// brackets; and filled with nothing or with everything it leaves no mark behind.
func TestCatalogueComplete(t *testing.T) {
	t.Parallel()
	if got := Languages(); !slices.Equal(got, []string{"en", "fi"}) {
		t.Errorf("languages %v", got)
	}
	actors := []mail.Actor{mail.ActNobody, mail.ActPerson, mail.ActTheirIT, mail.ActUs, mail.ActSupport}
	placeholder := regexp.MustCompile(`\{[^}]*\}?`)
	bracketed := regexp.MustCompile(`\[[^]]*\]`)
	known := []string{"{to}", "{domain}", "{provider}", "{time}", "{said}", "{ref}"}
	everything := Facts{To: "a@b.example", Domain: "b.example", Provider: "Microsoft 365",
		Time: time.Date(2026, 11, 21, 9, 14, 0, 0, time.UTC), Said: "no", Ref: "7K3Q-9DXP"}
	for _, lang := range Languages() {
		entries := map[string]Explanation{}
		for _, cause := range mail.Causes {
			entries[string(cause)] = catalogue()[lang].causes[cause]
		}
		for _, action := range explainedActions {
			entries["action "+string(action)] = catalogue()[lang].actions[action]
		}
		for cause, e := range entries {
			if !slices.Contains(actors, e.Who) || e.time == "" {
				t.Errorf("%s %s: missing, or who acts is %q", lang, cause, e.Who)
			}
			for _, s := range []string{e.Plain, e.NextStep, e.Reply} {
				if s == "" || s != strings.TrimSpace(s) {
					t.Errorf("%s %s: an empty or untrimmed text", lang, cause)
				}
				for _, p := range placeholder.FindAllString(s, -1) {
					if !slices.Contains(known, p) {
						t.Errorf("%s %s: unknown placeholder %s", lang, cause, p)
					}
				}
				if rest := bracketed.ReplaceAllString(s, ""); strings.ContainsAny(rest, "{}[]|") {
					t.Errorf("%s %s: a placeholder out of brackets: %s", lang, cause, rest)
				}
			}
			for _, f := range []Facts{{}, everything} {
				e := e.Fill(f)
				for _, s := range []string{e.Plain, e.NextStep, e.Reply} {
					if strings.ContainsAny(s, "{}[]|") || strings.Contains(s, "  ") || strings.Contains(s, " .") {
						t.Errorf("%s %s: filled badly: %s", lang, cause, s)
					}
				}
			}
		}
	}
}

// Law 8: SMTP says "accepted by the next server", never "delivered".
func TestCatalogueHonest(t *testing.T) {
	t.Parallel()
	for _, cause := range mail.Causes {
		e := Explain(cause, "en")
		for _, s := range []string{e.Plain, e.Reply} {
			if strings.Contains(strings.ToLower(s), "delivered") {
				t.Errorf("%s: %s", cause, s)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	facts := Facts{To: "kari@nordlys.example", Domain: "nordlys.example", Provider: ProviderName("microsoft365"),
		Time: time.Date(2026, 11, 21, 9, 14, 7, 0, time.UTC), Ref: "7K3Q-9DXP"}
	tests := []struct {
		cause       mail.Cause
		lang        string
		facts       Facts
		plain, part string
	}{
		{mail.CauseBadMailbox, "en", facts,
			"The mail server of nordlys.example (Microsoft 365) says that the address kari@nordlys.example does not exist.",
			"7K3Q-9DXP at 09:14 UTC on 21 November 2026, but"},
		{mail.CauseBadMailbox, "fi-FI", facts,
			"Vastaanottajan sähköpostipalvelin (nordlys.example, Microsoft 365) ilmoitti, ettei osoitetta kari@nordlys.example ole olemassa.",
			"viestin 7K3Q-9DXP 21.11.2026 klo 09.14 UTC, mutta"},
		{mail.CauseBadMailbox, "EN_gb", Facts{}, "The mail server says that the address does not exist.", "send you the message, but"},
		{mail.CauseBadMailbox, "sv", Facts{Domain: "b.example"}, "The mail server of b.example says that the address does not exist.", ""},
		{"no_such_cause", "en", Facts{}, Explain(mail.CauseUnknown, "en").Fill(Facts{}).Plain, ""},
	}
	for _, test := range tests {
		e := Explain(test.cause, test.lang).Fill(test.facts)
		if e.Plain != test.plain {
			t.Errorf("%s %s: %q, want %q", test.cause, test.lang, e.Plain, test.plain)
		}
		if !strings.Contains(e.Reply, test.part) {
			t.Errorf("%s %s: the reply %q has no %q", test.cause, test.lang, e.Reply, test.part)
		}
	}
}

// What people paste is often a line of a mail log.
func TestExplainLogLine(t *testing.T) {
	t.Parallel()
	const line = "postfix/smtp[9]: 4ABC: to=<kari@nordlys.example>, relay=mx.nordlys.example[192.0.2.7]:25, delay=0.6, dsn=5.1.1, " +
		"status=bounced (host mx.nordlys.example[192.0.2.7] said: 550 5.1.1 <kari@nordlys.example>: User unknown (in reply to RCPT TO command))"
	r := ExplainReply(line, "en").Reports[0]
	if r.Code != 550 || r.Status != "5.1.1" || r.Cause != mail.CauseBadMailbox || !r.Suppress || r.Action != ActionFailed {
		t.Errorf("%+v", r)
	}
}
