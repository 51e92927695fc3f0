package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/mail"
)

const (
	token  = "dlv_t0k3n900913"
	canary = "s3cr3t-900913"
	id     = "msg_0195b1a0-0000-7000-8000-000000000001"
)

var pin = Message{
	Kind: "pin", To: "kari.canary@nordlys.example", Tenant: "4711",
	Data: map[string]any{"code": canary},
}

// serve runs a server and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc, opts ...Option) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(s.URL+"/", append([]Option{Token(token)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer writes JSON; a status of 400 and more as a problem.
func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	io.WriteString(w, body)
}

const receipt = `{"id":"` + id + `","ref":"7K3Q-9DXP","state":"queued","warnings":[{"code":"address_trimmed","detail":"d"}]}`

func TestSend(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, body = r, must(io.ReadAll(r.Body))
		answer(w, 202, receipt)
	}, UserAgent("login/1.2"))
	m := pin
	m.IdempotencyKey = "pin-17"
	r, err := c.Send(t.Context(), m)
	if err != nil || r.ID != id || r.Ref != "7K3Q-9DXP" || r.State != mail.StateQueued || len(r.Warnings) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got.Method != "POST" || got.URL.Path != "/v1/messages" {
		t.Errorf("asked %s %s", got.Method, got.URL)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + token, "Content-Type": "application/json", "Idempotency-Key": "pin-17",
		"User-Agent": "login/1.2", "Prefer": "",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if want := `{"kind":"pin","to":"kari.canary@nordlys.example","tenant":"4711","data":{"code":"` + canary + `"}}`; string(body) != want {
		t.Errorf("sent %s\nwant %s", body, want)
	}
	if m.IdempotencyKey != "pin-17" {
		t.Error("the caller's message was changed")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSendAndWaitAsksForWholeSeconds(t *testing.T) {
	t.Parallel()
	var prefer string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		prefer = r.Header.Get("Prefer")
		answer(w, 202, receipt)
	})
	for wait, want := range map[time.Duration]string{
		0: "wait=1", 300 * time.Millisecond: "wait=1", 4600 * time.Millisecond: "wait=5", time.Hour: "wait=60",
	} {
		if _, err := c.SendAndWait(t.Context(), pin, wait); err != nil || prefer != want {
			t.Errorf("%v: Prefer: %s, %v; want %s", wait, prefer, err, want)
		}
	}
}

