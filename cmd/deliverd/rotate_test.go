package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
	"github.com/deliverd/deliverd/mail"
)

// TestRotateLeakedKey retires a key that leaked while the daemon runs: the message that
// waits with its signature is signed anew, new mail is held until every resolver shows
// the next keys, and then both go out with those.
func TestRotateLeakedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Ledger: true, Rules: smtptest.Newcomers()}, "[kinds.invite]\nretries = [\"3s\"]\n")
	second, err := dnstest.Start(everyDomain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	both := strings.Replace(string(text), `servers = ["`, `servers = ["`+second.Addr+`", "`, 1)
	if err := os.WriteFile(w.config, []byte(both), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.start(t)
	c := w.client(t)

	waits, err := c.SendAndWait(t.Context(), invite("1", "greylist@nordlys.example"), 0)
	if err != nil {
		t.Fatal(err)
	}
	becomes(t, c, waits.ID, mail.StateDelayed) // its signed bytes are kept
	out, errs, status := w.deliverd(t, "dkim", "rotate", "--retire", "r", "--json")
	if status != 0 {
		t.Fatalf("dkim rotate: %d %s%s", status, out, errs)
	}
	var shown struct {
		Generations []rotationShown `json:"generations"`
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Generations) != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	leaked, next := shown.Generations[0], shown.Generations[1]
	if leaked.Phase != "revoke" || !leaked.Leaked || leaked.Keys[0].Record != "v=DKIM1; p=" || next.Phase != "next" || len(next.Waiting) != 4 {
		t.Fatalf("two records at two resolvers are missing, and the old ones are to be revoked; got %s", out)
	}
	p.logged(t, "config.reload")
	held, err := c.SendAndWait(t.Context(), invite("1", "mette@nordlys.example"), 0)
	if err != nil {
		t.Fatal(err)
	}
	p.logged(t, "no DKIM key for its From domain")

	// One resolver is not enough.
	zone := everyDomain
	for _, k := range next.Keys {
		zone += k.Zone + "\n"
	}
	if err := w.dns.Load(zone); err != nil {
		t.Fatal(err)
	}
	out, _, _ = w.deliverd(t, "dkim", "rotate", "--status")
	if !strings.Contains(out, "waiting: "+second.Addr) || strings.Contains(out, "waiting: "+w.dns.Addr) {
		t.Errorf("it waits for the second resolver, and says:\n%s", out)
	}
	if err := second.Load(zone); err != nil {
		t.Fatal(err)
	}
	for _, id := range []mail.ID{waits.ID, held.ID} {
		becomes(t, c, id, mail.StateAccepted)
	}
	for m := range w.sink.Mails() {
		if raw := string(m.Raw); strings.Contains(raw, "s=r;") || strings.Contains(raw, "s=e;") || !strings.Contains(raw, "s="+next.Keys[0].Selector+";") {
			t.Errorf("signed with the leaked key, or not with the next:\n%s", raw[:min(len(raw), 900)])
		}
	}
}

// becomes waits until a message is in a state.
func becomes(t *testing.T, c *client.Client, id mail.ID, want mail.State) {
	t.Helper()
	for {
		s, err := c.Get(t.Context(), string(id))
		if err == nil && s.State == want {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s is %s, %v; want %s", id, s.State, err, want)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logged waits until the daemon has logged a text.
func (p *process) logged(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(p.stderr.String(), text) {
		select {
		case <-p.exited:
			t.Fatalf("the daemon ended without saying %q", text)
		case <-t.Context().Done():
			t.Fatalf("the daemon never says %q", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
