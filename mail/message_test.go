package mail

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestID(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 14, 20, 0, 123e6, time.UTC)
	id, later := NewID(at), NewID(at.Add(time.Millisecond))
	if len(id) != 40 || !strings.HasPrefix(string(id), "msg_") || id[18] != '7' || !strings.ContainsRune("89ab", rune(id[23])) {
		t.Errorf("%s is no UUIDv7", id)
	}
	if id >= later {
		t.Errorf("%s, made earlier, does not sort before %s", id, later)
	}
	b, err := id.Bytes()
	if err != nil || IDFromBytes(b) != id {
		t.Errorf("%s comes back as %s, %v", id, IDFromBytes(b), err)
	}
	if ms := int64(b[0])<<40 | int64(b[1])<<32 | int64(b[2])<<24 | int64(b[3])<<16 | int64(b[4])<<8 | int64(b[5]); ms != at.UnixMilli() {
		t.Errorf("the time in %s is %d, want %d", id, ms, at.UnixMilli())
	}
	for _, bad := range []ID{"", "msg_", id[4:], id + "0", id[:39], "MSG_" + id[4:], ID(strings.ToUpper(string(id))),
		"msg_0193c0de07a5b-7c1e-9f00-0123456789a", "msg_0193c0deg7a5b-7c1e-9f00-0123456789ab", "msg_0193c0de-7a5b-7c1e-9f00-0123456789ag"} {
		if _, err := bad.Bytes(); err == nil {
			t.Errorf("%q was taken for an id", bad)
		}
		if bad.Ref() != "" {
			t.Errorf("%q has the reference %q", bad, bad.Ref())
		}
	}
}

func TestRef(t *testing.T) {
	t.Parallel()
	if got := ID("msg_0193c0de-7a5b-7c1e-9f00-0123456789ab").Ref(); got != "4D2P-F2DB" { // 0x456789ab in base32, with 0x23 above
		t.Errorf("got %s", got)
	}
	for in, want := range map[string]Ref{
		"7K3Q-9DXP": "7K3Q-9DXP", "7k3q9dxp": "7K3Q-9DXP", " 7k3q 9dxp ": "7K3Q-9DXP", "7K3Q–9DXP": "7K3Q-9DXP",
		"oOiI-lL01": "0011-1101",
	} {
		if got, ok := ParseRef(in); got != want || !ok {
			t.Errorf("ParseRef(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "7K3Q-9DX", "7K3Q-9DXPP", "7K3U-9DXP", "7K3Q-9DXÄ", "--------", "7K3Q-9DXP7K3Q-9DXP"} {
		if got, ok := ParseRef(in); ok {
			t.Errorf("ParseRef(%q) = %q", in, got)
		}
	}
}

// Everybody who can read a log may read a message's JSON.
func TestMessageJSONHasNoData(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(secretMessage())
	if err != nil || strings.Contains(string(raw), "482913") || strings.Contains(string(raw), "data") {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestAddressParts(t *testing.T) {
	t.Parallel()
	for a, want := range map[Address][3]string{
		"Kari@nordlys.fi": {"Kari", "nordlys.fi", "kari@nordlys.fi"},
		"nordlys.fi":      {"nordlys.fi", "nordlys.fi", "nordlys.fi"},
		"":                {"", "", ""},
	} {
		if got := [3]string{a.Local(), a.Domain(), a.Key()}; got != want {
			t.Errorf("%q: %q, want %q", a, got, want)
		}
	}
}

func TestReceiptAlwaysHasWarnings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   Receipt
		want string
	}{
		{Receipt{ID: "msg_1", Ref: "A", State: StateQueued}, `{"id":"msg_1","ref":"A","state":"queued","warnings":[]}`},
		{Receipt{Replayed: true, Warnings: []Warning{{Code: "c", Detail: "d"}}},
			`{"id":"","ref":"","state":"","replayed":true,"warnings":[{"code":"c","detail":"d"}]}`},
	} {
		if got, err := json.Marshal(tt.in); string(got) != tt.want || err != nil {
			t.Errorf("%s, %v; want %s", got, err, tt.want)
		}
	}
}

func TestStatesAreOpenOrTerminal(t *testing.T) {
	t.Parallel()
	terminal := []State{StateAccepted, StateRefused, StateExpired, StateSuperseded, StateCancelled, StateSuppressed}
	open := []State{StateQueued, StateSending, StateDelayed}
	for _, s := range slices.Concat(terminal, open, []State{StateReturned, StateComplained, EventAtRisk, EventResent, EventLifted, EventUsed, ""}) {
		if s.Terminal() != slices.Contains(terminal, s) || s.Open() != slices.Contains(open, s) {
			t.Errorf("%q: terminal %v, open %v", s, s.Terminal(), s.Open())
		}
	}
}

func TestEventIsTheSameFactTwice(t *testing.T) {
	t.Parallel()
	m := sample("invite", "fi")
	now := time.Now()
	first, again := NewEvent(m, StateDelayed, 2, now), NewEvent(m, StateDelayed, 2, now.Add(time.Hour))
	if first.ID != again.ID || first.ID != EventID(m.ID, StateDelayed, 2) {
		t.Errorf("%q and %q", first.ID, again.ID)
	}
	if other := NewEvent(m, StateDelayed, 3, now); other.ID == first.ID {
		t.Error("two attempts have one event")
	}
	if first.To != m.To || first.Ref != m.Ref || first.Attempt != 2 || first.TenantName != m.TenantName || first.ExpiresAt != m.ExpiresAt {
		t.Errorf("%+v is not complete in itself", first)
	}
}

func TestReply(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]Reply{
		"250":                    {Code: 250},
		"550 5.1.1 No such user": {Code: 550, Enhanced: EnhancedCode{5, 1, 1}, Text: "No such user"},
		"421 Come back":          {Code: 421, Text: "Come back"},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Reply
		if err := json.Unmarshal(raw, &back); err != nil || back != r {
			t.Errorf("%s comes back as %+v, %v", raw, back, err)
		}
	}
}

func TestParseEnhancedCode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]EnhancedCode{"5.1.1": {5, 1, 1}, "2.0.0": {2, 0, 0}, "4.999.999": {4, 999, 999}} {
		if got, ok := ParseEnhancedCode(in); got != want || !ok || got.String() != in {
			t.Errorf("%q: %v, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "5", "5.1", "5.1.1.1", "3.1.1", "55.1.1", "5.1.1000", "5.-1.1", "5.+1.1", "5..1", "999.-1.+3", "5.1.1 "} {
		if got, ok := ParseEnhancedCode(in); ok || got != (EnhancedCode{}) {
			t.Errorf("%q was taken: %v", in, got)
		}
		if err := new(EnhancedCode).UnmarshalText([]byte(in)); (err == nil) != (in == "") {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestCausesAreListedOnce(t *testing.T) {
	t.Parallel()
	seen := map[Cause]bool{}
	for _, c := range Causes {
		if c == "" || seen[c] {
			t.Errorf("%q is empty or there twice", c)
		}
		seen[c] = true
	}
}

func TestProblemAsError(t *testing.T) {
	t.Parallel()
	p := &Problem{Title: "The link can't be used", Field: "data.link", Detail: "A link has a host."}
	if got := p.Error(); got != "The link can't be used (data.link): A link has a host." {
		t.Error(got)
	}
	if got := (&Problem{Title: "Gone"}).Error(); got != "Gone" {
		t.Error(got)
	}
}
