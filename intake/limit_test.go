package intake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestRatesAreABurstAndThenOneEach(t *testing.T) {
	t.Parallel()
	r := newRates(noon)
	c := charges{all: []charge{{Limit{Burst: 3, Every: time.Minute}, []string{"a"}}}}
	for _, s := range []struct {
		at   time.Duration
		want time.Duration
	}{
		{0, 0}, {0, 0}, {0, 0},
		{0, time.Minute},
		{59 * time.Second, time.Second},
		{60 * time.Second, 0},
		{60 * time.Second, time.Minute},
		{10 * time.Minute, 0}, {10 * time.Minute, 0}, {10 * time.Minute, 0}, // no more than the burst is saved up
		{10 * time.Minute, time.Minute},
		{9 * time.Minute, 2 * time.Minute}, // a clock that goes back only waits longer
	} {
		if got := r.take(noon.Add(s.at), c); got != s.want {
			t.Errorf("at %v: wait %v, want %v", s.at, got, s.want)
		}
	}
	if got := r.take(noon, charges{all: []charge{{Limit{Burst: 3, Every: time.Minute}, []string{"b"}}}}); got != 0 {
		t.Errorf("another key waits %v", got)
	}
}

func TestRatesChargeAllOrNothing(t *testing.T) {
	t.Parallel()
	r := newRates(noon)
	one, two := Limit{Burst: 1, Every: time.Minute}, Limit{Burst: 2, Every: time.Minute}
	both := charges{all: []charge{{two, []string{"two"}}, {one, []string{"one"}}}}
	only := charges{all: []charge{{two, []string{"two"}}}}
	got := []bool{r.take(noon, both.peeking()) == 0, r.take(noon, both) == 0, r.take(noon, both) == 0, r.take(noon, only) == 0, r.take(noon, only) == 0}
	if fmt.Sprint(got) != "[true true false true false]" {
		t.Errorf("taken: %v", got)
	}
}

// The parts of a key are apart: no tenant can be named so that its messages count for
// another's.
func TestRatesKeepKeysApart(t *testing.T) {
	t.Parallel()
	r := newRates(noon)
	seen := map[uint64][]string{}
	for _, key := range [][]string{{"a", "bc"}, {"ab", "c"}, {"abc"}, {"", "abc"}, {"abc", ""}, {"a", "b", "c"}} {
		h := r.hash(key)
		if was := seen[h]; was != nil {
			t.Errorf("%q and %q are one", was, key)
		}
		seen[h] = key
	}
}

func TestRatesCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	r := newRates(noon)
	off := Limits{Tenant: Limit{Burst: -1}}.withDefaults().forTenant(everyone, "4711")
	for range 10_000 {
		if wait := r.take(noon, off); wait != 0 {
			t.Fatalf("wait %v", wait)
		}
	}
}

// The table has a fixed size. Other keys push out those that are nearest to having
// their burst again, so a key in heavy use stays.
func TestRatesForgetTheLeastUsed(t *testing.T) {
	t.Parallel()
	r := newRates(noon)
	take := func(key string) time.Duration {
		return r.take(noon, charges{all: []charge{{Limit{Burst: 100, Every: time.Minute}, []string{key}}}})
	}
	for range 100 {
		take("flooder")
	}
	for i := range 3 * ways << setBits {
		take(strconv.Itoa(i))
	}
	if take("flooder") == 0 {
		t.Error("the flooder was forgotten for keys that were used once")
	}
}

// D18: a tenant that floods is told when to come back; others notice nothing.
func TestD18TenantRate(t *testing.T) {
	t.Parallel()
	in, s := build(t, func(o *Options) { o.Limits.Tenant = Limit{Burst: 5, Every: 1500 * time.Millisecond} })
	h := mux(in)
	send := func(tenant string, i int) (int, string) {
		w := post(h, "/v1/messages", fmt.Sprintf(`{"kind":"pin","to":"u%d@b.example","tenant":%q}`, i, tenant))
		return w.Code, w.Header().Get("Retry-After")
	}
	for i := range 5 {
		if code, _ := send("loud", i); code != 202 {
			t.Fatalf("request %d: %d", i, code)
		}
	}
	if code, after := send("loud", 5); code != 429 || after != "2" {
		t.Errorf("request 6: %d, Retry-After %q, want 429 and 2 (rounded up)", code, after)
	}
	if w := post(h, "/v1/messages:validate", `{"kind":"pin","to":"v@b.example","tenant":"loud"}`); w.Code != 429 {
		t.Errorf("validations are no way around it: %d", w.Code)
	}
	if code, _ := send("quiet", 0); code != 202 {
		t.Errorf("another tenant: %d", code)
	}
	if s.count() != 6 {
		t.Errorf("kept %d messages, want 6", s.count())
	}
}

