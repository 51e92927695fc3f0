package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// call makes one request of the daemon's API. headers are "Name: value".
func (d *Daemon) call(t *testing.T, token, method, path, body string, headers ...string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+d.HTTPAddr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// token makes a token straight in the store.
func (d *Daemon) token(t *testing.T, token console.Token) (secret, id string) {
	t.Helper()
	token.Name, token.CreatedBy = "test", "test"
	secret, kept, err := d.tokens.New(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return secret, kept.ID
}

func (d *Daemon) admin(t *testing.T) string {
	t.Helper()
	secret, _ := d.token(t, console.Token{Scopes: []console.Scope{console.ScopeAdmin}, Tenants: []string{console.AllTenants}})
	return secret
}

// sent hands a message over through the API and waits until it is in the state, or
// has ended.
func (d *Daemon) sent(t *testing.T, token, body string, state mail.State) mail.ID {
	t.Helper()
	status, answer := d.call(t, token, "POST", "/v1/messages", body)
	var r mail.Receipt
	if err := json.Unmarshal([]byte(answer), &r); err != nil || status != http.StatusAccepted {
		t.Fatalf("%d %s, %v", status, answer, err)
	}
	got, err := d.view.Wait(t.Context(), r.ID, func(s mail.State) bool { return s == state || s.Terminal() })
	if err != nil || got != state {
		t.Fatalf("%s, %v; want %s", got, err, state)
	}
	return r.ID
}

// TestMetrics: the series that people's dashboards and alarms stand on have the
// values of what happened, under labels that say nothing of anybody.
func TestMetrics(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, nil)
	admin := d.admin(t)
	began := time.Now()
	d.sent(t, admin, aPIN("kari@nordlys.example", "111111"), mail.StateAccepted)
	d.sent(t, admin, aPIN("refuse@nordlys.example", "111111"), mail.StateRefused)
	d.sent(t, admin, `{"kind": "invite", "to": "greylist@nordlys.example", "tenant": "4711", "data": {"link": "https://login.acme.example/i/1", "inviter": "Lars"}}`, mail.StateDelayed)
	took := time.Since(began)

	status, text := d.call(t, "", "GET", "/metrics", "")
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	series := map[string]string{}
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 {
			series[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	for name, want := range map[string]string{
		`deliverd_enqueue_to_first_attempt_seconds_count{kind="pin"}`:                     "2",
		`deliverd_enqueue_to_first_attempt_seconds_count{kind="invite"}`:                  "1",
		`deliverd_enqueue_to_handed_over_seconds_count{kind="pin"}`:                       "1",
		`deliverd_enqueue_to_handed_over_seconds_count{kind="invite"}`:                    "",
		`deliverd_attempts_total{cause="",provider="other",state="accepted"}`:             "1",
		`deliverd_attempts_total{cause="bad_mailbox",provider="other",state="refused"}`:   "1",
		`deliverd_attempts_total{cause="greylisted",provider="other",state="delayed"}`:    "1",
		`deliverd_waiting_messages{kind="invite",state="delayed"}`:                        "1",
		`deliverd_waiting_messages{kind="invite",state="queued"}`:                         "0",
		`deliverd_waiting_messages{kind="invite",state="sending"}`:                        "0",
		`deliverd_expiring_messages{kind="invite"}`:                                       "0",
		`deliverd_events_total{kind="pin",state="accepted"}`:                              "1",
		`deliverd_unaccounted_messages{how="lost"}`:                                       "0",
		`deliverd_unaccounted_messages{how="overdue"}`:                                    "0",
		`deliverd_requests_total{door="http",operation="POST /v1/messages",status="202"}`: "3",
	} {
		if series[name] != want {
			t.Errorf("%s is %q, want %q", name, series[name], want)
		}
	}
	for _, name := range []string{
		`deliverd_enqueue_to_first_attempt_seconds_sum{kind="pin"}`, `deliverd_enqueue_to_handed_over_seconds_sum{kind="pin"}`,
		`deliverd_oldest_waiting_seconds{kind="invite"}`, `deliverd_attempt_seconds_sum{state="accepted"}`,
	} {
		if v, err := strconv.ParseFloat(series[name], 64); err != nil || v <= 0 || v > 2*took.Seconds() {
			t.Errorf("%s is %q, after %v", name, series[name], took)
		}
	}
	for _, private := range []string{"nordlys", `"4711"`, "kari", `"111111"`} {
		if strings.Contains(text, private) {
			t.Errorf("the metrics tell of %q", private)
		}
	}
	// Behind a proxy everybody would come from this machine.
	for _, h := range []string{"X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1"} {
		if status, text := d.call(t, admin, "GET", "/metrics", "", h); status != http.StatusNotFound || strings.Contains(text, "deliverd_") {
			t.Errorf("%s: %d", h, status)
		}
	}
}

// TestReadiness: who balances load sends nothing to a daemon whose store does not
// answer; it lives all the same, and is ready again by itself.
func TestReadiness(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, nil)
	ready := func(want int) func() bool {
		return func() bool { status, _ := d.call(t, "", "GET", "/readyz", ""); return status == want }
	}
	waitFor(t, "it was ready", ready(http.StatusOK))
	d.embedded.stop()
	waitFor(t, "it was not ready", ready(http.StatusServiceUnavailable))
	if _, text := d.call(t, "", "GET", "/readyz", ""); !strings.Contains(text, `"status":"unavailable"`) || !strings.Contains(text, "NATS") {
		t.Errorf("it says %s", text)
	}
	if status, _ := d.call(t, "", "GET", "/healthz", ""); status != http.StatusOK {
		t.Errorf("healthz says %d", status)
	}
	if err := d.embedded.start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it was ready again", ready(http.StatusOK))
}

// TestOpenAPIIsServed: the document that the API serves describes every door there is,
// and none that isn't.
func TestOpenAPIIsServed(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, nil)
	status, text := d.call(t, "", "GET", "/openapi.json", "")
	var document struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	var described, served []string
	for path, methods := range document.Paths {
		for method := range methods {
			if method != "parameters" {
				described = append(described, strings.ToUpper(method)+" "+path)
			}
		}
	}
	signIn, err := d.signIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	routes, err := d.routes(t.Context(), signIn)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		served = append(served, r.Method+" "+r.Pattern)
	}
	for _, door := range served {
		forPeople := !strings.Contains(door, " /v1/") // pages, and what the supervisor asks
		if !slices.Contains(described, door) && !forPeople {
			t.Errorf("not in the document: %s", door)
		}
	}
	for _, door := range described {
		if !slices.Contains(served, door) {
			t.Errorf("only in the document: %s", door)
		}
	}
}

