package mail

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestIsSevenBit(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]bool{
		"": true, "a\r\n": true, "a": true, "\t\x7f\r\n\r\n": true,
		strings.Repeat("x", 998) + "\r\n": true,
		strings.Repeat("x", 999) + "\r\n": false, "a\nb": false, "a\rb": false, "a\r\r\n": false,
		"\x00": false, "\x80": false,
	} {
		if got := isSevenBit([]byte(raw)); got != want {
			t.Errorf("%.20q: %v", raw, got)
		}
	}
}

// A mail goes along only where deliverd itself says so, and within what the queue can
// hold.
func TestPrepareAttached(t *testing.T) {
	t.Parallel()
	p := newPreparer(t)
	var r Request
	if err := json.Unmarshal([]byte(`{"kind": "pin", "to": "kari@nordlys.example", "data": {"pin": "493817"}, "Attached": "eA==", "attached": "eA=="}`), &r); err != nil {
		t.Fatal(err)
	}
	m, _, err := p.Prepare(r)
	if raw, attachedErr := m.attached(); err != nil || raw != nil || attachedErr != nil {
		t.Errorf("a request attached %q, %v, %v", raw, attachedErr, err)
	}
	r.Data[attachedName] = "eA=="
	if _, _, err := p.Prepare(r); err == nil {
		t.Error("data may have the attached mail's name")
	}
	delete(r.Data, attachedName)

	r.Attached = bytes.Repeat([]byte("x\xff\r\n"), MaxAttached/4)
	if m, _, err = p.Prepare(r); err != nil {
		t.Fatal(err)
	}
	raw, err := p.Templates.Render(&m)
	sealed, jsonErr := json.Marshal(m.Data)
	if err != nil || jsonErr != nil || len(raw) > 1<<20-32<<10 || len(sealed) > 1<<20-32<<10 {
		t.Errorf("%d and %d bytes are too near to what a NATS server takes; %v, %v", len(raw), len(sealed), err, jsonErr)
	}
	r.Attached = append(r.Attached, "more"...)
	if _, _, err := p.Prepare(r); err == nil || err.(*Problem).Type != ProblemTooLarge {
		t.Errorf("one that is too large: %v", err)
	}
}
