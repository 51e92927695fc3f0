package intake

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

func hashOf(t *testing.T, body string) [32]byte {
	t.Helper()
	r, err := Decode([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	h, err := requestHash([]byte("k"), &r, mail.Address(r.To))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHashIsOfTheMeaning(t *testing.T) {
	t.Parallel()
	const base = `{"kind":"pin","to":"a@b.example","data":{"code":"1","who":{"x":1,"y":2}},"secrets":["a","b"],"tags":["s","t"],"expires_at":"2026-11-26T13:00:00Z"}`
	want := hashOf(t, base)
	for name, same := range map[string]string{
		"order and blanks": ` { "expires_at":"2026-11-26T13:00:00Z","tags":["s","t"],"secrets":["a","b"],"data":{"who":{"y":2,"x":1},"code":"1"},"to":"a@b.example","kind":"pin"}`,
		"escapes":          `{"kind":"p\u0069n","to":"a@b.example","data":{"code":"\u0031","who":{"x":1,"y":2}},"secrets":["a","b"],"tags":["s","t"],"expires_at":"2026-11-26T13:00:00Z"}`,
		"sets":             `{"kind":"pin","to":"a@b.example","data":{"code":"1","who":{"x":1,"y":2}},"secrets":["b","a","b"],"tags":["t","s"],"expires_at":"2026-11-26T13:00:00Z"}`,
		"time zone":        `{"kind":"pin","to":"a@b.example","data":{"code":"1","who":{"x":1,"y":2}},"secrets":["a","b"],"tags":["s","t"],"expires_at":"2026-11-26T15:00:00.000+02:00"}`,
		"null":             `{"kind":"pin","to":"a@b.example","to_name":null,"metadata":{},"data":{"code":"1","who":{"x":1,"y":2}},"secrets":["a","b"],"tags":["s","t"],"expires_at":"2026-11-26T13:00:00Z"}`,
		"the key itself":   `{"idempotency_key":"k","kind":"pin","to":"a@b.example","data":{"code":"1","who":{"x":1,"y":2}},"secrets":["a","b"],"tags":["s","t"],"expires_at":"2026-11-26T13:00:00Z"}`,
	} {
		if hashOf(t, same) != want {
			t.Errorf("%s: another hash", name)
		}
	}
	// Each of these differs from all others.
	seen := map[[32]byte]string{want: base}
	for _, other := range []string{
		`{"kind":"pin","to":"a@b.example"}`,
		`{"kind":"reset","to":"a@b.example"}`,
		`{"kind":"pin","to":"A@b.example"}`,
		`{"kind":"pin","to":"a@b.example","tenant":"1"}`,
		`{"kind":"pin","to":"a@b.example","tenant_name":"1"}`,
		`{"kind":"pin","to":"a@b.example","to_name":"1"}`,
		`{"kind":"pin","to":"a@b.example","person_id":"1"}`,
		`{"kind":"pin","to":"a@b.example","locale":"1"}`,
		`{"kind":"pin","to":"a@b.example","template":"1"}`,
		`{"kind":"pin","to":"a@b.example","from":"1"}`,
		`{"kind":"pin","to":"a@b.example","reply_to":"1"}`,
		`{"kind":"pin","to":"a@b.example","supersede_key":"1"}`,
		`{"kind":"pin","to":"a@b.example","resend_of":"1"}`,
		`{"kind":"pin","to":"a@b.example","metadata":{"1":""}}`,
		`{"kind":"pin","to":"a@b.example","metadata":{"":"1"}}`,
		`{"kind":"pin","to":"a@b.example","tags":["1"]}`,
		`{"kind":"pin","to":"a@b.example","tags":["1","2"]}`,
		`{"kind":"pin","to":"a@b.example","tags":["1,2"]}`,
		`{"kind":"pin","to":"a@b.example","secrets":["1"]}`,
		`{"kind":"pin","to":"a@b.example","data":{"code":"1"}}`,
		`{"kind":"pin","to":"a@b.example","data":{"code":1}}`,
		`{"kind":"pin","to":"a@b.example","data":{"code":1.0}}`,
		`{"kind":"pin","to":"a@b.example","data":{"code":true}}`,
		`{"kind":"pin","to":"a@b.example","data":{"code":null}}`,
		`{"kind":"pin","to":"a@b.example","data":{"code":["1"]}}`,
		`{"kind":"pin","to":"a@b.example","data":{"code":{"1":""}}}`,
		`{"kind":"pin","to":"a@b.example","data":{"Code":"1"}}`,
		`{"kind":"pin","to":"a@b.example","expires_at":"2026-11-26T13:00:00Z"}`,
		`{"kind":"pin","to":"a@b.example","expires_at":"2026-11-26T13:00:00.001Z"}`,
	} {
		h := hashOf(t, other)
		if was, ok := seen[h]; ok {
			t.Errorf("%s\nand %s\nhave one hash", was, other)
		}
		seen[h] = other
	}
}

// A Go caller's request and the same one over the wire are one.
func TestHashOfGoValues(t *testing.T) {
	t.Parallel()
	r := mail.Request{Kind: "pin", To: "a@b.example", Data: map[string]any{"n": 1, "s": []string{"x"}}}
	got, err := requestHash([]byte("k"), &r, "a@b.example")
	if err != nil || got != hashOf(t, `{"kind":"pin","to":"a@b.example","data":{"s":["x"],"n":1}}`) {
		t.Errorf("two hashes, %v", err)
	}
	r.Data["f"] = func() {}
	if _, err := requestHash([]byte("k"), &r, "a@b.example"); err == nil {
		t.Error("data that JSON can't say has a hash")
	}
}

// Who reads the store must not be able to try all codes against the hash.
func TestHashNeedsTheKey(t *testing.T) {
	t.Parallel()
	r := mail.Request{Kind: "pin", To: "a@b.example", Data: map[string]any{"code": "123456"}}
	a, _ := requestHash([]byte("one"), &r, "a@b.example")
	b, _ := requestHash([]byte("two"), &r, "a@b.example")
	text, _ := json.Marshal(r)
	if bare := sha256.Sum256(text); a == b || a == bare || bytes.Equal(a[:], make([]byte, 32)) {
		t.Error("the hash does not depend on the key")
	}
	if _, err := New(Options{Prepare: prepare, Suppressed: (&Intake{}).opts.Suppressed}); err == nil {
		t.Error("an Intake without a key")
	}
}
