package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/deliver/smtptest"
)

// The secrets that are put through every path. Nobody may ever read them again but
// the recipient (law 5).
const (
	canaryCode  = "KANARIE-4711-PIN"
	canaryToken = "kanarieTokenOfTheLink0123456789"
	canaryLink  = "https://login.acme.example/i/" + canaryToken + "?v=1"
	canaryOwn   = "kanarie own secret of the caller"
)

// TestCanary sends secrets through acceptance, delays, refusals that quote them,
// errors of every sort, a crash and a restart, and then looks for them in all that
// anybody could read: answers, events, stories, metrics, logs, and every byte on disk.
func TestCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Keep: 1000}, `
[log]
level = "debug"
[kinds.invite]
retries = ["1s"]
[kinds.reset]
retries = ["1h"]
`)
	// Servers like to quote what they object to.
	quote := " your message says " + canaryCode + " and " + canaryLink + " and " + canaryOwn
	for pattern, how := range map[string]smtptest.Behaviour{
		"quoted@refuse.example": {Reply: "550 5.7.1" + quote, Stage: smtptest.StageDot},
		"quoted@delay.example":  {Reply: "451 4.7.1" + quote, Stage: smtptest.StageDot},
		"vanish@*":              {Vanish: true, Stage: smtptest.StageDot},
	} {
		if err := w.sink.Tell(pattern, how); err != nil {
			t.Fatal(err)
		}
	}
	p := w.start(t)
	seen := &eyes{t: t}
	api := httpEyes{seen: seen, base: "http://" + w.http, token: w.token(t)}

	stream, stopStream := context.WithCancel(t.Context())
	defer stopStream()
	events := api.follow(stream, "/v1/events?after=0")

	data := map[string]any{"code": canaryCode, "pin": canaryCode, "link": canaryLink, "note": canaryOwn, "inviter": "Lars",
		"text": "go to " + canaryLink + " now"}
	body := func(kind, to string, more string) string {
		return fmt.Sprintf(`{"kind": %q, "to": %q, "tenant": "4711", "secrets": ["note"], "data": {"code": %q, "pin": %q, "link": %q, "note": %q, "inviter": "Lars", "text": %q}%s}`,
			kind, to, canaryCode, canaryCode, canaryLink, canaryOwn, data["text"], more)
	}
	var ids []string
	for _, to := range []string{"kari@nordlys.example", "quoted@refuse.example", "quoted@delay.example", "vanish@gone.example"} {
		for _, kind := range []string{"invite", "reset", "pin"} {
			ids = append(ids, api.accepted(body(kind, to, "")))
		}
	}
	// What is refused must not repeat what was sent.
	for _, bad := range []string{
		body("invite", "not an address "+canaryCode, ""),
		body("no-such-kind-"+canaryCode, "kari@nordlys.example", ""),
		body("invite", "kari@nordlys.example", `, "unknown_field": "`+canaryCode+`"`),
		body("invite", "kari@nordlys.example", `, "metadata": {"x": "`+canaryCode+`"}`),
		body("invite", "kari@nordlys.example", `, "to_name": "`+canaryLink+`"`),
		body("invite", "kari@nordlys.example", `, "expires_at": "`+canaryCode+`"`),
		body("invite", "kari@nordlys.example", "")[:200],
		`{"` + canaryCode + `": 1}`,
		`"` + canaryCode + `"`,
		`{"kind": "invite", "to": "kari@nordlys.example", "data": {"link": "javascript:` + canaryToken + `"}}`,
		`{"kind": "invite", "to": "kari@nordlys.example", "data": {"code": "` + canaryCode + `"}}`,
	} {
		api.call("POST", "/v1/messages", bad)
		api.call("POST", "/v1/messages:validate", bad)
	}
	api.call("POST", "/v1/messages:validate", body("invite", "kari@nordlys.example", ""))
	api.call("POST", "/v1/messages/"+canaryCode+"/cancel", `{"reason": "x"}`) // a path is no place for a secret, and still
	key := `, "idempotency_key": "one"`
	api.accepted(body("invite", "key@nordlys.example", key))
	api.call("POST", "/v1/messages", strings.Replace(body("invite", "key@nordlys.example", key), "Lars", "Liv", 1))
	w.overNATS(t, seen, body("pin", "nats@nordlys.example", ""))
	w.overNATS(t, seen, body("pin", canaryCode, ""))

	// A message that waits, is seen waiting, and survives a crash.
	for _, id := range ids {
		api.call("GET", "/v1/messages/"+id, "")
	}
	time.Sleep(time.Second) // let some attempts be made before the crash, and some after
	p.kill()
	seen.look("log", p.stderr.String())
	p = w.start(t)
	for _, id := range ids {
		out, errs, _ := w.deliverd(t, "show", id)
		seen.look("show", out+errs)
		out, errs, _ = w.deliverd(t, "show", "--json", id)
		seen.look("show --json", out+errs)
		api.call("GET", "/v1/messages/"+id+"/events", "")
		for _, page := range []string{"", "?lang=fi", "?as=text", "/preview", "/preview?as=dark", "/raw", "/resend"} {
			api.call("GET", "/messages/"+id+page, "")
		}
	}
	api.call("POST", "/v1/messages/"+ids[7]+"/cancel", `{"reason": "no longer wanted"}`)
	for _, path := range []string{"/metrics", "/v1/queue", "/v1/messages", "/v1/people?q=kari", "/v1/suppressions", "/readyz", "/openapi.json", "/v1/incidents", "/v1/log?format=csv", "/status", "/status.json",
		"/", "/search?q=kari", "/search?q=nobody", "/delays", "/delays?act=plan", "/suppressed", "/templates", "/templates?data=long", "/templates/invite/preview", "/log", "/health", "/live?all=x",
	} {
		api.call("GET", path, "")
	}
	out, errs, _ := w.deliverd(t, "queue")
	seen.look("queue", out+errs)
	stopStream()
	seen.look("event stream", <-events)
	p.stop()
	seen.look("log", p.stderr.String())
	seen.lookAtFiles(filepath.Join(w.dir, "data"))

	// The recipient did get it: otherwise the test shows nothing.
	found := false
	for m := range w.sink.Mails() {
		found = found || bytes.Contains(m.Raw, []byte(canaryCode))
	}
	if !found {
		t.Error("no mail with the code arrived")
	}
}

