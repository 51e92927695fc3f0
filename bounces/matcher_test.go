package bounces

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNormalise(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		code int
		want string
	}{
		{"User UNKNOWN", 550, " user unknown "},
		{"<a@b.example>: User doesn't exist.", 550, " @ user doesnt exist "},
		{"found:a@b.example:blocked", 550, " found @ blocked "},
		{"Client host [192.0.2.1] blocked", 554, " client host ip blocked "},
		{"IP=192.0.2.1 - no", 554, " ip 192.0.2.1 no "},
		{"[x.xx.xx.xx] 2001:db8::1 12:30:00", 0, " ip ip 12 30 00 "},
		{"see https://Help.Mail.example/a-b?c=1", 0, " see https///help.mail.example/a/b/c/1 "},
		{"and/or mail.ru/x", 0, " and or mail.ru/x "},
		{"zen.spamhaus.org.", 0, " zen.spamhaus.org "},
		{"due to 550-5.7.26 domain's 550 5.7.26 DMARC", 550, " due to domains dmarc "},
		{"550 is another code", 554, " 550 is another code "},
		{"BAD_RECIPIENT (#5.1.1)", 550, " bad recipient 5.1.1 "},
		{"Postilaatikko TÄYNNÄ ÅØŁß", 0, " postilaatikko taynna aols "},
		{"ПОЛЬЗОВАТЕЛЬ «не» найден", 0, " пользователь не найден "},
		{"\xff\xfe user", 0, " user "},
		{"", 0, " "},
	}
	for _, test := range tests {
		var n normaliser
		if got := string(n.normalise(test.text, test.code)); got != test.want {
			t.Errorf("normalise(%q, %d) = %q, want %q", test.text, test.code, got, test.want)
		}
	}
	var n normaliser
	if got := n.normalise(strings.Repeat("ä é ", 4000), 0); len(got) > maxNormal {
		t.Errorf("%d bytes", len(got))
	}
}

func TestMatcher(t *testing.T) {
	t.Parallel()
	tests := []struct{ pattern, text string }{
		{"user unknown", "! user unknowns"},
		{"user unknown", " user unknown "},
		{"user unknown*", " user unknowns "},
		{"*spamhaus.org*", " http///www.spamhaus.org/q "},
		{"(user|mailbox) (is |)full", " the mailbox full "},
		{"(user|mailbox) (is |)full", " the user is full "},
		{"(user|mailbox) (is |)full", "! mailbox was full "},
		{"user .. unknown", " user called x is unknown "},
		{"user .. unknown", "! unknown user "},
		{"user .. unknown", "! user " + strings.Repeat("x", 60) + " unknown "},
		{"user ... unknown", " user " + strings.Repeat("x", 60) + " unknown "},
		{"user ~ unknown", " user is unknown "},
		{"user ~ unknown", "! user of this mail system unknown "},
		{"a1 .. b2 .. c3 .. d4", " a1 b2 c3 d4 "},
		{"a1 .. b2 .. c3 .. d4", "! a1 b2 d4 c3 "},
		{"user .. user", "! user "},
		{"user .. user", " user user "},
		{"{who} unknown", " account unknown "},
		{"({who}|other) unknown", " user unknown "},
		{"*不存在*", " 用户不存在 "},
		{"@ unknown", " @ unknown "},
	}
	for _, test := range tests {
		b := newBuilder()
		b.words["who"] = "user|account"
		if err := b.add(test.pattern, 7); err != nil {
			t.Fatal(err)
		}
		// Company for the automaton: literals that share prefixes and suffixes.
		for i, p := range []string{"user unknown host", "unknown host", "*ser unk*", "known"} {
			if err := b.add(p, 100+i); err != nil {
				t.Fatal(err)
			}
		}
		m, err := b.build()
		if err != nil {
			t.Fatal(err)
		}
		text, not := strings.CutPrefix(test.text, "!")
		var found bits
		m.scan([]byte(text), &found)
		if found.has(7) == not {
			t.Errorf("%q in %q: %v", test.pattern, text, !not)
		}
	}
}

// The automaton finds what strings.Contains finds.
func TestMatcherAgainstSearch(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		var b strings.Builder
		for range 1 + rng.IntN(n) {
			b.WriteByte("ab "[rng.IntN(3)])
		}
		return b.String()
	}
	for range 300 {
		b := newBuilder()
		var literals []string
		for len(literals) < 20 {
			p := strings.Join(strings.Fields(word(8)), " ")
			if len(p) < 2 {
				continue
			}
			if err := b.add("*"+p+"*", len(literals)); err != nil {
				t.Fatal(err)
			}
			literals = append(literals, p)
		}
		m, err := b.build()
		if err != nil {
			t.Fatal(err)
		}
		text := word(60)
		var found bits
		m.scan([]byte(text), &found)
		for i, p := range literals {
			if found.has(i) != strings.Contains(text, p) {
				t.Fatalf("%q in %q: %v", p, text, found.has(i))
			}
		}
	}
}

func TestPatternErrors(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"User", "a", "it's", "(a b", "a b)", "{nobody} x", "{who x", "a1 .. b2 .. c3 .. d4 .. e5", "x-y",
		"(a|b|c|d|e|f|g|h)(a|b|c|d|e|f|g|h)(a|b|c|d|e|f|g|h) x"} {
		if err := newBuilder().add(p, 0); err == nil {
			t.Errorf("pattern %q was taken", p)
		}
	}
	if err := newBuilder().add("user unknown", maxTargets); err == nil {
		t.Error("a target over the limit was taken")
	}
}

func TestBlockErrors(t *testing.T) {
	t.Parallel()
	if _, err := parseBlocks("x", "  field before block\n"); err == nil {
		t.Error("a field before the first block was taken")
	}
	rules := []string{
		"rule a\n  text user unknown\n",                         // no cause
		"rule a\n  cause bad_mailbox\n",                         // nothing to go by
		"rule a\n  cause nonsense\n  code 550\n",                // no such cause
		"rule a\n  cause spam\n  code 5.x.1.2\n",                // no code
		"rule a\n  cause spam\n  code five\n",                   // no code
		"rule a\n  cause spam\n  code 5.1.y\n",                  // no code
		"rule a\n  cause spam\n  provider nobody\n  code 550\n", // no such provider
		"rule a\n  cause spam\n  code 550\n  colour red\n",      // no such field
		"words a\n  is user\n",                                  // no such field
		"veto a\n  code 550\n",                                  // no such field
		"veto a\n  text User\n",                                 // no pattern
		"nonsense a\n",                                          // no such block
		"rule a\n  cause spam\n  text (user\n",                  // no pattern
	}
	for _, text := range rules {
		table := &table{byID: map[string]int{}, family: map[string]uint64{}, byHost: map[string]int{}}
		if err := table.loadRules(newBuilder(), "rules/x.txt", text); err == nil {
			t.Errorf("taken: %q", text)
		}
	}
	for _, text := range []string{"provider a\n  colour red\n", "rule a\n", "provider a\n  text User\n"} {
		table := &table{byID: map[string]int{}, family: map[string]uint64{}, byHost: map[string]int{}}
		if err := table.loadProviders(newBuilder(), "x", text); err == nil {
			t.Errorf("taken: %q", text)
		}
	}
	for _, text := range []string{"phrases nonsense\n", "phrases daemon\n  colour red\n", "phrases daemon\n  text User\n"} {
		if _, err := loadMailWords(text); err == nil {
			t.Errorf("taken: %q", text)
		}
	}
}
