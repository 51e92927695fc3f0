package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// step is what a server does with one try.
type step func(*http.Request) (*http.Response, error)

func status(code int, body string, headers ...string) step {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/problem+json"}}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func fails(err error) step {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// script is a server that does one step a try, and then the last one for ever.
type script struct {
	steps []step
	keys  []string // the idempotency keys that came
	at    []time.Time
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.keys = append(s.keys, r.Header.Get("Idempotency-Key"))
	s.at = append(s.at, time.Now())
	return s.steps[min(len(s.at), len(s.steps))-1](r)
}

var (
	dialFailed = fails(&net.OpError{Op: "dial", Err: errors.New("connection refused")})
	reset      = fails(&net.OpError{Op: "read", Err: errors.New("connection reset by peer")})
	taken      = status(202, receipt)
	busy       = status(503, `{"type":"/problems/unavailable","title":"Not now","status":503,"retry_after":1}`, "Retry-After", "1")
)

func TestRetries(t *testing.T) {
	t.Parallel()
	limited := func(seconds string) step {
		return status(429, `{"type":"/problems/rate-limited","title":"t","status":429,"retry_after":`+seconds+`}`)
	}
	conflict := status(409, `{"type":"/problems/idempotency-conflict","title":"t","status":409,"message":"`+id+`"}`)
	for _, c := range []struct {
		name     string
		steps    []step
		deadline time.Duration // 0: none
		post     bool          // by Do, instead of Send
		tries    int
		atLeast  time.Duration
		atMost   time.Duration
		ok       bool
	}{
		{"at once", []step{taken}, 0, false, 1, 0, 0, true},
		{"refused connections", []step{dialFailed, dialFailed, taken}, 0, false, 3, 300 * time.Millisecond, 600 * time.Millisecond, true},
		{"a connection that broke", []step{reset, taken}, 0, false, 2, 100 * time.Millisecond, 200 * time.Millisecond, true},
		{"busy", []step{busy, taken}, 0, false, 2, time.Second, time.Second, true},
		{"limited", []step{limited("7"), taken}, 0, false, 2, 7 * time.Second, 7 * time.Second, true},
		{"limited for longer than there is", []step{limited("7")}, 5 * time.Second, false, 1, 0, 0, false},
		{"limited for very long", []step{limited("3600")}, 0, false, 1, 0, 0, false},
		{"a proxy's error", []step{status(502, "<html>"), status(504, ""), taken}, 0, false, 3, 300 * time.Millisecond, 600 * time.Millisecond, true},
		{"a proxy's Retry-After", []step{status(503, "<html>", "Retry-After", "3"), taken}, 0, false, 2, 3 * time.Second, 3 * time.Second, true},
		{"nobody there", []step{dialFailed}, 0, false, 6, 3100 * time.Millisecond, 6200 * time.Millisecond, false},
		{"nobody there, and no time", []step{dialFailed}, 250 * time.Millisecond, false, 2, 0, 250 * time.Millisecond, false},
		{"an answer that names no message", []step{status(200, "{}")}, 0, false, 1, 0, 0, false},
		{"conflict", []step{conflict}, 0, false, 1, 0, 0, false},
		{"an answer that is not ours", []step{status(200, "<html>"), taken}, 0, false, 2, 100 * time.Millisecond, 200 * time.Millisecond, true},
		{"hangs once", []step{hangs, taken}, 0, false, 2, tryTime, tryTime + time.Second, true},
		{"hangs, and the caller has had enough", []step{hangs}, 5 * time.Second, false, 1, 5 * time.Second, 5 * time.Second, false},
		{"Do: refused connection", []step{dialFailed, taken}, 0, true, 2, 100 * time.Millisecond, 200 * time.Millisecond, true},
		{"Do: busy", []step{busy, taken}, 0, true, 2, time.Second, time.Second, true},
		{"Do: a connection that broke", []step{reset, taken}, 0, true, 1, 0, 0, false},
		{"Do: a proxy's error", []step{status(504, ""), taken}, 0, true, 1, 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: c.steps}
				client, err := New("https://deliverd.example", Token(token), HTTPClient(&http.Client{Transport: s}))
				if err != nil {
					t.Fatal(err)
				}
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				began := time.Now()
				if c.post {
					err = client.Do(ctx, "POST", "/v1/queue/pause", nil, struct{}{}, nil)
				} else {
					_, err = client.Send(ctx, pin)
				}
				took := time.Since(began)
				if (err == nil) != c.ok || len(s.at) != c.tries || took < c.atLeast || took > c.atMost {
					t.Errorf("%d tries in %v, error %v; want %d in %v to %v", len(s.at), took, err, c.tries, c.atLeast, c.atMost)
				}
				for _, k := range s.keys {
					if !c.post && (k != s.keys[0] || len(k) < 20) {
						t.Errorf("keys %q: a retry would be another mail", s.keys)
					}
				}
			})
		})
	}
}

// Many clients that failed together don't come back together.
func TestWaitsAreSpread(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 50 {
		wait, again := call{safe: true}.again(&wayError{err: io.EOF}, 3)
		if !again || wait < 400*time.Millisecond || wait > 800*time.Millisecond {
			t.Fatalf("third wait: %v, %v", wait, again)
		}
		seen[wait] = true
	}
	if len(seen) < 40 {
		t.Errorf("%d different waits of 50", len(seen))
	}
}

func TestHTTPClientIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	var theirs http.Client
	if _, err := New("https://deliverd.example", HTTPClient(&theirs)); err != nil || theirs.CheckRedirect != nil {
		t.Errorf("%v; the caller's own client no longer follows redirects", err)
	}
}

func TestKeysOfTwoMessagesDiffer(t *testing.T) {
	t.Parallel()
	s := &script{steps: []step{taken}}
	c := must(New("https://deliverd.example", HTTPClient(&http.Client{Transport: s})))
	c.Send(t.Context(), pin)
	c.Send(t.Context(), pin)
	if len(s.keys) != 2 || s.keys[0] == s.keys[1] {
		t.Errorf("keys %q", s.keys)
	}
}

// A file comes as it is, and a refusal is a problem here too.
func TestOpen(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") != "jsonl" || r.Header.Get("Authorization") != "Bearer "+token {
			answer(w, 404, `{"type":"/problems/not-found","title":"Not found","status":404}`)
			return
		}
		io.WriteString(w, "{}\n{}\n")
	})
	file, err := c.Open(t.Context(), "/v1/log", url.Values{"format": {"jsonl"}})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := must(io.ReadAll(file)); string(got) != "{}\n{}\n" {
		t.Errorf("%q", got)
	}
	if _, err := c.Open(t.Context(), "/v1/log", nil); !IsNotFound(err) {
		t.Errorf("%v", err)
	}
}
