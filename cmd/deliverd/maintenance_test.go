package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestMaintenance: while a window is on, its kinds are held back, over a restart too,
// and the others are not; when it ends everything goes out.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{}, "")
	p := w.start(t)
	c := w.client(t)
	var window console.ShownWindow
	w.json(t, "POST", "/v1/maintenance", fmt.Sprintf(
		`{"kinds":["invite"],"from":%q,"until":%q,"title":"New database","reason":"the login page is down"}`,
		time.Now().Add(-time.Minute).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), http.StatusCreated, &window)
	p.logged(t, "maintenance.begin")
	held, err := c.SendAndWait(t.Context(), invite("4711", "kari@nordlys.example"), 0)
	if err != nil {
		t.Fatal(err)
	}
	passes := func(code string) {
		t.Helper()
		r, err := c.SendAndWait(t.Context(), client.Message{Kind: "pin", To: "mette@nordlys.example", Tenant: "4711", Data: map[string]any{"code": code}}, client.MaxWait)
		if err != nil || r.State != mail.StateAccepted {
			t.Fatalf("a PIN during maintenance of invites: %s, %v", r.State, err)
		}
	}
	passes("111111")
	p.stop()
	p = w.start(t)
	passes("222222") // whatever was due has been looked at before this
	if out, _, _ := w.deliverd(t, "show", string(held.ID)); !strings.Contains(out, "held back by maintenance until") {
		t.Errorf("show says:\n%s", out)
	}
	var status console.Status
	w.json(t, "GET", "/status.json", "", http.StatusOK, &status)
	if status.Status != "maintenance" || len(status.Maintenance) != 1 || status.Maintenance[0].Title != "New database" {
		t.Errorf("the public status says %+v", status)
	}
	if out, _, _ := w.deliverd(t, "queue"); !strings.Contains(out, "kind:invite") {
		t.Errorf("queue says:\n%s", out)
	}
	var problem mail.Problem
	w.json(t, "DELETE", "/v1/maintenance?id="+window.ID, "", http.StatusBadRequest, &problem) // no reason
	r, err := http.NewRequestWithContext(t.Context(), "DELETE", "http://"+w.http+"/v1/maintenance?reason=done&id="+window.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.token(t))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("DELETE: %s", resp.Status)
	}
	becomes(t, c, held.ID, mail.StateAccepted)
	p.logged(t, "maintenance.end")
}
