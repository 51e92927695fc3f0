package console

import (
	"bufio"
	"context"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestGetMessage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	reader := s.token("04711", ScopeRead)
	m := invite(2)
	_, byID := s.do(reader, "GET", "/v1/messages/"+string(m.ID), "")
	golden(t, "get_message.json", []byte(byID))
	for _, name := range []string{string(m.Ref), strings.ToLower(string(m.Ref)), strings.ReplaceAll(string(m.Ref), "-", "")} {
		if _, byRef := s.do(reader, "GET", "/v1/messages/"+name, ""); byRef != byID {
			t.Errorf("by reference %q:\n%s", name, byRef)
		}
	}
	_, finnish := s.do(reader, "GET", "/v1/messages/"+string(m.ID)+"?tz=Europe/Helsinki", "", "Accept-Language", "fi-FI,fi;q=0.9")
	got := into[Message](t, finnish)
	if got.Lang != "fi" || got.TimeZone != "Europe/Helsinki" || !strings.Contains(got.Verdict, "Luovutettu") || !strings.Contains(got.Verdict, "klo 11.15.09") {
		t.Errorf("in Finnish: %q in %s, %s", got.Verdict, got.Lang, got.TimeZone)
	}
	resp, body := s.do(reader, "GET", "/v1/messages/"+string(m.ID)+"?tz=../../etc/passwd", "")
	problem(t, resp, body, mail.ProblemInvalid, 400)
}

// The story is told though the queue can't be asked.
func TestGetMessageWithoutTheQueue(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.backend.liveErr = errSecretDetail
	resp, body := s.do(s.token("*", ScopeRead), "GET", "/v1/messages/"+string(invite(1).ID), "")
	if m := into[Message](t, body); resp.StatusCode != 200 || m.State != mail.StateDelayed || !strings.Contains(m.Ahead, "due now") {
		t.Errorf("%d: %s", resp.StatusCode, body)
	}
}

func TestGetEvents(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, body := s.do(s.token("04711", ScopeRead), "GET", "/v1/messages/"+string(invite(2).Ref)+"/events", "")
	var states []mail.State
	for _, e := range into[Events](t, body).Events {
		states = append(states, e.State)
	}
	if want := []mail.State{"queued", "delayed", "accepted"}; !slices.Equal(states, want) {
		t.Errorf("events %v, want %v", states, want)
	}
}

// What the queue does is seen by the reading that follows, though the view is a
// projection.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	reader := s.token("*", ScopeRead)
	for n := 10; n < 60; n++ {
		m := invite(n)
		s.log.add(greylistedThenHandedOver(m)...)
		_, body := s.do(reader, "GET", "/v1/messages/"+string(m.ID), "")
		if got := into[Message](t, body); got.State != mail.StateAccepted {
			t.Fatalf("message %d: state %q: %s", n, got.State, body)
		}
	}
}

// Someone who waits behind a view that is being rebuilt isn't told "not found".
func TestBehindIsNotNotFound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.backend.log = &testLog{}
	s.backend.log.events = []mail.LoggedEvent{{Seq: 1000}}
	resp, body := s.do(s.token("*", ScopeRead), "GET", "/v1/messages/"+string(testID(99)), "")
	problem(t, resp, body, mail.ProblemUnavailable, 503)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestPreferWait(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	reader := s.token("*", ScopeRead)
	m := invite(1)
	answer := make(chan string)
	go func() {
		resp, body := s.do(reader, "GET", "/v1/messages/"+string(m.ID), "", "Prefer", "respond-async, wait=30")
		if resp.Header.Get("Preference-Applied") != "wait=30" {
			t.Errorf("Preference-Applied %q", resp.Header.Get("Preference-Applied"))
		}
		answer <- body
	}()
	for !s.api.View.hub.watched(m.ID) {
		runtime.Gosched()
	}
	s.log.add(greylistedThenHandedOver(m)[2])
	if got := into[Message](t, <-answer); got.State != mail.StateAccepted {
		t.Errorf("waited and got %q", got.State)
	}
}