// eyes look for the canaries.
type eyes struct{ t *testing.T }

// needles are the canaries, plain and in the encodings in which they could hide.
func needles() map[string][]byte {
	all := map[string][]byte{}
	for _, c := range []string{canaryCode, canaryToken, canaryOwn} {
		all[c] = []byte(c)
		all[c+" in lower case"] = bytes.ToLower([]byte(c))
		all[c+" in hexadecimal"] = []byte(hex.EncodeToString([]byte(c)))
		all[c+" escaped"] = []byte(url.QueryEscape(c))
		for shift := range 3 { // base64 of a text depends on where it begins
			encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + c))
			all[fmt.Sprint(c, " in base64, shifted by ", shift)] = []byte(encoded[4 : len(encoded)-4])
		}
	}
	return all
}

func (e *eyes) look(where, text string) {
	e.t.Helper()
	for what, needle := range needles() {
		if i := strings.Index(text, string(needle)); i >= 0 {
			e.t.Errorf("%s shows %s: …%s…", where, what, text[max(0, i-80):min(len(text), i+len(needle)+40)])
		}
	}
}

func (e *eyes) lookAtFiles(dir string) {
	e.t.Helper()
	files := 0
	addresses := 0 // which are no secret: to see that the files can be read at all
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		addresses += strings.Count(string(text), "quoted@refuse.example")
		e.look(strings.TrimPrefix(path, dir), string(text))
		return nil
	})
	if err != nil || files < 10 || addresses == 0 {
		e.t.Errorf("looked at %d files, with %d addresses in clear: %v", files, addresses, err)
	}
}

// httpEyes make requests and look at the answers.
type httpEyes struct {
	seen        *eyes
	base, token string
}

func (h httpEyes) do(ctx context.Context, method, path, body string) *http.Response {
	h.seen.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, h.base+path, strings.NewReader(body))
	if err != nil {
		h.seen.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.seen.t.Fatal(err)
	}
	return resp
}

func (h httpEyes) call(method, path, body string) string {
	h.seen.t.Helper()
	resp := h.do(h.seen.t.Context(), method, path, body)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.seen.t.Fatal(err)
	}
	where := method + " " + path
	h.seen.look(where, string(text))
	for name, values := range resp.Header {
		h.seen.look(where+" header "+name, strings.Join(values, " "))
	}
	return string(text)
}

// accepted sends a message that has to be taken.
func (h httpEyes) accepted(body string) string {
	h.seen.t.Helper()
	text := h.call("POST", "/v1/messages", body)
	_, id, ok := strings.Cut(text, `"id":"`)
	if !ok {
		h.seen.t.Fatalf("not accepted: %s", text)
	}
	return id[:strings.IndexByte(id, '"')]
}

// follow reads a stream until ctx ends.
func (h httpEyes) follow(ctx context.Context, path string) <-chan string {
	all := make(chan string, 1)
	resp := h.do(ctx, "GET", path, "")
	go func() {
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body) // ends with ctx or the daemon
		all <- string(text)
	}()
	return all
}

func (w *world) token(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "data", "local.token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (w *world) overNATS(t *testing.T, seen *eyes, body string) {
	t.Helper()
	nc, err := nats.Connect("nats://" + w.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	reply, err := nc.RequestWithContext(t.Context(), "deliverd.v1.send.login", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	seen.look("NATS reply", string(reply.Data))
}
