package bounces

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func newReturnPath(t testing.TB, key byte) *ReturnPath {
	t.Helper()
	p, err := NewReturnPath(bytes.Repeat([]byte{key}, 32), "Bounce.Example.com")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReturnPath(t *testing.T) {
	t.Parallel()
	p := newReturnPath(t, 1)
	id := mail.NewID(time.Date(2026, 11, 21, 9, 14, 7, 0, time.UTC))
	address := p.Address(id)
	local, domain, _ := strings.Cut(address, "@")
	if domain != "bounce.example.com" || len(local) > 64 || address != strings.ToLower(address) {
		t.Errorf("address %q", address)
	}
	if address != p.Address(id) || address != newReturnPath(t, 1).Address(id) {
		t.Error("the address of a message is not stable")
	}
	for _, l := range []string{local, strings.ToUpper(local)} {
		if got, ok := p.Parse(l); !ok || got != id {
			t.Errorf("Parse(%q) = %q, %v", l, got, ok)
		}
	}
	if p.Address("msg_not-an-id") != "" {
		t.Error("an invalid id has an address")
	}
}

// No token but the right one names a message.
func TestReturnPathForged(t *testing.T) {
	t.Parallel()
	p := newReturnPath(t, 1)
	id := mail.NewID(time.Date(2026, 11, 21, 9, 14, 7, 0, time.UTC))
	local, _, _ := strings.Cut(p.Address(id), "@")
	forged := []string{"", "bounce+", "bounce", local + "a", local[:len(local)-1], "x" + local, "bounce-" + local[7:],
		local[:20] + "=" + local[21:], strings.Repeat("bounce+", 10), "bounce+" + strings.Repeat("a", 45), local + "\n"}
	other, _, _ := strings.Cut(newReturnPath(t, 2).Address(id), "@")
	forged = append(forged, other)
	for i := range local {
		c := byte('a')
		if local[i] == c {
			c = 'b'
		}
		forged = append(forged, local[:i]+string(c)+local[i+1:])
	}
	for _, l := range forged {
		if got, ok := p.Parse(l); ok {
			t.Errorf("Parse(%q) names %q", l, got)
		}
	}
}

func TestReturnPathFind(t *testing.T) {
	t.Parallel()
	p := newReturnPath(t, 1)
	id := testID()
	mine, other := p.Address(id), newReturnPath(t, 2).Address(id)
	tests := []struct {
		name, raw string
		want      mail.ID
	}{
		{"in a field", "To: <" + mine + ">\n\nhello", id},
		{"in capitals, behind others", "1+1 bounce+x@y " + other + " " + strings.ToUpper(mine) + ".", id},
		{"of another key", "To: " + other, ""},
		{"of another domain", strings.Replace(mine, "@bounce.", "@other.", 1), ""},
		{"cut off", mine[:30], ""},
		{"none", "no + here bounce+", ""},
		{"behind too many", strings.Repeat(other+" ", 50) + mine, ""},
	}
	for _, test := range tests {
		if got, ok := p.Find([]byte(test.raw)); got != test.want || ok != (test.want != "") {
			t.Errorf("%s: %q, %v", test.name, got, ok)
		}
	}
}

func TestNewReturnPathRefuses(t *testing.T) {
	t.Parallel()
	if _, err := NewReturnPath(make([]byte, 15), "b.example"); err == nil {
		t.Error("took a key of 15 bytes")
	}
	if _, err := NewReturnPath(make([]byte, 16), ""); err == nil {
		t.Error("took no domain")
	}
}

func FuzzReturnPath(f *testing.F) {
	p := newReturnPath(f, 1)
	f.Add("bounce+aaaaaaaa")
	f.Fuzz(func(t *testing.T, local string) {
		if id, ok := p.Parse(local); ok && !strings.EqualFold(p.Address(id), local+"@bounce.example.com") {
			t.Errorf("Parse(%q) names %q, whose address is %q", local, id, p.Address(id))
		}
	})
}