func (h *hub) watched(id mail.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers[id]) > 0
}

func TestPreferredWait(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"": 0, "wait": 0, "wait=5": 5 * time.Second, "WAIT=5; x=y": 5 * time.Second, `wait="7"`: 7 * time.Second, "wait=-1": 0,
		"wait=x": 0, "wait=100000000000000000000": 0, "wait=65000": MaxWait, "respond-async,wait=3": 3 * time.Second,
	} {
		r := &http.Request{Header: http.Header{"Prefer": {header}}}
		if got := preferredWait(r); got != want {
			t.Errorf("Prefer: %s: %v, want %v", header, got, want)
		}
	}
}

func TestListMessages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	all := s.token("*", ScopeRead)
	get := func(token, query string) (ids []mail.ID, cursor string) {
		t.Helper()
		_, body := s.do(token, "GET", "/v1/messages"+query, "")
		page := into[Messages](t, body)
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
		return ids, page.Cursor
	}
	check := func(what string, got []mail.ID, want ...int) {
		t.Helper()
		var ids []mail.ID
		for _, n := range want {
			ids = append(ids, testID(n))
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%s: %v, want %v", what, got, ids)
		}
	}
	ids, cursor := get(all, "?limit=2")
	check("first page", ids, 3, 2)
	ids, _ = get(all, "?limit=2&cursor="+cursor)
	check("second page", ids, 1)
	ids, _ = get(all, "?state=delayed")
	check("state", ids, 1)
	ids, _ = get(all, "?to=Someone@other.example")
	check("address", ids, 3)
	ids, _ = get(s.token("04711", ScopeRead), "")
	check("a bound token", ids, 2, 1)
	ids, _ = get(s.token("04711", ScopeRead), "?tenant=other")
	check("another tenant's", ids)

	for _, query := range []string{"?limit=0", "?limit=x", "?limit=501", "?state=delivered", "?cursor=zzz"} {
		resp, body := s.do(all, "GET", "/v1/messages"+query, "")
		problem(t, resp, body, mail.ProblemInvalid, 400)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	actor := s.token("04711", ScopeAct)
	m := invite(1)
	_, body := s.do(actor, "POST", "/v1/messages/"+string(m.Ref)+"/cancel", `{"reason": " wrong person "}`)
	if got := into[Message](t, body); got.State != mail.StateCancelled || !strings.Contains(got.Verdict, "cancelled by tester") {
		t.Errorf("cancelled: %s", body)
	}
	if acts := s.backend.noted(); !slices.Equal(acts, []string{"cancel " + string(m.ID) + " tester wrong person"}) {
		t.Errorf("acts %q", acts)
	}
	for _, body := range []string{`{}`, `{"reason": "  "}`, `{"reason": "a\nb"}`, `{"reason": "` + strings.Repeat("x", 501) + `"}`, `{"reason": "a", "who": "b"}`, `[]`, `{"reason": 1}`, `{"reason": "a"} x`} {
		resp, answer := s.do(actor, "POST", "/v1/messages/"+string(m.Ref)+"/cancel", body)
		problem(t, resp, answer, mail.ProblemInvalid, 400)
	}
	resp, answer := s.do(actor, "POST", "/v1/messages/"+string(m.Ref)+"/cancel", `{"reason": "`+strings.Repeat("x", 20<<10)+`"}`)
	problem(t, resp, answer, mail.ProblemTooLarge, 413)
	s.backend.fail = &mail.Problem{Type: mail.ProblemAlreadyEnded, Title: "It has ended", Status: 409}
	resp, answer = s.do(actor, "POST", "/v1/messages/"+string(m.Ref)+"/cancel", `{"reason": "late"}`)
	problem(t, resp, answer, mail.ProblemAlreadyEnded, 409)
	if acts := s.backend.noted(); len(acts) != 0 {
		t.Errorf("refused requests acted: %q", acts)
	}
}

