package mail

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	l64, l63 := strings.Repeat("l", 64), strings.Repeat("d", 63)
	longest := l63 + "." + l63 + "." + l63[:57] + ".fi" // 188 characters: 64 + 1 + 189 = 254
	for in, want := range map[string]Address{
		"kari.nordmann@nordlys.fi":      "kari.nordmann@nordlys.fi",
		"Kari.Nordmann@Nordlys.FI":      "Kari.Nordmann@nordlys.fi", // the local part is the server's own
		"a@b.co":                        "a@b.co",
		"!#$%&'*+-/=?^_`{|}~@b.example": "!#$%&'*+-/=?^_`{|}~@b.example",
		"a%b@c.example":                 "a%b@c.example", // old relay syntax is an opaque name
		"a!b@c.example":                 "a!b@c.example",
		"=?utf-8?q?a=40evil.example=3E?=@good.example": "=?utf-8?q?a=40evil.example=3E?=@good.example", // literally, never decoded
		"a@9lives.3com.example":                        "a@9lives.3com.example",
		"a@ab--cd.example":                             "a@ab--cd.example",
		l64 + "@b.example":                             Address(l64 + "@b.example"),
		"a@" + l63 + ".example":                        Address("a@" + l63 + ".example"),
		l64 + "@" + longest:                            Address(l64 + "@" + longest),
		"a@äö.fi":                                      "a@xn--4ca0b.fi",
		"a@ÄÖ.FI":                                      "a@xn--4ca0b.fi",
		"a@XN--4CA0B.fi":                               "a@xn--4ca0b.fi",
		"a@faß.de":                                     "a@xn--fa-hia.de", // non-transitional: not fass.de
		"a@例え。テスト":                                     "a@xn--r8jz45g.xn--zckzah",
		"a@example。fi":                                 "a@example.fi",
		"a@ｅｘａｍｐｌｅ.fi":                                 "a@example.fi",
		"a@דוגמה.קום":                                  "a@xn--6dbbec0c.xn--9dbq2a",
	} {
		got, err := ParseAddress(in)
		if got != want || err != nil {
			t.Errorf("ParseAddress(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

// FAULTS D01-D08, C17.
func TestParseAddressRefuses(t *testing.T) {
	t.Parallel()
	l63 := strings.Repeat("d", 63)
	tests := []struct{ in, why string }{
		{"", "empty"},
		{"nordlys.fi", "no @"},
		{"@nordlys.fi", "missing"},
		{"kari@", "not a domain name"},
		{"kari@@nordlys.fi", "more than one @"},
		{"a@b@c.example", "more than one @"},
		{`"a@evil.example"@good.example`, "quotes"},
		{`"a> RCPT TO:<v@x"@c.example`, "quotes"},
		{`"a"@c.example`, "quotes"},
		{`a"b@c.example`, "punctuation"},
		{"a@b> NOTIFY=NEVER <x", "punctuation"},
		{"a@b.example> NOTIFY=NEVER", "punctuation"},
		{"a@b.example\r", "line break"},
		{"a@b.example\r\nBcc: v@x.example", "line break"},
		{"a\n@b.example", "line break"},
		{"a\x00@b.example", "control character"},
		{"a\u0085@b.example", "line break"},
		{"a\u2028@b.example", "line break"},
		{" a@b.example", "space"},
		{"a@b.example ", "space"},
		{"a\u00a0@b.example", "space"},
		{"a\u202e@b.example", "direction"},
		{"a@\u200eb.example", "direction"},
		{"a@\u2066b.example", "direction"},
		{"x <a@b.example>", "a name"},
		{"<a@b.example>", "punctuation"},
		{"a@b.example,c@d.example", "punctuation"},
		{"group:a@b.example;", "punctuation"},
		{"a(comment)@b.example", "punctuation"},
		{".a@b.example", "dot"},
		{"a.@b.example", "dot"},
		{"a..b@c.example", "dot"},
		{`a\b@c.example`, "not allowed"},
		{"a[b@c.example", "not allowed"},
		{"kärtsy@nordlys.fi", "a to z"},
		{"a@[127.0.0.1]", "IP address"},
		{"a@[IPv6:::1]", "punctuation"},
		{"a@127.0.0.1", "IP address"},
		{"a@1.2.3", "IP address"},
		{"a@foo.0x7f000001", "IP address"},
		{"a@2130706433", "single word"},
		{"a@localhost", "this machine"},
		{"a@b.LOCALHOST", "this machine"},
		{"a@example", "single word"},
		{"a@-b.example", "hyphen"},
		{"a@b-.example", "hyphen"},
		{"a@b_c.example", "not a domain name"},
		{"a@b.example.", "dot"},
		{"a@例え。テスト。", "ends with a dot"},
		{"a@.example", "not a domain name"},
		{"a@b..example", "not a domain name"},
		{"a@b.c", "not one of a public name"},
		{"a@xn--", "not a domain name"},
		{"a@xn--.example", "not a domain name"},
		{"a@xn--a.example", "internationalized"},    // decodes to a control character
		{"a@xn--fss-.example", "internationalized"}, // an A-label of plain ASCII
		{"a@xn--aaaaaaaaa.fi", "internationalized"}, // no punycode
		{"a@ä_ö.fi", "internationalized"},           // STD3
		{"a@-ä.fi", "internationalized"},            // hyphen
		{"a@אa.example", "internationalized"},       // bidi rule
		{"a@x\u0301\u202dy.fi", "direction"},        // an override inside
		{"a@a\u200db.fi", "internationalized"},      // a joiner out of context
		{"a@\ufdd0.fi", "internationalized"},        // a noncharacter
		{strings.Repeat("l", 65) + "@b.example", "too long"},
		{"a@" + l63 + "d.example", "too long"},
		{"a@" + l63 + "." + l63 + "." + l63 + "." + l63[:62] + ".fi", "too long"},
		{strings.Repeat("l", 64) + "@" + l63 + "." + l63 + "." + l63[:59] + ".fi", "too long"},
		{strings.Repeat("a", 1<<20), "too long"},
		{"a@" + strings.Repeat("ä", 600) + ".fi", "too long"},
		{"a\xff@b.example", "UTF-8"},
	}
	for _, tt := range tests {
		got, err := ParseAddress(tt.in)
		if err == nil {
			t.Errorf("ParseAddress(%.80q) = %q, want a refusal", tt.in, got)
			continue
		}
		if !strings.Contains(err.Error(), tt.why) {
			t.Errorf("ParseAddress(%.80q): %v; want it to speak of %q", tt.in, err, tt.why)
		}
	}
}

func TestAddressErrorsNeverEcho(t *testing.T) {
	t.Parallel()
	const canary = "cAnArY7"
	for _, in := range []string{canary, canary + "@", "@" + canary, canary + "@" + canary, canary + "@" + canary + ".9",
		canary + " <a@b.example>", `"` + canary + `"@b.example`, "a@" + canary + "_.example", "ä" + canary + "@b.example",
		"a@xn--" + canary + ".example", canary + "@@b.example", canary + "@localhost", "." + canary + "@b.example"} {
		if _, err := ParseAddress(in); err == nil {
			t.Errorf("%q was taken", in)
		} else if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(canary)) {
			t.Errorf("the refusal of %q repeats it: %v", in, err)
		}
	}
}

// FAULTS D06 would refuse blanks around an address; people paste them every day, so they
// are taken away and the caller is told. What is inside of it is refused as D06 says.
func TestCleanAddress(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, want string
		trimmed  []string // what the warning names; nil: no warning
	}{
		{"kari@nordlys.fi", "kari@nordlys.fi", nil},
		{" kari@nordlys.fi", "kari@nordlys.fi", []string{"blank characters"}},
		{"kari@nordlys.fi ", "kari@nordlys.fi", []string{"blank characters"}},
		{"kari@nordlys.fi\t", "kari@nordlys.fi", []string{"blank characters"}},
		{"\u00a0kari@nordlys.fi\u3000", "kari@nordlys.fi", []string{"blank characters"}},
		{"\ufeffkari@nordlys.fi", "kari@nordlys.fi", []string{"invisible"}},
		{"kari\u200b@nordlys.fi", "kari@nordlys.fi", []string{"invisible"}},
		{"ka\u00adri@nord\u2060lys.fi", "kari@nordlys.fi", []string{"invisible"}},
		{"kari\u200d@nordlys\u200c.fi\u200d", "kari@nordlys.fi", []string{"blank", "invisible"}},
		{"\u202akari@nordlys.fi\u202c", "kari@nordlys.fi", []string{"direction"}},
		{"mailto:kari@nordlys.fi", "kari@nordlys.fi", []string{"mailto"}},
		{"MAILTO:kari@nordlys.fi?subject=hello", "kari@nordlys.fi", []string{"mailto"}},
		{"mailto:kari%2Binvite@nordlys.fi", "kari+invite@nordlys.fi", []string{"mailto"}},
		{"<kari@nordlys.fi>", "kari@nordlys.fi", []string{"angle brackets"}},
		{" < mailto:kari@nordlys.fi > ; ", "kari@nordlys.fi", []string{"blank", "angle", "mailto", "semicolon"}},
		{"kari@nordlys.fi,", "kari@nordlys.fi", []string{"comma"}},
		{"a@نامه\u200cای.com", "a@xn--mgba3gch31f060k.com", nil}, // this joiner means something
	}
	for _, tt := range tests {
		got, warnings, err := CleanAddress(tt.in)
		if string(got) != tt.want || err != nil {
			t.Errorf("CleanAddress(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			continue
		}
		if tt.trimmed == nil {
			if len(warnings) != 0 {
				t.Errorf("CleanAddress(%q) warns: %v", tt.in, warnings)
			}
			continue
		}
		if len(warnings) != 1 || warnings[0].Code != WarnAddressTrimmed {
			t.Errorf("CleanAddress(%q) warns %v, want one %s", tt.in, warnings, WarnAddressTrimmed)
			continue
		}
		for _, what := range tt.trimmed {
			if !strings.Contains(warnings[0].Detail, what) {
				t.Errorf("CleanAddress(%q): %q does not name %q", tt.in, warnings[0].Detail, what)
			}
		}
	}
}

func TestCleanAddressRefuses(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", " ", "<>", "mailto:", "mailto:?to=a@b.example",
		"kari @nordlys.fi", "kari@nordlys.fi kari@nordlys.fi", "a@b.example;c@d.example",
		"Kari Nordmann <kari@nordlys.fi>", "x <a@b.example>, c@d.example", "<a@b.example", "a@b.example>",
		"a@b.example\n", "\r\na@b.example", "a@b.example\x00", "a@b.example.", "\u202ea@b.example",
		"mailto:a%0d%0aBcc:v@b.example", "mailto:a%40evil.example%3E@b.example", `"a@b.example"`,
		strings.Repeat(" ", 1<<20) + "a@b.example",
	} {
		if got, _, err := CleanAddress(in); err == nil {
			t.Errorf("CleanAddress(%.60q) = %q, want a refusal", in, got)
		}
	}
}

func TestSuggestDomain(t *testing.T) {
	t.Parallel()
	own := []string{"Nordlys.fi", "acme-corporation.example"}
	for in, want := range map[string]string{
		"gmial.com": "gmail.com", "gmai.com": "gmail.com", "gmaill.com": "gmail.com", "gnail.com": "gmail.com",
		"gmail.co": "gmail.com", "gmail.cm": "gmail.com", "gmail.con": "gmail.com", "gmail.fi": "gmail.com",
		"hotmial.com": "hotmail.com", "hotmail.cmo": "hotmail.com", "outlok.com": "outlook.com", "outlook.con": "outlook.com",
		"iclould.com": "icloud.com", "icloud.fi": "icloud.com", "yahooo.com": "yahoo.com", "protonmial.com": "protonmail.com",
		"luukku.con": "luukku.com", "kolunbus.fi": "kolumbus.fi", "saunalathi.fi": "saunalahti.fi",
		"nordlys.fo": "nordlys.fi", "nordly.fi": "nordlys.fi", "nrodlys.fi": "nordlys.fi",
		"acme-coroporation.example": "acme-corporation.example",
		"somebody.con":              "somebody.com", "somebody.ogr": "somebody.org",

		// Domains of their own, however near.
		"gmail.com": "", "nordlys.fi": "", "mail.nordlys.fi": "", "ymail.com": "", "email.com": "", "mail.com": "",
		"gmx.com": "", "gmx.de": "", "aol.com": "", "web.de": "", "wes.de": "", "live.se": "", "outlook.fi": "",
		"hotmail.be": "", "yahoo.pl": "", "nordlys.no": "", "nordea.fi": "", "example.org": "", "qq.fi": "", "me.fi": "",
		"telia.fi": "", "company.co": "", "firma.fo": "",
	} {
		if got := suggestDomain(in, own); got != want {
			t.Errorf("suggestDomain(%q) = %q, want %q", in, got, want)
		}
	}
	for _, known := range wellKnownDomains {
		if got := suggestDomain(known, nil); got != "" {
			t.Errorf("%s is well known, but %s is suggested", known, got)
		}
		if _, err := ParseAddress("a@" + known); err != nil {
			t.Errorf("%s can't be a domain: %v", known, err)
		}
	}
}

func TestTypoIsSuggestedNeverApplied(t *testing.T) {
	t.Parallel()
	a, warnings, err := CleanAddress("kari@gmial.com ")
	if a != "kari@gmial.com" || err != nil {
		t.Fatalf("got %q, %v", a, err)
	}
	if len(warnings) != 2 || warnings[1].Code != WarnAddressTypo || warnings[1].Suggestion != "kari@gmail.com" {
		t.Errorf("warnings: %+v", warnings)
	}
}

func TestSlips(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want uint8
	}{
		{"", "", 0}, {"a", "a", 0}, {"ab", "ba", 1}, {"abc", "abd", 1}, {"abc", "ab", 1}, {"abc", "abcd", 1},
		{"abcd", "badc", 2}, {"abc", "cab", 2}, {"abc", "xyz", 3}, {"abcdef", "abc", 3}, {"ca", "abc", 3},
	} {
		if got := slips(tt.a, tt.b); got != tt.want {
			t.Errorf("slips(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := slips(tt.b, tt.a); got != tt.want {
			t.Errorf("slips(%q, %q) = %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}

// What comes out of the parser can stand in an SMTP command and in a header as it is.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"kari@nordlys.fi", " <mailto:a@b.example>;", "a@äö.fi", `"a"@b.c`, "a@xn--4ca0b.fi", "a@例え。テスト",
		"a@b> NOTIFY=NEVER <x", "\u202aa@b.example\u202c", "a@ab--cd.example", "a@نامه\u200cای.com", "a\r\n@b.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, _, err := CleanAddress(s); err == nil {
			checkAddressLaws(t, a)
			if again, warnings, err := cleanAddress(string(a), nil); again != a || err != nil || len(warnings) > 0 && warnings[0].Code == WarnAddressTrimmed {
				t.Errorf("%q is not clean: %q, %v, %v", a, again, warnings, err)
			}
		} else if utf8.ValidString(s) && len(s) > 12 && strings.Contains(err.Error(), s) {
			t.Errorf("the error repeats the address: %v", err)
		}
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		checkAddressLaws(t, a)
		if cleaned, _, err := CleanAddress(s); cleaned != a && err == nil {
			t.Errorf("cleaning turns the good address %q into %q", a, cleaned)
		}
	})
}

func checkAddressLaws(t *testing.T, a Address) {
	t.Helper()
	if again, err := ParseAddress(string(a)); again != a || err != nil {
		t.Errorf("%q parses to %q, %v", a, again, err)
	}
	if len(a) > 254 || len(a.Local()) > 64 || len(a.Domain()) > 253 || a.Local() == "" {
		t.Errorf("%q breaks a cap", a)
	}
	for _, c := range string(a) {
		if c > unicode.MaxASCII || c <= ' ' || strings.ContainsRune(`<>()[]\,;:"`, c) {
			t.Errorf("%q holds %q", a, c)
		}
	}
	if d := a.Domain(); d != strings.ToLower(d) || strings.HasPrefix(d, ".") || strings.HasSuffix(d, ".") || !strings.Contains(d, ".") {
		t.Errorf("%q is no domain", d)
	}
	if strings.Count(string(a), "@") != 1 {
		t.Errorf("%q has not one @", a)
	}
}
