package intake

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestPostMessage(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	w := post(mux(in), "/v1/messages", strings.Replace(good, "kari@", " kari@", 1))
	r := decodeAs[mail.Receipt](t, w.Body.Bytes())
	if w.Code != http.StatusAccepted || r.State != mail.StateQueued || r.Ref != r.ID.Ref() || r.Ref == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if len(r.Warnings) != 1 || r.Warnings[0].Code != mail.WarnAddressTrimmed {
		t.Errorf("warnings %+v, want %s", r.Warnings, mail.WarnAddressTrimmed)
	}
	for name, want := range map[string]string{
		"Location":      "/v1/messages/" + string(r.ID),
		"Content-Type":  "application/json",
		"Cache-Control": "no-store",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if s.count() != 1 || s.messages[0].Source != "login" || s.messages[0].Tenant != "4711" {
		t.Errorf("kept %+v", s.messages)
	}
}

// No warnings are an empty list: scripts read .warnings[].
func TestReceiptAlwaysHasWarnings(t *testing.T) {
	t.Parallel()
	in, _ := build(t)
	for _, path := range []string{"/v1/messages", "/v1/messages:validate"} {
		if w := post(mux(in), path, good); !strings.Contains(w.Body.String(), `"warnings":[]`) {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
}

func TestValidateSendsNothing(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	w := post(mux(in), "/v1/messages:validate", strings.Replace(good, "kari@nordlys", "kari@NORDLYS", 1))
	v := decodeAs[Validation](t, w.Body.Bytes())
	if w.Code != http.StatusOK || v.To != "kari@nordlys.example" || v.Kind != "invite" || v.ExpiresAt.IsZero() {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if s.count() != 0 {
		t.Errorf("kept %+v", s.messages)
	}
	if w := post(mux(in), "/v1/messages:validate", `{"kind":"spam","to":"kari@nordlys.example"}`); w.Code != 400 {
		t.Errorf("unknown kind: %d %s", w.Code, w.Body)
	}
}

// One row for each way that a request is refused over HTTP: the status, the problem's
// type, and nothing kept.
func TestHTTPRefuses(t *testing.T) {
	t.Parallel()
	const canary = "s3cr3t-900913"
	until := noon.Add(time.Hour)
	ours := Caller{Source: "login", Tenants: []string{"4711", "4712"}}
	for _, c := range []struct {
		name    string
		change  func(*Options)
		body    string
		headers []string
		status  int
		kind    string
		field   string
		says    string
	}{
		{name: "nobody known", change: func(o *Options) { o.Caller = func(*http.Request) (Caller, bool) { return Caller{}, false } },
			status: 401, kind: mail.ProblemNotSignedIn},
		{name: "no callers at all", change: func(o *Options) { o.Caller = nil }, status: 401, kind: mail.ProblemNotSignedIn},
		{name: "the zero caller", change: as(Caller{}), status: 404, kind: mail.ProblemNotFound, field: "tenant"},
		{name: "D15 another's tenant", change: as(ours), body: `{"kind":"invite","to":"a@b.example","tenant":"` + canary + `"}`,
			status: 404, kind: mail.ProblemNotFound, field: "tenant"},
		{name: "D15 all tenants", body: `{"kind":"invite","to":"a@b.example","tenant":"*"}`, status: 400, kind: mail.ProblemInvalid, field: "tenant"},
		{name: "D15 no tenant of several", change: as(ours), body: `{"kind":"invite","to":"a@b.example"}`,
			status: 400, kind: mail.ProblemInvalid, field: "tenant", says: "name one"},
		{name: "D15 another's message in resend_of",
			body:   `{"kind":"invite","to":"a@b.example","tenant":"4711","resend_of":"msg_0195b1a0-0000-7000-8000-000000000000"}`,
			status: 404, kind: mail.ProblemNotFound, field: "resend_of"},
		{name: "D09 gzip", headers: []string{"Content-Encoding", "gzip"}, status: 415, kind: mail.ProblemInvalid, says: "Content-Encoding"},
		{name: "D09 form", headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, status: 415, kind: mail.ProblemInvalid},
		{name: "D09 text", headers: []string{"Content-Type", "text/plain"}, status: 415, kind: mail.ProblemInvalid},
		{name: "D09 0 bytes", body: " ", status: 400, kind: mail.ProblemInvalid},
		{name: "D09 25 MiB", body: strings.Repeat(" ", 25<<20), status: 413, kind: mail.ProblemTooLarge},
		{name: "D09 unknown field", body: `{"` + canary + `":"` + canary + `"}`, status: 400, kind: mail.ProblemInvalid},
		{name: "D11 key of 10 KB", headers: []string{"Idempotency-Key", strings.Repeat("k", 10_000)},
			status: 400, kind: mail.ProblemInvalid, field: "idempotency_key"},
		{name: "D11 key of 10 KB in the body", body: `{"kind":"invite","to":"a@b.example","idempotency_key":"` + strings.Repeat("k", 10_000) + `"}`,
			status: 400, kind: mail.ProblemInvalid, field: "idempotency_key"},
		{name: "D11 key with an escape", body: `{"kind":"invite","to":"a@b.example","idempotency_key":"a\u001b"}`,
			status: 400, kind: mail.ProblemInvalid, field: "idempotency_key"},
		{name: "D11 two keys", headers: []string{"Idempotency-Key", "a", "Idempotency-Key", "b"},
			status: 400, kind: mail.ProblemInvalid, field: "idempotency_key"},
		{name: "D17 unknown kind", body: `{"kind":"` + canary + `","to":"a@b.example"}`, status: 400, kind: mail.ProblemUnknownKind, field: "kind"},
		{name: "suppressed", change: suppress(mail.Suppression{Cause: mail.CauseBadMailbox, Since: noon.Add(-24 * time.Hour), Until: until, Reason: canary, Reply: canary}),
			status: 422, kind: mail.ProblemSuppressed, field: "to", says: "since 2026-11-20 12:00 UTC: bad_mailbox"},
		{name: "suppressed, with a sentence", change: func(o *Options) {
			suppress(mail.Suppression{Cause: mail.CauseBadMailbox, Since: noon})(o)
			o.Why = func(mail.Cause) string { return "There is no such mailbox." }
		}, status: 422, kind: mail.ProblemSuppressed, field: "to", says: "UTC: There is no such mailbox."},
		{name: "suppressions can't be read", change: func(o *Options) {
			o.Suppressed = func(context.Context, string, mail.Address) (*mail.Suppression, error) { return nil, errors.New(canary) }
		}, status: 503, kind: mail.ProblemUnavailable},
		{name: "store down", change: func(o *Options) {
			o.Enqueue = func(context.Context, *mail.Message, [32]byte) (mail.Receipt, error) {
				return mail.Receipt{}, errors.New(canary)
			}
		}, status: 503, kind: mail.ProblemUnavailable, says: "same idempotency key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in, s := build(t)
			if c.change != nil {
				o := in.opts
				c.change(&o)
				var err error
				if in, err = New(o); err != nil {
					t.Fatal(err)
				}
			}
			if c.body == "" {
				c.body = strings.Replace(good, "/i/1", "/i/"+canary, 1)
			}
			var w *httptest.ResponseRecorder
			if len(c.headers) > 1 && c.headers[0] == "Content-Type" {
				r := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader(c.body))
				r.Header.Set(c.headers[0], c.headers[1])
				w = httptest.NewRecorder()
				mux(in).ServeHTTP(w, r)
			} else {
				w = post(mux(in), "/v1/messages", c.body, c.headers...)
			}
			p := decodeAs[mail.Problem](t, w.Body.Bytes())
			if w.Code != c.status || p.Status != c.status || p.Type != c.kind || p.Field != c.field || !strings.Contains(p.Detail, c.says) {
				t.Errorf("%d %s\nwant %d %s in %q: …%s…", w.Code, w.Body, c.status, c.kind, c.field, c.says)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %q", got)
			}
			if strings.Contains(w.Body.String(), canary) {
				t.Errorf("the answer repeats a value of the request: %s", w.Body)
			}
			if c.status == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Error("401 without WWW-Authenticate (RFC 9110 15.5.2)")
			}
			if c.status == 503 && w.Header().Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			if s.count() != 0 {
				t.Errorf("refused, and yet kept: %+v", s.messages)
			}
		})
	}
}

func suppress(sup mail.Suppression) func(*Options) {
	return func(o *Options) {
		o.Suppressed = func(context.Context, string, mail.Address) (*mail.Suppression, error) { return &sup, nil }
	}
}

func TestSuppressionTellsSinceWhyAndHowToLift(t *testing.T) {
	t.Parallel()
	in, _ := build(t, suppress(mail.Suppression{Cause: mail.CauseBadMailbox, Since: noon.Add(-time.Hour)}))
	p := decodeAs[mail.Problem](t, post(mux(in), "/v1/messages", good).Body.Bytes())
	n := p.Suppression
	if n == nil || n.Cause != mail.CauseBadMailbox || !n.Since.Equal(noon.Add(-time.Hour)) || !strings.Contains(n.Lift, "suppress rm") {
		t.Errorf("notice %+v", n)
	}
}

func TestSuppressionThatIsOverDoesNotCount(t *testing.T) {
	t.Parallel()
	in, s := build(t, suppress(mail.Suppression{Cause: mail.CauseMailboxFull, Since: noon.Add(-2 * time.Hour), Until: noon}))
	if w := post(mux(in), "/v1/messages", good); w.Code != 202 || s.count() != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// D15: a tenant that exists and one that does not are told apart by nothing.
func TestD15AnothersTenantIsNotFound(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	s.messages = []mail.Message{{ID: "msg_0195b1a0-0000-7000-8000-000000000001", Ref: "AAAA-AAAA", Tenant: "other", QueuedAt: noon}}
	o := in.opts
	as(Caller{Source: "login", Tenants: []string{"4711"}})(&o)
	in, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	outcome := func(message string) string {
		w := post(mux(in), "/v1/outcomes", `{"message":"`+message+`","outcome":"used"}`)
		return strconv.Itoa(w.Code) + w.Body.String()
	}
	theirs, none := outcome("msg_0195b1a0-0000-7000-8000-000000000001"), outcome("msg_0195b1a0-0000-7000-8000-000000000002")
	if theirs != none || !strings.HasPrefix(theirs, "404") || outcome("AAAA-AAAA") != none {
		t.Errorf("another's message: %s\nno message: %s", theirs, none)
	}
	send := func(tenant string) string {
		w := post(mux(in), "/v1/messages", `{"kind":"invite","to":"a@b.example","tenant":"`+tenant+`"}`)
		return strconv.Itoa(w.Code) + w.Body.String()
	}
	if send("other") != send("no such tenant") || !strings.HasPrefix(send("other"), "404") {
		t.Errorf("another's tenant: %s", send("other"))
	}
	if len(s.events) != 0 || s.count() != 1 {
		t.Errorf("something was done: %+v", s.events)
	}
}

func TestCallerWithOneTenantNeedNotNameIt(t *testing.T) {
	t.Parallel()
	in, s := build(t, as(Caller{Source: "login", Tenants: []string{"4711"}}))
	post(mux(in), "/v1/messages", `{"kind":"invite","to":"a@b.example"}`)
	if s.count() != 1 || s.messages[0].Tenant != "4711" {
		t.Errorf("kept %+v", s.messages)
	}
}

// D09: a stream that is longer than any request is not read to its end; nothing is
// decompressed; a body that ends early is not one.
func TestD09Streams(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(make([]byte, 10<<20))
	z.Close()
	for _, c := range []struct {
		name   string
		body   io.Reader
		status int
	}{
		{"1 GiB without a length", io.LimitReader(blanks{}, 1<<30), 413},
		{"gzip bomb that does not say so", &bomb, 400},
		{"cut off", io.MultiReader(strings.NewReader(good[:20]), broken{}), 400},
	} {
		counted := &counter{r: c.body}
		r := httptest.NewRequest(http.MethodPost, "/v1/messages", counted)
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = -1
		w := httptest.NewRecorder()
		mux(in).ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if counted.n > 2*MaxBody {
			t.Errorf("%s: read %d bytes", c.name, counted.n)
		}
	}
	if s.count() != 0 {
		t.Errorf("kept %+v", s.messages)
	}
}

type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// D10: a body that comes a byte at a time is given up after bodyTime, on a server that
// has no limit of its own for reading; and a wait is not cut short, neither by that
// limit nor by the server's for writing.
func TestD10SlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wait := make(chan struct{})
		in, s := build(t, func(o *Options) {
			o.Wait = func(ctx context.Context, _ mail.ID) mail.State {
				select {
				case <-wait:
				case <-ctx.Done():
				}
				if ctx.Err() != nil {
					return mail.StateExpired
				}
				return mail.StateAccepted
			}
		})
		connect := serve(t, mux(in))

		slow := connect()
		head := "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		io.WriteString(slow, head+"Content-Length: 1000\r\n\r\n{")
		began := time.Now()
		resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
		if err != nil || resp.StatusCode != 400 || !resp.Close {
			t.Fatalf("slow body: %+v, %v", resp, err)
		}
		if took := time.Since(began); took != bodyTime {
			t.Errorf("given up after %v, want %v", took, bodyTime)
		}

		patient := connect()
		io.WriteString(patient, head+"Prefer: wait=60\r\nContent-Length: "+strconv.Itoa(len(good))+"\r\n\r\n"+good)
		time.AfterFunc(3*bodyTime, func() { close(wait) })
		resp, err = http.ReadResponse(bufio.NewReader(patient), nil)
		if err != nil || resp.StatusCode != 202 {
			t.Fatalf("wait: %+v, %v", resp, err)
		}
		body, _ := io.ReadAll(resp.Body)
		if r := decodeAs[mail.Receipt](t, body); r.State != mail.StateAccepted || s.count() != 1 {
			t.Errorf("after the wait: %s", body)
		}
	})
}