// What fails inside is logged, not told.
func TestInnerErrorsAreNotTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.backend.fail = errSecretDetail
	resp, body := s.do(s.token("*", ScopeAct), "POST", "/v1/queue/pause", `{"selector":"kind:invite","reason":"x"}`)
	problem(t, resp, body, mail.ProblemUnavailable, 503)
	if strings.Contains(body, "CANARY") {
		t.Errorf("told: %s", body)
	}
}

func TestQueueActs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	all, bound := s.token("*", ScopeAct, ScopeRead), s.token("04711", ScopeAct, ScopeRead)
	for _, act := range []string{"pause", "resume", "retry"} {
		resp, body := s.do(all, "POST", "/v1/queue/"+act, `{"selector":"domain:nordlys.example","reason":"their maintenance"}`)
		if resp.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %d %s", act, resp.StatusCode, body)
		}
		resp, _ = s.do(bound, "POST", "/v1/queue/"+act, `{"selector":"tenant:04711","reason":"r"}`)
		if resp.StatusCode != http.StatusNoContent {
			t.Errorf("%s of the own tenant: %d", act, resp.StatusCode)
		}
		if got, want := s.backend.noted(), []string{act + " domain:nordlys.example tester their maintenance", act + " tenant:04711 tester r"}; !slices.Equal(got, want) {
			t.Errorf("acts %q, want %q", got, want)
		}
		resp, body = s.do(bound, "POST", "/v1/queue/"+act, `{"selector":"domain:nordlys.example","reason":"r"}`)
		problem(t, resp, body, mail.ProblemNotAllowed, 403)
		resp, body = s.do(bound, "POST", "/v1/queue/"+act, `{"selector":"tenant:other","reason":"r"}`)
		problem(t, resp, body, mail.ProblemNotFound, 404)
		for _, selector := range []string{"", "invite", "colour:red", "kind:", "kind:a\\u0000b"} {
			resp, body = s.do(all, "POST", "/v1/queue/"+act, `{"selector":"`+selector+`","reason":"r"}`)
			problem(t, resp, body, mail.ProblemInvalid, 400)
		}
	}
	s.backend.queue = Queue{At: clock(), Waiting: 3, ByKind: []Waiting{{Name: "pin", Waiting: 3}}}
	_, body := s.do(all, "GET", "/v1/queue", "")
	golden(t, "queue.json", []byte(body))
	resp, body := s.do(bound, "GET", "/v1/queue", "")
	problem(t, resp, body, mail.ProblemNotAllowed, 403)
	if acts := s.backend.noted(); len(acts) != 0 {
		t.Errorf("refused requests acted: %q", acts)
	}
}

