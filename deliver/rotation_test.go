package deliver

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// TestRotation plays a rotation from its beginning to its end.
func TestRotation(t *testing.T) {
	const life = 30 * 24 * time.Hour
	start := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	r := Rotation{Generations: []Generation{{Phase: PhaseActive, Keys: []RotatingKey{{Selector: "a"}, {Selector: "ae"}}}}}
	if !r.Begin([]RotatingKey{{Selector: "b"}, {Selector: "be"}}, start) {
		t.Fatal("no next generation")
	}
	if r.Begin([]RotatingKey{{Selector: "c"}}, start) {
		t.Fatal("a second next generation")
	}
	right, gone, neither := Sighting{Right: true}, Sighting{Gone: true}, Sighting{}
	for _, step := range []struct {
		after time.Duration
		what  string
		seen  map[string]Sighting
		want  string // generations, then news
	}{
		{0, "nothing published", map[string]Sighting{"b": gone}, "a:active b:next |"},
		{time.Minute, "one server has it", map[string]Sighting{"b": neither}, "a:active b:next |"},
		{2 * time.Minute, "all have it", map[string]Sighting{"b": right}, "a:active b:next |"},
		{3 * time.Minute, "too soon", map[string]Sighting{"b": right}, "a:active b:next |"},
		{4 * time.Minute, "one lost it: from the start", map[string]Sighting{"b": neither}, "a:active b:next |"},
		{5 * time.Minute, "all again", map[string]Sighting{"b": right}, "a:active b:next |"},
		{9 * time.Minute, "no answer changes nothing", nil, "a:active b:next |"},
		{10 * time.Minute, "settled", map[string]Sighting{"b": right}, "a:old b:active | a:old b:active"},
		{life, "what the old one signed may still wait", map[string]Sighting{"a": gone}, "a:old b:active |"},
		{life + 10*time.Minute, "nothing waits", map[string]Sighting{"a": right}, "a:revoke b:active | a:revoke"},
		{life + time.Hour, "still published", map[string]Sighting{"a": right}, "a:revoke b:active |"},
		{life + 2*time.Hour, "no answer", nil, "a:revoke b:active |"},
		{life + 3*time.Hour, "revoked", map[string]Sighting{"a": gone}, "b:active | a:dropped"},
	} {
		news := r.Advance(start.Add(step.after), life, step.seen)
		if got := told(r, news); got != step.want {
			t.Errorf("%s, %s: %q, want %q", step.after, step.what, got, step.want)
		}
	}
}

func told(r Rotation, news []News) string {
	var words []string
	for _, g := range r.Generations {
		words = append(words, g.Name()+":"+string(g.Phase))
	}
	words = append(words, "|")
	for _, n := range news {
		phase := string(n.Generation.Phase)
		if n.Dropped {
			phase = "dropped"
		}
		words = append(words, n.Generation.Name()+":"+phase)
	}
	return strings.Join(words, " ")
}

// TestRotationRetire: a key that leaked signs nothing more, from that moment; the next
// one need not settle while mail is held for it; and the leaked one is remembered for
// as long as something that it signed may wait.
func TestRotationRetire(t *testing.T) {
	const life = 24 * time.Hour
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	r := Rotation{Generations: []Generation{{Phase: PhaseActive, Keys: []RotatingKey{{Selector: "a"}, {Selector: "ae"}}}}}
	if r.Retire("nosuch", now) {
		t.Error("retired a selector that nobody has")
	}
	if !r.Retire("ae", now) || r.Active() != nil || !r.Generations[0].Leaked {
		t.Fatalf("after Retire: %+v", r)
	}
	r.Begin([]RotatingKey{{Selector: "b"}}, now)
	r.Advance(now, life, map[string]Sighting{"b": {Right: true}, "a": {Gone: true}})
	if a := r.Active(); a == nil || a.Name() != "b" || !r.Has("a") {
		t.Fatalf("the next key is not used at once, or the leaked one is forgotten: %+v", r)
	}
	r.Advance(now.Add(life), life, map[string]Sighting{"a": {Gone: true}})
	if r.Has("a") {
		t.Error("the leaked key is never forgotten")
	}
}

// TestRenew: a message that waits with the signature of a leaked key gets a new one,
// over the same header and body; any other message keeps its bytes.
func TestRenew(t *testing.T) {
	rsaPEM, edPEM := testKeys()
	old, fresh := parseKey(t, "acme.example", "old", edPEM), parseKey(t, "acme.example", "new", rsaPEM)
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	raw := []byte("From: Acme <no-reply@acme.example>\r\nSubject: a\r\n\tfolded subject\r\n\r\nbody\r\n")
	before, err := NewSigner(old)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := before.Sign(raw, "acme.example", at)
	if err != nil {
		t.Fatal(err)
	}
	after, err := NewSigner(fresh)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := after.Renew(signed, "acme.example", at); err != nil || !bytes.Equal(same, signed) {
		t.Errorf("a message signed with an old, sound key was changed: %v\n%s", err, same)
	}
	after.Distrust("ACME.example", "old")
	renewed, err := after.Renew(signed, "acme.example", at)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(renewed, raw) || bytes.Contains(renewed, []byte("s=old;")) {
		t.Fatalf("not the same message with a new signature:\n%s", renewed)
	}
	verified, err := dkim.VerifyWithOptions(bytes.NewReader(renewed), &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) { return []string{fresh.Record()}, nil },
	})
	if err != nil || len(verified) != 1 || verified[0].Err != nil {
		t.Errorf("the new signature does not verify: %v, %+v", err, verified)
	}
	if again, err := after.Renew(renewed, "acme.example", at); err != nil || !slices.Equal(again, renewed) {
		t.Error("renewed again, though it is sound")
	}
}