// serve runs a handler on a server over pipes and returns how to connect to it.
func serve(t *testing.T, h http.Handler) (connect func() net.Conn) {
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h, WriteTimeout: 2 * bodyTime}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return func() net.Conn {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { ours.Close() })
		l.conns <- theirs
		return ours
	}
}

type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func TestCallerMay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tenants []string
		tenant  string
		want    bool
	}{
		{nil, "", false}, {nil, "a", false},
		{[]string{"a", "b"}, "b", true}, {[]string{"a"}, "b", false}, {[]string{"a"}, "", false},
		{[]string{AllTenants}, "", true}, {[]string{AllTenants}, "a", true},
		{[]string{""}, "", false}, // an empty entry in a token is no right
		{[]string{"a"}, AllTenants, false},
	} {
		if got := (Caller{Tenants: c.tenants}).May(c.tenant); got != c.want {
			t.Errorf("%q may %q: %v", c.tenants, c.tenant, got)
		}
	}
}

// A caller who hangs up is no failure to be logged; a store that fails is one, and
// what it says is the operator's alone.
func TestFailuresAreLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	in, s := build(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	s.fail = errors.New("stream is full")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := mail.Request{Kind: "pin", To: "a@b.example"}
	if _, err := in.Submit(ctx, everyone, r); err == nil || log.Len() != 0 {
		t.Errorf("hung up: %v, logged %s", err, &log)
	}
	if _, err := in.Submit(t.Context(), everyone, r); err == nil || strings.Contains(err.Error(), "full") || !strings.Contains(log.String(), "stream is full") {
		t.Errorf("failed: %v, logged %s", err, &log)
	}
}

func TestPreferWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefer []string
		want   time.Duration
	}{
		{nil, 0},
		{[]string{"wait=5"}, 5 * time.Second},
		{[]string{"Wait = 5"}, 5 * time.Second},
		{[]string{`respond-async, wait="7"; x=y`}, 7 * time.Second},
		{[]string{"return=minimal", "wait=3"}, 3 * time.Second},
		{[]string{"wait=1, wait=9"}, time.Second},
		{[]string{"wait=60"}, time.Minute},
		{[]string{"wait=3600"}, time.Minute},
		{[]string{"wait=0"}, 0},
		{[]string{"wait"}, 0},
		{[]string{"wait=-1"}, 0},
		{[]string{"wait=99999999999999999999"}, 0},
		{[]string{"waiting=5"}, 0},
	} {
		if got := preferredWait(c.prefer); got != c.want {
			t.Errorf("%q: %v, want %v", c.prefer, got, c.want)
		}
	}
}

func TestPreferWaitIsAnswered(t *testing.T) {
	t.Parallel()
	wait := func(o *Options) {
		o.Wait = func(ctx context.Context, _ mail.ID) mail.State {
			if d, ok := ctx.Deadline(); !ok || time.Until(d) > 5*time.Second {
				return "no deadline"
			}
			return mail.StateDelayed
		}
	}
	in, _ := build(t, wait)
	w := post(mux(in), "/v1/messages", good, "Prefer", "wait=5")
	if r := decodeAs[mail.Receipt](t, w.Body.Bytes()); w.Code != 202 || r.State != mail.StateDelayed {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := w.Header().Get("Preference-Applied"); got != "wait=5" {
		t.Errorf("Preference-Applied: %q", got)
	}
	in, _ = build(t)
	if w := post(mux(in), "/v1/messages", good, "Prefer", "wait=5"); w.Code != 202 || w.Header().Get("Preference-Applied") != "" {
		t.Errorf("nothing to wait with: %d %v", w.Code, w.Header())
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	in, s := build(t, func(o *Options) {
		o.TakesNoMail = func(ctx context.Context, domain string) bool {
			_, bounded := ctx.Deadline()
			return bounded && domain == "nordlys.example"
		}
		o.Delayed = func(domain string) string { return "Mail to this provider is late by 10 minutes." }
	})
	r := decodeAs[mail.Receipt](t, post(mux(in), "/v1/messages", good).Body.Bytes())
	if len(r.Warnings) != 2 || r.Warnings[0].Code != mail.WarnDomainNoMail || r.Warnings[1].Code != mail.WarnDestinationDelayed || s.count() != 1 {
		t.Errorf("warnings %+v", r.Warnings)
	}
}
