package mail

import (
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"
)

// The second wall: no value, wherever it comes from, ends a header early.
func TestHeadersHoldNoRawLineBreak(t *testing.T) {
	t.Parallel()
	const evil = "x\r\nBcc: v@x.example\n\rEvil: y\u2028\u0085\x00z"
	for name, got := range map[string][]byte{
		"header":  appendHeader(nil, "Message-ID", evil),
		"text":    appendText(nil, "Subject", evil),
		"phrase":  appendMailbox(nil, "To", evil, "a@b.example"),
		"address": appendMailbox(nil, "To", "", evil),
		"both":    appendMailbox(nil, "To", evil, evil),
		"quoted":  appendMailbox(nil, "To", `x," `+evil, "a@b.example"),
	} {
		m, err := mail.ReadMessage(strings.NewReader(string(got) + "\r\n"))
		if err != nil || len(m.Header) != 1 {
			t.Errorf("%s: %q has the headers %v, %v", name, got, m, err)
		}
		checkWire(t, got)
	}
}

func TestTextHeaders(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Plain words": "Subject: Plain words\r\n",
		"004829 is your Acme PIN, and this goes on for so long that it has to be folded at a space": "Subject: 004829 is your Acme PIN, and this goes on for so long that it has\r\n to be folded at a space\r\n",
		"Päivä":             "Subject: =?utf-8?q?P=C3=A4iv=C3=A4?=\r\n",
		"日本語":               "Subject: =?utf-8?b?5pel5pys6Kqe?=\r\n",
		"=?utf-8?q?x?=":     "Subject: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=\r\n", // said, not done
		" two  spaces ":     "Subject: =?utf-8?q?_two__spaces_?=\r\n",
		"a_b = c? x\ty":     "Subject: =?utf-8?q?a=5Fb_=3D_c=3F_x=09y?=\r\n",
		"\xffbad":           "Subject: =?utf-8?q?=EF=BF=BDbad?=\r\n",
		"dots. (and) <all>": "Subject: dots. (and) <all>\r\n",
	} {
		if got := string(appendText(nil, "Subject", in)); got != want {
			t.Errorf("%q became\n%q, want\n%q", in, got, want)
		}
	}
}

func TestLongTextComesBackWhole(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		strings.Repeat("ä", 150), strings.Repeat("日本", 60), strings.Repeat("x", 300), strings.Repeat("🎉 ", 50) + "!",
		strings.Repeat("word ", 60) + "end", strings.Repeat("long", 18) + " " + strings.Repeat("er", 30),
	} {
		raw := appendText(nil, "Subject", in)
		checkWire(t, raw)
		for line := range strings.SplitSeq(strings.TrimSuffix(string(raw), "\r\n"), "\r\n") {
			if len(line) > 76 {
				t.Errorf("a line of %d characters: %q", len(line), line)
			}
		}
		m, err := mail.ReadMessage(strings.NewReader(string(raw) + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); got != in || err != nil {
			t.Errorf("%q came back as %q, %v", in, got, err)
		}
	}
}

func TestMailboxHeaders(t *testing.T) {
	t.Parallel()
	long := Address(strings.Repeat("l", 64) + "@b.example")
	for _, tt := range []struct {
		name string
		a    Address
		want string
	}{
		{"", "a@b.example", "To: a@b.example\r\n"},
		{"Kari Nordmann", "a@b.example", "To: Kari Nordmann <a@b.example>\r\n"},
		{"Nordmann, Kari", "a@b.example", "To: \"Nordmann, Kari\" <a@b.example>\r\n"},
		{`a "b" \c`, "a@b.example", `To: "a \"b\" \\c" <a@b.example>` + "\r\n"},
		{"K. Nordmann", "a@b.example", "To: \"K. Nordmann\" <a@b.example>\r\n"},
		{"Käri", "a@b.example", "To: =?utf-8?q?K=C3=A4ri?= <a@b.example>\r\n"},
		{"Kari Nordmann", long, "To: Kari Nordmann\r\n <" + string(long) + ">\r\n"},
	} {
		got := string(appendMailbox(nil, "To", tt.name, tt.a))
		if got != tt.want {
			t.Errorf("%q became\n%q, want\n%q", tt.name, got, tt.want)
		}
		back, err := mail.ParseAddress(strings.TrimPrefix(strings.ReplaceAll(strings.TrimSpace(got), "\r\n", ""), "To: "))
		if err != nil || back.Name != tt.name || back.Address != string(tt.a) {
			t.Errorf("%q comes back as %v, %v", got, back, err)
		}
	}
}

