package deliver

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/deliverd/deliverd/mail"
)

func TestReadReply(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, in, want string
	}{
		{"plain", "250 ok\r\n", "250 ok"},
		{"A15 bare", "250\r\n", "250"},
		{"A15 bare with a blank", "354 \r\n", "354"},
		{"A15 bare in the middle", "250-\r\n250\r\n", "250"},
		{"A16 LF alone", "250-a\n250 b\n", "250 a b"},
		{"several lines", "220-a\r\n220-b\r\n220 c\r\n", "220 a b c"},
		{"enhanced", "550 5.1.1 no\r\n", "550 5.1.1 no"},
		{"enhanced on every line", "550-5.1.1 The account\r\n550-5.1.1 does not\r\n550 5.1.1 exist\r\n", "550 5.1.1 The account does not exist"},
		{"enhanced on a later line", "550-Sorry\r\n550 5.1.1 no\r\n", "550 5.1.1 Sorry no"},
		{"A22 with #", "550 #5.1.0 Address rejected\r\n", "550 5.1.0 Address rejected"},
		{"A22 alone", "550 5.1.1\r\n", "550 5.1.1"},
		{"A21 of another class", "450 5.7.1 hm\r\n", "450 5.7.1 hm"},
		{"A21 absurd", "550 999.-1.+3 hm\r\n", "550 999.-1.+3 hm"},
		{"A20 Latin-1", "550 caf\xe9\r\n", `550 caf\xe9`},
		{"A20 ESC and NUL", "550 \x1b[0m\x00\r\n", `550 \x1b[0m\x00`},
		{"A20 bidi and zero width", "550 a\u202eb\u200bc\r\n", `550 a\xe2\x80\xaeb\xe2\x80\x8bc`},
		{"a CR within", "550 a\rb\r\n", `550 a\x0db`},
		{"tabs", "550 a\tb\r\n", "550 a b"},
		{"real UTF-8", "550 ei käyttäjää 不明\r\n", "550 ei käyttäjää 不明"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(row.in), iotest.OneByteReader(strings.NewReader(row.in))} {
				got, err := newReplyReader(r).read()
				if err != nil {
					t.Fatal(err)
				}
				if s := strings.TrimSpace(got.said().String()); s != row.want {
					t.Errorf("got %q, want %q", s, row.want)
				}
			}
		})
	}
}