// TestTokensAreBound: a token does what its scopes say, for its tenants, until it is
// revoked or over; what is another tenant's isn't there (G14).
func TestTokensAreBound(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, nil)
	admin := d.admin(t)
	tenant := func(tenant string, scopes ...console.Scope) console.Token {
		return console.Token{Scopes: scopes, Tenants: []string{tenant}}
	}
	send, _ := d.token(t, tenant("4711", console.ScopeSend))
	read, _ := d.token(t, tenant("4711", console.ScopeRead))
	all := []console.Scope{console.ScopeSend, console.ScopeRead, console.ScopeAct, console.ScopeDomains, console.ScopeAdmin}
	other, otherID := d.token(t, tenant("4712", all...))
	over, _ := d.token(t, console.Token{Scopes: all, Tenants: []string{console.AllTenants}, ExpiresAt: time.Now().Add(time.Millisecond)})

	const pin = `{"kind": "pin", "to": "greylist@nordlys.example", "data": {"code": "111111"}%s}`
	id := d.sent(t, send, fmt.Sprintf(pin, ""), mail.StateDelayed) // the only tenant that it may speak for is implied
	message := "/v1/messages/" + string(id)
	if status, text := d.call(t, read, "GET", message, ""); status != http.StatusOK || !strings.Contains(text, `"tenant": "4711"`) {
		t.Errorf("%d %s", status, text)
	}
	var person struct{ Person string }
	if _, text := d.call(t, read, "GET", message, ""); json.Unmarshal([]byte(text), &person) != nil || person.Person == "" {
		t.Fatalf("no person in %s", text)
	}
	const reason = `{"reason": "x"}`
	for _, tt := range []struct {
		token, method, path, body string
		status                    int
	}{
		{"", "GET", message, "", 401},
		{"dlv_none", "GET", message, "", 401},
		{over, "GET", message, "", 401},
		{read, "POST", "/v1/messages", fmt.Sprintf(pin, ""), 403},
		{send, "GET", message, "", 403},
		{read, "POST", message + "/cancel", reason, 403},
		{read, "GET", "/v1/tokens", "", 403},
		{send, "POST", "/v1/messages", fmt.Sprintf(pin, `, "tenant": "4712"`), 404},
		{other, "POST", "/v1/messages", fmt.Sprintf(pin, `, "tenant": "4712", "resend_of": "`+string(id)+`"`), 404},
		{other, "GET", message, "", 404},
		{other, "GET", "/v1/messages/" + string(id.Ref()), "", 404},
		{other, "GET", message + "/events", "", 404},
		{other, "POST", message + "/cancel", reason, 404},
		{other, "GET", "/v1/people/" + person.Person, "", 404},
		{other, "GET", "/v1/people/" + person.Person + "/reply", "", 404},
		{other, "POST", "/v1/outcomes", `{"message": "` + string(id) + `", "outcome": "used"}`, 404},
		{other, "POST", "/v1/suppressions", `{"tenant": "4711", "address": "kari@nordlys.example", "reason": "x"}`, 404},
		{other, "DELETE", "/v1/suppressions", `{"tenant": "4711", "address": "kari@nordlys.example", "reason": "x"}`, 404},
		{other, "POST", "/v1/tokens", `{"name": "more", "scopes": ["admin"]}`, 403},
		{other, "DELETE", "/v1/tokens/" + otherID, "", 403},
	} {
		status, text := d.call(t, tt.token, tt.method, tt.path, tt.body)
		if status != tt.status || strings.Contains(text, "nordlys") {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, status, text, tt.status)
		}
	}
	for _, list := range []string{"/v1/messages", "/v1/messages?tenant=4711", "/v1/people?q=greylist", "/v1/people?q=greylist&tenant=4711", "/v1/suppressions?tenant=4711"} {
		if status, text := d.call(t, other, "GET", list, ""); status != http.StatusOK || strings.Contains(text, "nordlys") || strings.Contains(text, string(id)) {
			t.Errorf("%s: %d %s", list, status, text)
		}
	}
	if s, err := d.queue.Status(t.Context(), id); err != nil || s.State != mail.StateDelayed {
		t.Errorf("after all that: %s, %v", s.State, err)
	}

	if status, text := d.call(t, admin, "DELETE", "/v1/tokens/"+otherID, ""); status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", status, text)
	}
	if status, _ := d.call(t, other, "GET", "/v1/messages", ""); status != http.StatusUnauthorized {
		t.Errorf("revoked: %d", status)
	}
	if status, _ := d.call(t, read, "GET", "/v1/messages", ""); status != http.StatusOK {
		t.Errorf("another token, not revoked: %d", status)
	}
}