func TestParseMailbox(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"a@b.example":                  {"", "a@b.example"},
		"<a@b.example>":                {"", "a@b.example"},
		"Acme <a@B.Example>":           {"Acme", "a@b.example"},
		" Acme Oy <a@b.example> ":      {"Acme Oy", "a@b.example"},
		`"Acme, Oy" <a@b.example>`:     {"Acme, Oy", "a@b.example"},
		`"a \"b\" \\c" <a@b.example>`:  {`a "b" \c`, "a@b.example"},
		"Bücher & Æther <a@b.example>": {"Bücher & Æther", "a@b.example"},
		"Acme <a@äö.fi>":               {"Acme", "a@xn--4ca0b.fi"},
	} {
		name, a, err := ParseMailbox(in)
		if name != want[0] || string(a) != want[1] || err != nil {
			t.Errorf("ParseMailbox(%q) = %q, %q, %v", in, name, a, err)
		}
		if name2, a2, err := ParseMailbox(joinMailbox(name, a)); name2 != name || a2 != a || err != nil {
			t.Errorf("%q is kept as %q, which is %q, %q, %v", in, joinMailbox(name, a), name2, a2, err)
		}
	}
	for _, in := range []string{"", "Acme", "Acme <>", "Acme <a@b.example", "a@b.example>", "Acme, Oy <a@b.example>", "a@b.example, c@d.example",
		"x@y.example <a@b.example>", "A <a@b.example> <c@d.example>", "Acme (x) <a@b.example>", "A\r\nBcc: x <a@b.example>", "Acme a@b.example",
		"A\u202e <a@b.example>", strings.Repeat("x", 201) + " <a@b.example>", strings.Repeat("x", 1<<20)} {
		if name, a, err := ParseMailbox(in); err == nil {
			t.Errorf("ParseMailbox(%.60q) = %q, %q", in, name, a)
		}
	}
}

func TestQuotedPrintable(t *testing.T) {
	t.Parallel()
	x := strings.Repeat("x", 80)
	for in, want := range map[string]string{
		"":                        "",
		"plain":                   "plain\r\n",
		"a\n\nb\n":                "a\r\n\r\nb\r\n",
		".\n..\nFrom a\nFromage":  "=2E\r\n=2E.\r\n=46rom a\r\nFromage\r\n",
		"a = b":                   "a =3D b\r\n",
		"blank \ntab\t\n\n ":      "blank=20\r\ntab=09\r\n\r\n=20\r\n",
		"bare\rCR\x00\x1b\x7fend": "bareCRend\r\n",
		x[:76]:                    x[:76] + "\r\n",
		x[:77]:                    x[:75] + "=\r\nxx\r\n",
		x[:75] + ".":              x[:75] + ".\r\n",
		x[:75] + ".x":             x[:75] + "=\r\n=2Ex\r\n",
		x[:75] + "From x":         x[:75] + "=\r\n=46rom x\r\n",
		x[:74] + " x":             x[:74] + " x\r\n",
		x[:74] + "  ":             x[:74] + " =\r\n=20\r\n",
		x[:70] + "ä":              x[:70] + "=C3=A4\r\n",
		x[:71] + "ä":              x[:71] + "=\r\n=C3=A4\r\n", // not cut in two
		x[:75] + "\x00":           x[:75] + "\r\n",
	} {
		got := string(appendQuotedPrintable(nil, in))
		if got != want {
			t.Errorf("%q became\n%q, want\n%q", in, got, want)
		}
		back, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(got)))
		if want := decodable(in); err != nil || strings.TrimSuffix(strings.ReplaceAll(string(back), "\r\n", "\n"), "\n") != strings.TrimSuffix(want, "\n") {
			t.Errorf("%q comes back as %q, %v", in, back, err)
		}
	}
}