func TestValidateCancelOutcome(t *testing.T) {
	t.Parallel()
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.EscapedPath() + " " + string(must(io.ReadAll(r.Body)))
		answer(w, 200, `{"kind":"pin","to":"a@b.example","warnings":[{"code":"address_typo","detail":"d","suggestion":"a@c.example"}]}`)
	})
	v, err := c.Validate(t.Context(), Message{Kind: "pin", To: "a@b.example"})
	if err != nil || v.To != "a@b.example" || v.Warnings[0].Suggestion != "a@c.example" || got != `POST /v1/messages:validate {"kind":"pin","to":"a@b.example"}` {
		t.Errorf("%+v, %v; asked %s", v, err, got)
	}
	if err := c.Cancel(t.Context(), "../7K3Q-9DXP", "left"); err != nil || got != `POST /v1/messages/..%2F7K3Q-9DXP/cancel {"reason":"left"}` {
		t.Errorf("%v; asked %s", err, got)
	}
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	if err := c.Outcome(t.Context(), id, Used, at); err != nil || got != `POST /v1/outcomes {"message":"`+id+`","outcome":"used","at":"2026-11-21T12:00:00Z"}` {
		t.Errorf("%v; asked %s", err, got)
	}
	if err := c.Outcome(t.Context(), id, WrongPerson, time.Time{}); err != nil || strings.Contains(got, "at\":") {
		t.Errorf("%v; asked %s", err, got)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		server string
		opts   []Option
		says   string // in the error; "" for none
	}{
		{"https://deliverd.example", []Option{Token(token)}, ""},
		{"https://deliverd.example/mail/", []Option{Token(token + "\n")}, ""},
		{"http://127.0.0.1:8025", []Option{Token(token)}, ""},
		{"http://[::1]:8025", []Option{Token(token)}, ""},
		{"http://localhost:8025", []Option{Token(token)}, ""},
		{"http://deliverd.example", nil, ""},
		{"http://deliverd.example", []Option{Token(token), AllowPlainHTTP()}, ""},
		{"http://deliverd.example", []Option{Token(token)}, "https"},
		{"http://127.0.0.1.example", []Option{Token(token)}, "https"},
		{"deliverd.example", nil, "URL"},
		{"ftp://deliverd.example", nil, "URL"},
		{"https://", nil, "URL"},
		{"https://user:" + token + "@deliverd.example", nil, "client.Token"},
		{"https://deliverd.example/?token=" + token, nil, "client.Token"},
		{"https://deliverd.example", []Option{Token("")}, "token"},
		{"https://deliverd.example", []Option{Token(token + "\r\nX: y")}, "token"},
		{"https://deliverd.example", []Option{Attempts(0)}, "attempt"},
		{"https://deliverd.example", []Option{UserAgent("a\nb")}, "user agent"},
	} {
		_, err := New(c.server, c.opts...)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.server, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("the error has the token in it: %v", err)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code int
		body string
		is   func(error) bool
	}{
		"suppressed":  {422, `{"type":"/problems/recipient-suppressed","title":"t","status":422,"suppression":{"cause":"bad_mailbox","since":"2026-11-20T00:00:00Z","lift":"l"}}`, IsSuppressed},
		"address":     {422, `{"type":"/problems/address-invalid","title":"t"}`, IsAddressInvalid},
		"conflict":    {409, `{"type":"/problems/idempotency-conflict","title":"t"}`, IsConflict},
		"limited":     {429, `{"type":"/problems/rate-limited","title":"t","retry_after":3600}`, IsRateLimited},
		"expired":     {422, `{"type":"/problems/expired","title":"t"}`, IsExpired},
		"not found":   {404, `{"type":"/problems/not-found","title":"t"}`, IsNotFound},
		"ended":       {409, `{"type":"/problems/already-ended","title":"t"}`, IsEnded},
		"unavailable": {503, `{"type":"/problems/unavailable","title":"t","retry_after":3600}`, IsUnavailable},
		"page":        {404, `<html>` + canary, func(err error) bool { return !IsNotFound(err) }},
		"other JSON":  {500, `{"error":"` + canary + `"}`, func(err error) bool { return !IsUnavailable(err) }},
		"redirect":    {307, ``, func(err error) bool { return strings.Contains(err.Error(), "redirects") }},
	} {
		client := must(New("https://deliverd.example", HTTPClient(&http.Client{Transport: &script{steps: []step{status(c.code, c.body, "Location", "https://evil.example/")}}})))
		_, err := client.Send(t.Context(), pin)
		p, ok := errors.AsType[*Problem](err)
		if !ok || !c.is(err) || p.Status != c.code || p.Title == "" {
			t.Errorf("%s: %#v", name, err)
		}
		if name == "suppressed" && (p.Suppression == nil || p.Suppression.Cause != mail.CauseBadMailbox) {
			t.Errorf("%s: %+v", name, p)
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error repeats what a stranger said: %v", name, err)
		}
	}
	for name, is := range map[string]func(error) bool{"suppressed": IsSuppressed, "conflict": IsConflict} {
		if is(nil) || is(io.EOF) {
			t.Errorf("%s is said of what is no problem", name)
		}
	}
}

// A redirect must not carry a message's secrets to another server.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	for _, opts := range [][]Option{nil, {HTTPClient(&http.Client{})}} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/v1/messages", http.StatusTemporaryRedirect)
		}, opts...)
		if _, err := c.Send(t.Context(), pin); err == nil || elsewhere.Load() != 0 {
			t.Errorf("followed %d times, %v", elsewhere.Load(), err)
		}
	}
}

