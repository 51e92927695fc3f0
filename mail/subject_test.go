package mail

import (
	"strings"
	"testing"
)

func TestSubjectToken(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"4711": "4711", "Nordlys Oy": "Nordlys=20Oy", "": "=", "a.b": "a=2Eb", "*": "=2A", ">": "=3E", "å=%": "=C3=A5=3D=25",
	} {
		if got := SubjectToken(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzSubjectToken(f *testing.F) {
	f.Add("4711 Oy")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		token := SubjectToken(s)
		if token == "" || strings.ContainsAny(token, ".*> \t\r\n\x00") {
			t.Errorf("%q became %q, which is no token", s, token)
		}
		if back := FromSubjectToken(token); back != s {
			t.Errorf("%q became %q and then %q", s, token, back)
		}
	})
}
