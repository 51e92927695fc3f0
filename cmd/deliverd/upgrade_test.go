package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestF23ReadsWhatThePreviousCommitWrote builds the program of the commit before this
// one, lets it take mail, kills it, and starts this one on its data: everything is
// there, and ends. What the first version wrote is read in package backup.
func TestF23ReadsWhatThePreviousCommitWrote(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds another commit")
	}
	before := buildBefore(t)
	w := newWorld(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, `
[kinds.invite]
retries = ["1s"]
`)
	old := w.run(t, exec.CommandContext(context.Background(), before, "serve", "-c", w.config))
	c := w.client(t)
	if err := c.Do(t.Context(), http.MethodPost, "/v1/queue/pause", nil, map[string]string{"selector": "domain:held.example", "reason": "test"}, nil); err != nil {
		t.Fatal(err)
	}
	suppression := map[string]string{"tenant": "4711", "address": "liv@nordlys.example", "reason": "she asked for it"}
	if err := c.Do(t.Context(), http.MethodPost, "/v1/suppressions", nil, suppression, nil); err != nil {
		t.Fatal(err)
	}
	var ids []mail.ID
	for i := range 30 {
		m := testMessage(1, i)
		if i%3 == 0 {
			m.To = fmt.Sprintf("kari.%d@held.example", i)
		}
		r, err := c.Send(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	eventually(t, "some are handed over", func() bool { return countMails(w.sink) > 5 })
	old.kill()

	w.start(t)
	c = w.client(t)
	if again, err := c.Send(t.Context(), testMessage(1, 1)); err != nil || again.ID != ids[1] {
		t.Errorf("the idempotency key was forgotten: %v, %v", again, err)
	}
	_, err := c.Send(t.Context(), client.Message{Kind: "invite", To: "liv@nordlys.example", Tenant: "4711",
		Data: map[string]any{"link": "https://login.acme.example/i/abc", "inviter": "Lars"}})
	if err == nil {
		t.Error("the suppression was forgotten")
	}
	if m, _ := storyOf(t, c, ids[0]); !m.State.Open() {
		t.Errorf("the pause was forgotten: %s is %s", ids[0], m.State)
	}
	if err := c.Do(t.Context(), http.MethodPost, "/v1/queue/resume", nil, map[string]string{"selector": "domain:held.example", "reason": "test"}, nil); err != nil {
		t.Fatal(err)
	}
	waitSettled(t, c, w.sink, ids)
	for _, id := range ids {
		m, events := storyOf(t, c, id)
		if m.State != mail.StateAccepted || len(events) < 2 || events[0].State != mail.StateQueued {
			t.Errorf("%s is %s, of %d events", id, m.State, len(events))
		}
	}
}

// buildBefore builds the commit before this one, and skips the test where there is no
// history.
func buildBefore(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--verify", "--quiet", "HEAD~1^{commit}")
	if err != nil {
		lacking(t, "git and a history of more than one commit")
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "before.tar")
	if _, err := git("archive", "--output", archive, commit); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "deliverd-before")
	for _, cmd := range []*exec.Cmd{
		exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", dir),
		exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "./cmd/deliverd"),
	} {
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	return binary
}
