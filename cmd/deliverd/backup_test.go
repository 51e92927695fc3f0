package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/cmd/deliverd/backup"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestBackupUnderLoad copies the store while mail flows, kills the daemon some time
// later, restores, and lets the restored one work: nothing is sent again that the
// copy's log knows as sent, nothing is lost that was accepted before the copy was
// begun, and what is sent again since nobody could know says so.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Keep: 1 << 20, KeepBytes: 1 << 30, Rules: smtptest.Newcomers()}, `
[log]
level = "warn"
[kinds.pin]
retries = ["1s"]
valid_for = "10m"
[kinds.invite]
retries = ["1s"]
`)
	p := w.start(t)
	c := w.client(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	accepted := make([]map[mail.ID]time.Time, 6)
	var wg sync.WaitGroup
	for s := range accepted {
		accepted[s] = map[mail.ID]time.Time{}
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if r, err := c.Send(ctx, testMessage(s, i)); err == nil {
					accepted[s][r.ID] = time.Now()
				}
			}
		})
	}
	some := func(n int) func() bool {
		return func() bool { return countMails(w.sink) >= n }
	}
	eventually(t, "mail flows", some(200))
	file, keys := filepath.Join(w.dir, "b.backup"), filepath.Join(w.dir, "b.keys")
	if out, errs, status := w.deliverd(t, "backup", file, "--keys", keys); status != 0 {
		t.Fatalf("backup: %d %s %s", status, out, errs)
	}
	eventually(t, "more mail flows", some(countMails(w.sink)+100))
	stop()
	wg.Wait()
	p.kill()
	killed := time.Now()

	r := verified(t, w, file)
	if out, errs, status := w.deliverd(t, "restore", file, "--keys", keys, "--data", filepath.Join(w.dir, "data")); status == 0 {
		t.Errorf("a directory in use was overwritten: %s %s", out, errs)
	}
	if err := os.Rename(filepath.Join(w.dir, "data"), filepath.Join(w.dir, "lost")); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := w.deliverd(t, "restore", file, "--keys", keys, "--data", filepath.Join(w.dir, "data")); status != 0 {
		t.Fatalf("restore: %d %s %s", status, out, errs)
	}
	p = w.start(t)
	c = w.client(t)

	var ids []mail.ID
	for _, of := range accepted {
		for id, at := range of {
			if at.Before(r.Began) {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) < 100 {
		t.Fatalf("only %d messages were accepted before the copy: that proves nothing", len(ids))
	}
	copies := map[mail.ID][]time.Time{}
	for m := range waitSettled(t, c, w.sink, ids) {
		id, _, _ := strings.Cut(strings.Trim(m.MessageID, "<>"), "@")
		copies[mail.ID(id)] = append(copies[mail.ID(id)], m.At)
	}
	known, again := 0, 0
	for _, id := range ids {
		m, events := storyOf(t, c, id)
		if m.State != mail.StateAccepted || len(copies[id]) == 0 {
			t.Errorf("%s ended as %s, and was sent %d times", id, m.State, len(copies[id]))
		}
		sent, flagged := false, false
		for _, e := range events {
			sent = sent || e.State == mail.StateAccepted && e.At.Before(killed)
			flagged = flagged || e.PossibleDuplicate
		}
		last := copies[id][len(copies[id])-1]
		if sent {
			known++
		}
		if sent && last.After(killed) {
			t.Errorf("%s was sent again although the log knew that it had been", id)
		}
		if len(copies[id]) > 1 {
			again++
			if !flagged {
				t.Errorf("%s was sent twice, and nothing says so", id)
			}
		}
	}
	if known < 50 {
		t.Errorf("only %d were known as sent: that proves nothing", known)
	}
	t.Logf("%d accepted before the copy, %d known as sent, %d sent again with a note; late %d", len(ids), known, again, len(r.Late))
	p.stop()
	flippedBitIsTold(t, w, len(r.Late))
}

func countMails(s *smtptest.Sink) (n int) {
	for range s.Mails() {
		n++
	}
	return n
}

func verified(t *testing.T, w *world, what string) backup.Report {
	t.Helper()
	return verifiedBut(t, w, what, 0)
}

// verifiedBut verifies something that lacks so many messages and nothing else: those
// that were accepted, and ended, within the last moment of a copy.
func verifiedBut(t *testing.T, w *world, what string, missing int) (r backup.Report) {
	t.Helper()
	out, errs, status := w.deliverd(t, "verify", "--json", what)
	if want := min(missing, exitFailed); status != want {
		t.Fatalf("verify: %d, want %d: %s %s", status, want, out, errs)
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Missing) != missing || len(r.Damage) != 0 {
		t.Errorf("verify: %d messages should be missing: %s", missing, out)
	}
	return r
}

// flippedBitIsTold damages the data directory of a daemon that has stopped (FAULTS
// F14).
func flippedBitIsTold(t *testing.T, w *world, missing int) {
	data := filepath.Join(w.dir, "data")
	verifiedBut(t, w, data, missing)
	logs, err := filepath.Glob(filepath.Join(data, "nats", "jetstream", "$G", "streams", "DELIVERD_EVENTS", "msgs", "*.blk"))
	if err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}
	log := logs[len(logs)-1]
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(log, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, status := w.deliverd(t, "verify", data); status != exitFailed || !strings.Contains(out, log) {
		t.Errorf("a flipped bit goes unnoticed: %d %s", status, out)
	}
}

// A daemon that is stopped is copied from its directory; one that runs is not. Law 5:
// no secret stands in the copy, and the keys are not in it.
func TestBackupOffline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, "")
	p := w.start(t)
	c := w.client(t)
	const secret = "s3cretCanary7731"
	var ids []mail.ID
	for i := range 3 {
		r, err := c.Send(t.Context(), client.Message{Kind: "invite", To: fmt.Sprintf("greylist.%d@nordlys.example", i), Tenant: "4711",
			Data: map[string]any{"link": "https://login.acme.example/i/" + secret, "inviter": "Lars"}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	data, file, keys := filepath.Join(w.dir, "data"), filepath.Join(w.dir, "b.backup"), filepath.Join(w.dir, "b.keys")
	if _, errs, status := w.deliverd(t, "backup", file, "--data", data); status != exitFailed {
		t.Errorf("a directory in use was copied: %d %s", status, errs)
	}
	p.stop()
	if out, errs, status := w.deliverd(t, "backup", file, "--data", data, "--keys", keys); status != 0 {
		t.Fatalf("backup: %d %s %s", status, out, errs)
	}
	if r := verified(t, w, file); r.Waiting != len(ids) {
		t.Errorf("%+v", r)
	}
	ring, err := os.ReadFile(filepath.Join(data, "keys", "seal.ring"))
	if err != nil {
		t.Fatal(err)
	}
	text := unpacked(t, file)
	for _, s := range []string{secret, strings.TrimSpace(string(ring)), "seal.ring"} {
		if strings.Contains(text, s) {
			t.Errorf("the backup holds %q", s)
		}
	}
	info, err := os.Stat(keys)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the keys: %v %v", info.Mode(), err)
	}
	if _, errs, status := w.deliverd(t, "backup", file, "--data", data); status != exitFailed {
		t.Errorf("a backup was overwritten: %d %s", status, errs)
	}

	again := filepath.Join(w.dir, "again")
	if _, errs, status := w.deliverd(t, "restore", file, "--data", again, "--keys", keys); status != 0 {
		t.Fatal(errs)
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(again, data); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	for _, id := range ids {
		m, _ := storyOf(t, w.client(t), id)
		if m.State != mail.StateDelayed && m.State != mail.StateQueued {
			t.Errorf("%s is %s", id, m.State)
		}
	}
}

// A token of one tenant's, however strong, gets no copy of all.
func TestBackupTakesATokenForAllTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{}, "")
	w.start(t)
	for _, tc := range []struct {
		tenants []string
		scopes  []console.Scope
		want    int
	}{
		{[]string{"4711"}, []console.Scope{console.ScopeAdmin}, http.StatusForbidden},
		{[]string{console.AllTenants}, []console.Scope{console.ScopeRead}, http.StatusForbidden},
		{[]string{console.AllTenants}, []console.Scope{console.ScopeAdmin}, http.StatusOK},
	} {
		var made struct{ Token string }
		err := w.client(t).Do(t.Context(), http.MethodPost, "/v1/tokens", nil,
			map[string]any{"name": "t", "scopes": tc.scopes, "tenants": tc.tenants}, &made)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.http+"/v1/backup", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+made.Token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%v %v: %d", tc.tenants, tc.scopes, resp.StatusCode)
		}
	}
}

// unpacked is all that a backup holds, as text.
func unpacked(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all strings.Builder
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = in
		if strings.HasSuffix(h.Name, ".gz") {
			if r, err = gzip.NewReader(in); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintln(&all, h.Name)
		for lines := json.NewDecoder(r); strings.HasSuffix(h.Name, ".gz"); {
			var m struct{ Data []byte }
			if err := lines.Decode(&m); err != nil {
				break
			}
			all.Write(m.Data)
		}
		if _, err := io.Copy(&all, r); err != nil {
			t.Fatal(err)
		}
	}
}