func TestReadReplyRefuses(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, in, want string
	}{
		{"A05 SSH", "SSH-2.0-OpenSSH\r\n", "got: SSH-2.0"},
		{"A05 a TLS alert", "\x15\x03\x01\x00\x02\x02\x46\n", `got: \x15\x03`},
		{"an empty line", "\r\n", "got"},
		{"two digits", "25\r\n", "got"},
		{"1xx", "150 wait\r\n", "got"},
		{"6xx", "650 what\r\n", "got"},
		{"glued", "2500 ok\r\n", "got"},
		{"a tab for a blank", "250\tok\r\n", "got"},
		{"A17 two codes", "250-a\r\n550 b\r\n", "two codes, 250 and 550"},
		{"A11 a long line", "250 " + strings.Repeat("x", 3000) + "\r\n", "2 KiB"},
		{"A11 a longer line", "250 " + strings.Repeat("x", 1_000_000), "2 KiB"},
		{"A10 many lines", strings.Repeat("250-\r\n", 513) + "250 \r\n", "without end"},
		{"A10 many bytes", strings.Repeat("250-"+strings.Repeat("x", 1000)+"\r\n", 70) + "250 \r\n", "without end"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := newReplyReader(strings.NewReader(row.in)).read()
			if p, ok := errors.AsType[*errProtocol](err); !ok || !strings.Contains(p.detail, row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
	for _, in := range []string{"2", "250", "250 2.0.0 que", "250-a\r\n", "250-a\r\n250 b"} {
		if _, err := newReplyReader(strings.NewReader(in)).read(); !errors.Is(err, errTruncated) {
			t.Errorf("A39 %q: got %v", in, err)
		}
	}
	if _, err := newReplyReader(strings.NewReader("")).read(); err != io.EOF {
		t.Errorf("nothing: got %v", err)
	}
	stalled := io.MultiReader(strings.NewReader("250 2.0"), iotest.ErrReader(os.ErrDeadlineExceeded))
	if _, err := newReplyReader(stalled).read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("A04 a part of a line and a timeout: got %v", err)
	}
}

// Replies that came together are read one at a time, and what is left is seen.
func TestBuffered(t *testing.T) {
	t.Parallel()
	r := newReplyReader(strings.NewReader("250 a\n550 b\r\n"))
	for i, want := range []int{250, 550} {
		got, err := r.read()
		if err != nil || got.code != want {
			t.Fatalf("got %+v, %v", got, err)
		}
		if r.buffered() != (i == 0) {
			t.Errorf("after reply %d buffered is %v", i, r.buffered())
		}
	}
}

// The laws of the reader: it ends, in bounds; what it returns was ended by LF; what
// is kept is clean.
func FuzzReadReply(f *testing.F) {
	for _, s := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.1.1 no\r\n", "250", "\x00", "550-5.1.1 \xff\xfe\n550 #5.1.1 \u202e\n",
		strings.Repeat("250-x\n", 600), "421 " + strings.Repeat("é", 1000) + "\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		rest := strings.NewReader(string(in))
		r := newReplyReader(rest)
		for range 1000 {
			got, err := r.read()
			if err != nil {
				return
			}
			consumed := len(in) - rest.Len() - r.br.Buffered()
			if consumed < 4 || in[consumed-1] != '\n' {
				t.Fatalf("a reply was taken from %q, which no line feed ends", in[:consumed])
			}
			if got.code < 200 || got.code > 599 || len(got.lines) > maxReplyBytes {
				t.Fatalf("got %d and %d bytes", got.code, len(got.lines))
			}
			checkSaid(t, got.said())
		}
	})
}

func checkSaid(t *testing.T, r mail.Reply) {
	t.Helper()
	if len(r.Text) > maxReplyText || !utf8.ValidString(r.Text) {
		t.Fatalf("the text is %d bytes, valid: %v", len(r.Text), utf8.ValidString(r.Text))
	}
	for _, c := range r.Text {
		if !unicode.IsGraphic(c) {
			t.Fatalf("%q is in the text", c)
		}
	}
	if r.Enhanced != (mail.EnhancedCode{}) && r.Enhanced[0] != r.Code/100 {
		t.Fatalf("%d has the enhanced code %v", r.Code, r.Enhanced)
	}
}

func TestQueueID(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Ok: queued as 4VNkGp2Zwz9s":    "4VNkGp2Zwz9s",
		"OK id=1rZq3X-0004Jd-1x":        "1rZq3X-0004Jd-1x",
		"OK id=1rZq3X-000000004Jd-1x7c": "1rZq3X-000000004Jd-1x7c",
		"<20260101.1@acme.example> [InternalId=35433480192345, Hostname=AM0PR01MB1234.eurprd01.prod.exchangelabs.com] 12345 bytes in 0.2, 60 KB/sec Queued mail for delivery": "20260101.1@acme.example",
		"OK  1700000000 a1b2c3-20020a17090a12si123456ejc.45 - gsmtp": "a1b2c3-20020a17090a12si123456ejc.45",
		"x8AB12cd012345 Message accepted for delivery":               "x8AB12cd012345",
		"9f1c2d3e Message accepted for delivery":                     "9f1c2d3e",
		"Ok queued 0a1b2c3d4e":                                       "0a1b2c3d4e",
		"ok 1700000000 qp 12345":                                     "",
		"OK":                                                         "",
		"":                                                           "",
		"Message accepted for delivery":                              "",
	} {
		if got := queueID(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