func TestSuppressions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bound := s.token("04711", ScopeAct, ScopeRead)
	s.backend.stops = []mail.Suppression{
		{Tenant: "04711", Address: "a@b.example", Cause: mail.CauseBadMailbox, Since: monday, By: "deliverd"},
		{Tenant: "other", Address: "c@d.example", Cause: mail.CauseBadMailbox, Since: monday, By: "deliverd"},
	}
	for _, query := range []string{"", "?tenant=04711"} {
		_, body := s.do(bound, "GET", "/v1/suppressions"+query, "")
		if got := into[Suppressions](t, body).Suppressions; len(got) != 1 || got[0].Address != "a@b.example" {
			t.Errorf("list%s: %s", query, body)
		}
	}
	_, body := s.do(bound, "GET", "/v1/suppressions?tenant=other", "")
	if got := into[Suppressions](t, body).Suppressions; len(got) != 0 {
		t.Errorf("another tenant's: %s", body)
	}
	resp, body := s.do(bound, "POST", "/v1/suppressions", `{"tenant":"04711","address":"x@y.example","reason":"asked for it"}`)
	if got := into[mail.Suppression](t, body); resp.StatusCode != http.StatusCreated || got.By != "tester" || got.Cause != mail.CauseSuppressed {
		t.Errorf("suppress: %d %s", resp.StatusCode, body)
	}
	resp, _ = s.do(bound, "DELETE", "/v1/suppressions?tenant=04711&address=x@y.example&reason=mailbox+made", "")
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("lift: %d", resp.StatusCode)
	}
	resp, _ = s.do(bound, "DELETE", "/v1/suppressions", `{"tenant":"04711","address":"x@y.example","reason":"mailbox made"}`)
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("lift, told in the body: %d", resp.StatusCode)
	}
	lifted := "lift 04711 x@y.example tester mailbox made"
	if got, want := s.backend.noted(), []string{"suppress 04711 x@y.example tester asked for it", lifted, lifted}; !slices.Equal(got, want) {
		t.Errorf("acts %q, want %q", got, want)
	}
	resp, body = s.do(bound, "POST", "/v1/suppressions", `{"tenant":"other","address":"x@y.example","reason":"r"}`)
	problem(t, resp, body, mail.ProblemNotFound, 404)
	resp, body = s.do(bound, "DELETE", "/v1/suppressions?tenant=other&address=c@d.example&reason=r", "")
	problem(t, resp, body, mail.ProblemNotFound, 404)
	resp, body = s.do(bound, "POST", "/v1/suppressions", `{"tenant":"04711","address":"x@y.example> NOTIFY=NEVER","reason":"r"}`)
	problem(t, resp, body, mail.ProblemInvalid, 400)
	if strings.Contains(body, "NOTIFY") {
		t.Errorf("repeats the request: %s", body)
	}
	resp, body = s.do(bound, "POST", "/v1/suppressions", `{"tenant":"04711","address":"x@y.example","reason":"r","until":"2020-01-01T00:00:00Z"}`)
	problem(t, resp, body, mail.ProblemInvalid, 400)
	if acts := s.backend.noted(); len(acts) != 0 {
		t.Errorf("refused requests acted: %q", acts)
	}
}

func TestPeople(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	all, bound := s.token("*", ScopeRead), s.token("04711", ScopeRead)
	moved := invite(5) // the same person at a new address
	moved.To, moved.ToName = "kari.uusi@nordlys.example", "Kari Uusi"
	s.log.add(greylistedThenHandedOver(moved)[0])
	kari := PersonKey("04711", "usr_123", "")

	for q, want := range map[string]string{
		"kari.nordmann@nordlys.example": kari, "KARI.UUSI": kari, "usr_123": kari, "04711": kari, "kari u": kari,
		string(invite(1).Ref): kari, string(invite(2).ID): kari, "nobody": "", "": "", "usr_9": "",
	} {
		_, body := s.do(bound, "GET", "/v1/people?q="+strings.ReplaceAll(q, " ", "%20"), "")
		got := into[People](t, body).People
		switch {
		case want == "" && len(got) == 0:
		case want != "" && len(got) == 1 && got[0].ID == want && got[0].Latest.ID == moved.ID || len(got) == 1 && q != "nobody" && want == got[0].ID:
		default:
			t.Errorf("who is %q: %s", q, body)
		}
	}
	_, body := s.do(bound, "GET", "/v1/people/"+kari+"?lang=fi", "")
	got := into[PersonStory](t, body)
	if want := []mail.Address{"kari.uusi@nordlys.example", "kari.nordmann@nordlys.example"}; !slices.Equal(got.Addresses, want) || len(got.Messages) != 3 ||
		got.Message.ID != moved.ID || got.Message.Lang != "fi" {
		t.Errorf("person: %s", body)
	}
	_, body = s.do(bound, "GET", "/v1/people/"+kari+"/reply", "")
	if got := into[ReplyText](t, body); got.Lang != "en" || got.Text == "" {
		t.Errorf("reply: %s", body)
	}
	other := PersonKey("other", "usr_9", "")
	if resp, _ := s.do(all, "GET", "/v1/people/"+other, ""); resp.StatusCode != 200 {
		t.Errorf("with every tenant: %d", resp.StatusCode)
	}
	_, unknown := s.do(bound, "GET", "/v1/people/per_unknown", "")
	for _, path := range []string{"/v1/people/" + other, "/v1/people/" + other + "/reply"} {
		resp, body := s.do(bound, "GET", path, "")
		problem(t, resp, body, mail.ProblemNotFound, 404)
		if body != unknown {
			t.Errorf("%s tells more than that there is nothing: %s", path, body)
		}
	}
}