// Whatever goes wrong, the error may be logged.
func TestErrorsHoldNoSecret(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(nil)
	closed.Close()
	gone := must(New(closed.URL, Token(token), Attempts(1)))
	query := url.Values{"q": {"kari.canary@nordlys.example"}}
	bad := pin
	bad.Data = map[string]any{"code": canary, "f": func() {}}
	garbled := must(New("https://deliverd.example", Token(token), Attempts(1),
		HTTPClient(&http.Client{Transport: &script{steps: []step{status(200, `{"id":["`+canary)}}})))
	over := must(OverNATS(func(context.Context, string, map[string][]string, []byte) ([]byte, error) {
		return []byte(`{"id":["` + canary), nil
	}, "login", Attempts(1)))
	for name, call := range map[string]func(context.Context) error{
		"nobody there": func(ctx context.Context) error { return second(gone.Send(ctx, pin)) },
		"query":        func(ctx context.Context) error { return gone.Do(ctx, "GET", "/v1/people", query, nil, nil) },
		"query in the path": func(ctx context.Context) error {
			return gone.Do(ctx, "GET", "/v1/people?"+query.Encode(), nil, nil, nil)
		},
		"not a URL":         func(ctx context.Context) error { return gone.Do(ctx, "GET", "/v1/\x7f?"+query.Encode(), nil, nil, nil) },
		"no JSON":           func(ctx context.Context) error { return second(gone.Send(ctx, bad)) },
		"garbled":           func(ctx context.Context) error { return second(garbled.Send(ctx, pin)) },
		"garbled over NATS": func(ctx context.Context) error { return second(over.Send(ctx, pin)) },
	} {
		err := call(t.Context())
		if err == nil {
			t.Fatalf("%s: no error", name)
		}
		for _, secret := range []string{token, canary, "kari.canary"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !strings.HasPrefix(err.Error(), "deliverd: ") {
			t.Errorf("%s: who says it? %v", name, err)
		}
	}
}

func second[A, B any](_ A, b B) B { return b }

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	endless := func(code int) step {
		return func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/problem+json"}}, Body: io.NopCloser(zeros{})}, nil
		}
	}
	c := must(New("https://deliverd.example", Attempts(1), HTTPClient(&http.Client{Transport: &script{steps: []step{endless(200), endless(500)}}})))
	if err := c.Do(t.Context(), "GET", "/", nil, nil, nil); !errors.Is(err, errTooLong) {
		t.Errorf("endless answer: %v", err)
	}
	if err := c.Do(t.Context(), "GET", "/", nil, nil, nil); err == nil || err.(*Problem).Status != 500 {
		t.Errorf("endless problem: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") == "bad" {
			answer(w, 409, `{"type":"/problems/idempotency-conflict","title":"t"}`)
			return
		}
		answer(w, 202, receipt)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := must(New(s.URL))
	bad := pin
	bad.IdempotencyKey = "bad"
	for range 20 {
		if _, err := c.Send(t.Context(), pin); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Send(t.Context(), bad); !IsConflict(err) {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for 40 requests in a row, want 1", n)
	}
	for range 10 {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { c.Send(context.WithoutCancel(t.Context()), pin) })
		}
		wg.Wait()
	}
	if n := opened.Load(); n > 40 {
		t.Errorf("%d connections for 10 times 16 requests at once", n)
	}
}

func TestOverNATS(t *testing.T) {
	t.Parallel()
	var subject, body string
	var header map[string][]string
	reply := receipt
	c := must(OverNATS(func(_ context.Context, s string, h map[string][]string, b []byte) ([]byte, error) {
		subject, header, body = s, h, string(b)
		return []byte(reply), nil
	}, "log.in é"))
	m := pin
	m.IdempotencyKey = "k1"
	r, err := c.SendAndWait(t.Context(), m, 2*time.Second)
	if err != nil || r.ID != id || subject != "deliverd.v1.send.log=2Ein=20=C3=A9" || strings.Contains(body, "k1") {
		t.Errorf("%+v, %v; on %s: %s", r, err, subject, body)
	}
	if header["Nats-Msg-Id"][0] != "k1" || header["Prefer"][0] != "wait=2" {
		t.Errorf("headers %v", header)
	}
	reply = `{"id":"x","ref":"y","state":"cancelled","warnings":[]}`
	if err := c.Cancel(t.Context(), id, "left"); err != nil || subject != "deliverd.v1.cancel.log=2Ein=20=C3=A9" || body != `{"message":"`+id+`","reason":"left"}` {
		t.Errorf("%v; on %s: %s", err, subject, body)
	}
	if err := c.Outcome(t.Context(), id, Used, time.Time{}); err != nil || !strings.HasPrefix(subject, "deliverd.v1.outcome.") || body != `{"message":"`+id+`","outcome":"used"}` {
		t.Errorf("%v; on %s: %s", err, subject, body)
	}
	reply = `{"problem":{"type":"/problems/idempotency-conflict","title":"t","status":409,"message":"` + id + `"}}`
	if _, err := c.Send(t.Context(), m); !IsConflict(err) {
		t.Errorf("problem: %v", err)
	}
	for name, err := range map[string]error{
		"Validate": second(c.Validate(t.Context(), pin)),
		"Get":      second(c.Get(t.Context(), id)),
		"Wait":     second(c.Wait(t.Context(), id)),
		"Do":       c.Do(t.Context(), "GET", "/v1/queue", nil, nil, nil),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err := range c.Stream(t.Context(), "/v1/events", "") {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Stream: %v", err)
		}
	}
	for _, err := range []error{second(OverNATS(nil, "login")), second(OverNATS(c.request, ""))} {
		if err == nil {
			t.Error("made of nothing")
		}
	}
}

func TestOverNATSRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		c := must(OverNATS(func(_ context.Context, _ string, h map[string][]string, _ []byte) ([]byte, error) {
			keys = append(keys, h["Nats-Msg-Id"][0])
			if len(keys) < 3 {
				return nil, errors.New("nats: no responders available for request")
			}
			return []byte(receipt), nil
		}, "login"))
		if _, err := c.Send(t.Context(), pin); err != nil || len(keys) != 3 || keys[0] != keys[2] {
			t.Errorf("%v; keys %q", err, keys)
		}
	})
}

func TestGetAndWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		at := func(state mail.State) step {
			return status(200, `{"id":"`+id+`","ref":"7K3Q-9DXP","kind":"pin","state":"`+string(state)+`","story":["Handed over."]}`)
		}
		s := &script{steps: []step{at("queued"), busy, at("sending"), at("delayed"), at("accepted")}}
		c := must(New("https://deliverd.example", HTTPClient(&http.Client{Transport: s})))
		got, err := c.Wait(t.Context(), "7K3Q-9DXP")
		if err != nil || got.State != mail.StateAccepted || got.ID != id || len(s.at) != 5 {
			t.Errorf("%+v, %v after %d", got, err, len(s.at))
		}
		var story struct{ Story []string }
		if err := json.Unmarshal(got.Raw, &story); err != nil || len(story.Story) != 1 {
			t.Errorf("raw %s", got.Raw)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s.steps, s.at = []step{at("delayed")}, nil
		got, err = c.Wait(ctx, id)
		if !errors.Is(err, context.DeadlineExceeded) || got.State != mail.StateDelayed || len(s.at) > 20 {
			t.Errorf("%+v, %v after %d questions in 10 s", got, err, len(s.at))
		}
		s.steps, s.at = []step{at("delayed"), status(404, `{"type":"/problems/not-found","title":"t"}`)}, nil
		if _, err := c.Wait(t.Context(), id); !IsNotFound(err) {
			t.Errorf("gone: %v", err)
		}
		var prefer []string
		held := func(r *http.Request) (*http.Response, error) {
			prefer = append(prefer, r.Header.Get("Prefer"))
			return at("queued")(r)
		}
		s.steps, s.at = []step{held, held, at("expired")}, nil
		short, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		c.Wait(short, id)
		s.at = nil
		c.Wait(t.Context(), id)
		if want := "[wait=5 wait=4 wait=30 wait=30]"; fmt.Sprint(prefer) != want {
			t.Errorf("asked to %v, want %v", prefer, want)
		}
		s.steps = []step{at("returned")}
		if got, err := c.Wait(t.Context(), id); err != nil || got.State != mail.StateReturned {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestDo(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		body, _ := io.ReadAll(r.Body)
		answer(w, 200, `{"path":`+strconv.Quote(r.URL.RequestURI())+`,"body":`+strconv.Quote(string(body))+`,"type":`+strconv.Quote(r.Header.Get("Content-Type"))+`}`)
	})
	var out struct{ Path, Body, Type string }
	if err := c.Do(t.Context(), "GET", "/v1/people", url.Values{"q": {"a b"}}, nil, &out); err != nil || out.Path != "/v1/people?q=a+b" || out.Body != "" || out.Type != "" {
		t.Errorf("%+v, %v", out, err)
	}
	if err := c.Do(t.Context(), "POST", "/v1/queue/pause", nil, map[string]string{"selector": "kind:pin"}, &out); err != nil || out.Body != `{"selector":"kind:pin"}` {
		t.Errorf("%+v, %v", out, err)
	}
	if err := c.Do(t.Context(), "DELETE", "/v1/suppressions", nil, nil, nil); err != nil {
		t.Error(err)
	}
	var raw json.RawMessage
	if err := c.Do(t.Context(), "GET", "/", nil, nil, &raw); err != nil || !bytes.HasPrefix(raw, []byte("{")) {
		t.Errorf("%s, %v", raw, err)
	}
}