// D19: a thousand invites to one person. The row would have them "counted silently";
// law 2 wants the caller told, so the answer is 429. The person's PIN comes through.
func TestD19MailBomb(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	send := func(kind, tenant, to string) int {
		_, err := in.Submit(t.Context(), everyone, mail.Request{Kind: kind, Tenant: tenant, To: to})
		p, ok := errors.AsType[*mail.Problem](err)
		switch {
		case err == nil:
			return http.StatusAccepted
		case !ok || p.Type != mail.ProblemRateLimited || p.Field != "to" || p.RetryAfter != 60 && p.RetryAfter != 15:
			t.Fatalf("refused with %+v", err)
		}
		return p.Status
	}
	taken := 0
	for i := range 1000 {
		if send("invite", "4711", []string{"kari@nordlys.example", "KARI@nordlys.example", " kari@NORDLYS.example"}[i%3]) == 202 {
			taken++
		}
	}
	if taken != 10 {
		t.Errorf("%d of 1000 invites were taken, want 10", taken)
	}
	if send("pin", "4711", "kari@nordlys.example") != 202 {
		t.Error("a flood of invites held up the PIN")
	}
	if send("invite", "4711", "lars@nordlys.example") != 202 {
		t.Error("a flood to one person held up another's invite")
	}
	for i := range 1000 {
		send("invite", "tenant"+strconv.Itoa(i), "kari@nordlys.example")
	}
	got := 0
	for _, m := range s.messages {
		if m.To.Key() == "kari@nordlys.example" {
			got++
		}
	}
	if got != 40 {
		t.Errorf("through a thousand tenants, %d mails came to one person, want 40", got)
	}
}

// A validation tells what sending would, and costs none of the recipient's mail.
func TestValidateDoesNotUseUpTheRecipient(t *testing.T) {
	t.Parallel()
	in, _ := build(t, func(o *Options) { o.Limits.Recipient = Limit{Burst: 1, Every: time.Minute} })
	r := mail.Request{Kind: "pin", To: "a@b.example"}
	for range 5 {
		if _, err := in.Validate(t.Context(), everyone, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Submit(t.Context(), everyone, r); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Validate(t.Context(), everyone, r); err == nil {
		t.Error("a validation promises what sending refuses")
	}
}

// D11: the same request with the same key is one message, and no flood.
func TestD11SameKey(t *testing.T) {
	t.Parallel()
	in, s := build(t, func(o *Options) { o.Limits.Recipient = Limit{Burst: 1, Every: time.Hour} })
	h := mux(in)
	var wg sync.WaitGroup
	answers := make([]*httptest.ResponseRecorder, 100)
	for i := range answers {
		wg.Go(func() { answers[i] = post(h, "/v1/messages", good, "Idempotency-Key", "k1") })
	}
	wg.Wait()
	for _, w := range answers {
		id, want := decodeAs[mail.Receipt](t, w.Body.Bytes()).ID, s.messages[0].ID
		if w.Code != http.StatusAccepted || id != want {
			t.Fatalf("%d %s, want message %s", w.Code, w.Body, want)
		}
	}
	if s.count() != 1 {
		t.Errorf("kept %d messages", s.count())
	}
	again := []struct {
		name, body, key string
		status          int
	}{
		{"in other words", `{"data":{"link":"https://login.example/i/1"},"tags":[],"tenant":"4711","to":" kari@NORDLYS.example","kind":"invite","person_id":null}`, "k1", 202},
		{"in quotes", good, `"k1"`, 202},
		{"the header wins over the field", strings.Replace(good, "{", `{"idempotency_key":"other",`, 1), "k1", 202},
		{"another link", strings.Replace(good, "/i/1", "/i/2", 1), "k1", 429}, // before the queue could say 409
		{"another key", good, "k2", 429},
		{"no key", good, "", 429},
	}
	for _, c := range again {
		w := post(h, "/v1/messages", c.body, "Idempotency-Key", c.key)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if c.status == 202 && !decodeAs[mail.Receipt](t, w.Body.Bytes()).Replayed {
			t.Errorf("%s: not said to be replayed: %s", c.name, w.Body)
		}
	}
}

func TestD11SameKeyOtherContentIsAConflict(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	h := mux(in)
	first := decodeAs[mail.Receipt](t, post(h, "/v1/messages", good, "Idempotency-Key", "k1").Body.Bytes())
	for _, other := range []string{
		strings.Replace(good, "/i/1", "/i/2", 1),
		strings.Replace(good, "kari@", "lars@", 1),
		strings.Replace(good, `"data"`, `"locale":"fi","data"`, 1),
	} {
		w := post(h, "/v1/messages", other, "Idempotency-Key", "k1")
		if p := decodeAs[mail.Problem](t, w.Body.Bytes()); w.Code != 409 || p.Type != mail.ProblemConflict || p.Message != first.ID {
			t.Errorf("%s: %d %s", other, w.Code, w.Body)
		}
	}
	if s.count() != 1 {
		t.Errorf("kept %d messages", s.count())
	}
}

// A request that the store could not take is counted once, however often it comes
// again.
func TestRetryAfterFailureIsNotCountedAgain(t *testing.T) {
	t.Parallel()
	in, s := build(t, func(o *Options) {
		o.Limits.Recipient = Limit{Burst: 1, Every: time.Hour}
		o.Suppressed = func(context.Context, string, mail.Address) (*mail.Suppression, error) { return nil, nil }
	})
	h := mux(in)
	s.fail = errors.New("down")
	for range 3 {
		if w := post(h, "/v1/messages", good, "Idempotency-Key", "k1"); w.Code != 503 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	s.fail = nil
	if w := post(h, "/v1/messages", good, "Idempotency-Key", "k1"); w.Code != 202 || s.count() != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func BenchmarkRates(b *testing.B) {
	in, _ := build(b)
	m := &mail.Message{Kind: "pin", Tenant: "4711", To: "kari@nordlys.example"}
	c := in.limits.forRecipient(m)
	for b.Loop() {
		in.rates.take(noon, c)
	}
}