// readStream sends the stream's fields to a channel until ctx ends.
func (s *site) readStream(ctx context.Context, token, query, lastEventID string) <-chan string {
	s.t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", s.server.URL+"/v1/events"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if lastEventID != "" {
		r.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := s.server.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		s.t.Errorf("Content-Type %q", got)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		defer resp.Body.Close()
		for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
			select {
			case lines <- scan.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// fields reads n events' lines that begin with the field's name.
func fields(lines <-chan string, name string, n int) (values []string) {
	for line := range lines {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			if values = append(values, v); len(values) == n {
				break
			}
		}
	}
	return values
}

func TestEventStream(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.api.View.CatchUp(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	all, bound := s.token("*", ScopeRead), s.token("04711", ScopeRead)

	if got, want := fields(s.readStream(ctx, all, "", "5"), "id", 3), []string{"6", "7", "8"}; !slices.Equal(got, want) {
		t.Errorf("after 5: %v, want %v", got, want)
	}
	if got, want := fields(s.readStream(ctx, all, "?after=0&state=delayed", ""), "id", 3), []string{"2", "4", "7"}; !slices.Equal(got, want) {
		t.Errorf("delayed: %v, want %v", got, want)
	}
	live := s.readStream(ctx, bound, "", "")
	blind := s.readStream(ctx, bound, "?tenant=other", "0")
	if first := <-live; first != ": the events after place 8" {
		t.Errorf("the stream begins with %q", first)
	}
	other := otherTenants()
	other.ID = testID(7)
	s.log.add(greylistedThenHandedOver(other)...)
	s.log.add(greylistedThenHandedOver(invite(8))...)
	if got, want := fields(live, "id", 3), []string{"12", "13", "14"}; !slices.Equal(got, want) {
		t.Errorf("live, one tenant's: %v, want %v", got, want)
	}
	cancel()
	if got := fields(blind, "id", 1); len(got) != 0 {
		t.Errorf("another tenant's events were told: %v", got)
	}
	resp, body := s.do(all, "GET", "/v1/events", "", "Last-Event-ID", "-1")
	problem(t, resp, body, mail.ProblemInvalid, 400)
}

func TestEventStreamHeartbeat(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.api.Heartbeat = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := s.readStream(ctx, s.token("*", ScopeRead), "", "")
	for line := range lines {
		if line == ": alive" {
			return
		}
	}
	t.Error("the stream ended without a heartbeat")
}

// An event's verb is part of the stream's framing.
func TestEventStreamFraming(t *testing.T) {
	t.Parallel()
	for verb, want := range map[string]string{"accepted": "accepted", "at_risk": "at_risk", "a\ndata: x": "a", "": "", "A": ""} {
		if got := oneWord(verb); got != want {
			t.Errorf("%q: %q, want %q", verb, got, want)
		}
	}
}

// What waits is safe and so never "not found", even while the log, and with it the
// view, is still to hear of it, as after a crash.
func TestWhatWaitsIsNotNotFound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	reader := s.token(AllTenants, ScopeRead)
	path := "/v1/messages/" + string(mail.NewID(monday))
	resp, body := s.do(reader, "GET", path, "")
	problem(t, resp, body, mail.ProblemNotFound, 404)
	s.backend.live = Live{Attempt: 1}
	resp, body = s.do(reader, "GET", path, "")
	problem(t, resp, body, mail.ProblemUnavailable, 503)
}
