package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
)

// A domain report over HTTP tells what happened to our mail; its shared page, and the
// run that the next one is compared with, outlive the daemon.
func TestDomainReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{}, "")
	p := w.start(t)
	if out, errs, status := w.deliverd(t, "send", "invite", "--to", "kari@nordlys.example", "--data", "link=https://login.acme.example/i/1", "--wait"); status != 0 {
		t.Fatalf("%d %s %s", status, out, errs)
	}
	var report console.DomainReport
	w.json(t, "GET", "/v1/domains/nordlys.example", "", http.StatusOK, &report)
	if report.Domain != "nordlys.example" || report.Facts["mx.hosts"] != 1.0 || report.History == nil || report.History.Accepted != 1 || !report.PreviousAt.IsZero() {
		t.Errorf("%+v, history %+v", report, report.History)
	}
	var share console.Share
	w.json(t, "POST", "/v1/domains/nordlys.example/share", `{"lang":"fi"}`, http.StatusCreated, &share)
	if !strings.HasPrefix(share.URL, "http://"+w.http+"/d/") {
		t.Fatalf("%+v", share)
	}
	p.stop()
	w.start(t)
	resp, err := http.Get(share.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(page), "Voivatko he vastaanottaa") {
		t.Errorf("%d %v %s", resp.StatusCode, err, page)
	}
	var next console.DomainReport
	w.json(t, "GET", "/v1/domains/nordlys.example?fresh=1", "", http.StatusOK, &next)
	if next.PreviousAt.IsZero() || len(next.Changes) != 0 {
		t.Errorf("previous %v, changes %+v", next.PreviousAt, next.Changes)
	}
}

// json calls the daemon with the token for local commands.
func (w *world) json(t *testing.T, method, path, body string, status int, into any) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(w.dir, "data", "local.token"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d %v %s", method, path, resp.StatusCode, err, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}
