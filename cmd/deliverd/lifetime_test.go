package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestTerm tells the daemon to stop while attempts wait for the reply to their final
// dot. They get it; what was not begun costs no attempt; nothing is sent twice (F09).
func TestTerm(t *testing.T) {
	t.Parallel()
	// To one domain, which begins with five attempts at once, one of them kept for PINs,
	// and gets no more before some have ended.
	const all, window = 30, 4
	gate := make(chan struct{})
	w := newWorld(t, smtptest.SinkOptions{Ledger: true, OnMail: func(smtptest.Mail) { <-gate }}, "")
	p := w.start(t)
	c := w.client(t)
	var ids []mail.ID
	for i := range all {
		r, err := c.Send(t.Context(), invite("4711", fmt.Sprintf("kari%d@nordlys.example", i)))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	inFlight := 0
	eventually(t, "many waited for their reply", func() bool {
		var q console.Queue
		if err := c.Do(t.Context(), http.MethodGet, "/v1/queue", nil, nil, &q); err != nil {
			t.Fatal(err)
		}
		inFlight = w.sink.Stats().Accepted
		return inFlight >= window && q.Sending == inFlight
	})
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stopped taking", func() bool { return strings.Contains(p.stderr.String(), "no new attempts") })
	close(gate)
	<-p.exited
	if status := p.cmd.ProcessState.ExitCode(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if log := p.stderr.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "stopping HTTP:") {
		t.Errorf("the log has errors:\n%s", log)
	}
	if n := w.sink.Stats().Accepted; n < inFlight || n == all {
		t.Errorf("%d were handed over by the end, of which %d were under way", n, inFlight)
	}

	w.start(t)
	for range waitSettled(t, c, w.sink, ids) {
		break
	}
	for _, id := range ids {
		m, events := storyOf(t, c, id)
		if m.State != mail.StateAccepted || len(m.Attempts) != 1 || m.Attempts[0].Number != 1 || m.PossibleDuplicate {
			t.Errorf("%s: %s after %d attempts: %v", id, m.State, len(m.Attempts), states(events))
		}
	}
	ledger := w.sink.Ledger()
	if len(ledger) != len(ids) {
		t.Errorf("%d messages arrived of %d", len(ledger), len(ids))
	}
	for id, n := range ledger {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}
}

// reconfigure writes the configuration anew and tells the daemon; it returns what the
// log says of it.
func (w *world) reconfigure(t *testing.T, p *process, text string) (log string) {
	t.Helper()
	if err := os.WriteFile(w.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(p.stderr.String())
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was heard", func() bool {
		log = p.stderr.String()[before:]
		return strings.Contains(log, "act=config.reload") || strings.Contains(log, "was not reloaded")
	})
	return log
}

// mailTo returns the mail that an address got.
func (w *world) mailTo(t *testing.T, to string) string {
	t.Helper()
	for m := range w.sink.Mails() {
		if m.To == to {
			return string(m.Raw)
		}
	}
	t.Fatalf("%s got no mail", to)
	return ""
}

// TestHangup changes the configuration of a running daemon: what can be changed is,
// without a restart; a mistake changes nothing, and is named with its place.
func TestHangup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{}, "")
	own := t.TempDir()
	if err := os.WriteFile(filepath.Join(own, "invite.en.txt"), []byte(
		"subject: Come in, {{.data.inviter}} waits\npreheader: Until {{.until}}\n\n{{.data.link}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.start(t)
	c := w.client(t)
	send := func(to string) string {
		t.Helper()
		w.handOver(t, c, invite("4711", to))
		return w.mailTo(t, to)
	}
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	before := send("before@nordlys.example")
	if !strings.Contains(before, "From: Acme <no-reply@acme.example>\r\n") || strings.Contains(before, "Come in") {
		t.Fatalf("before:\n%s", before)
	}

	const restart = "this change takes a restart"
	valid := strings.Replace(string(text), "Acme <no-reply@acme.example>", "Acme Support <support@acme.example>", 1) +
		fmt.Sprintf("[templates]\ndir = %q\n[log]\nformat = \"json\"\n", own)
	log := w.reconfigure(t, p, valid)
	if !strings.Contains(log, `detail="changed: send, templates, log"`) || strings.Count(log, restart) != 1 || !strings.Contains(log, "section=log") {
		t.Errorf("the log says:\n%s", log)
	}
	changed := func(when, raw string) {
		t.Helper()
		if !strings.Contains(raw, "From: Acme Support <support@acme.example>\r\n") || !strings.Contains(raw, "Subject: Come in, Lars waits\r\n") {
			t.Errorf("%s:\n%s", when, raw)
		}
	}
	changed("after", send("after@nordlys.example"))

	for name, tt := range map[string]struct{ text, want string }{
		"unknown key":   {valid + "lvel = \"debug\"\n", `did you mean \"log.level\"?`},
		"bad value":     {strings.Replace(valid, "[send]\n", "[send]\nconcurrency = 0\n", 1), "send.concurrency: 0 is not between"},
		"no such dir":   {strings.Replace(valid, own, filepath.Join(own, "gone"), 1), "templates.dir"},
		"no such key":   {strings.Replace(valid, "r.pem", "gone.pem", 1), "gone.pem"},
		"bad template":  {strings.Replace(valid, own, brokenTemplates(t), 1), "invite.en.txt"},
		"not even TOML": {"[send\n", w.config + ":1:"},
	} {
		log := w.reconfigure(t, p, strings.Replace(tt.text, "support@acme.example", "wrong@acme.example", 1))
		if !strings.Contains(log, "the configuration was not reloaded; the old one stays in force") || !strings.Contains(log, tt.want) || strings.Contains(log, restart) {
			t.Errorf("%s: the log says:\n%s\nwant %s", name, log, tt.want)
		}
	}
	changed("after mistakes", send("again@nordlys.example"))
	select {
	case <-p.exited:
		t.Error("the daemon ended")
	default:
	}
}

func brokenTemplates(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "invite.en.txt"), []byte("subject: Come in\npreheader: now\n\n{{.nobody.knows"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestStreamOverARestart: who follows the events over a crash of the daemon misses
// none and gets none twice.
func TestStreamOverARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{}, "")
	p := w.start(t)
	follower, err := client.New("http://"+w.http, client.Token(w.token(t)), client.Attempts(100))
	if err != nil {
		t.Fatal(err)
	}
	const each = 10 // messages in each life
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type seen struct {
		name, id string
		data     []byte
	}
	events := make(chan seen, 1000)
	go func() {
		defer close(events)
		for e, err := range follower.Stream(ctx, "/v1/events?tenant=4711", "0") {
			if err != nil {
				t.Errorf("the stream ended: %v", err)
				return
			}
			events <- seen{e.Name, e.ID, e.Data}
		}
	}()
	var want []string // facts: state and message
	var got []string
	for life := range 3 {
		c := w.client(t)
		for i := range each {
			r, err := c.SendAndWait(t.Context(), invite("4711", fmt.Sprintf("kari%d.%d@nordlys.example", life, i)), client.MaxWait)
			if err != nil || r.State != mail.StateAccepted {
				t.Fatal(r.State, err)
			}
			want = append(want, "queued "+string(r.ID), "accepted "+string(r.ID))
			if life < 2 && i == each/2 {
				// What the stream had before this crash, and what it gets after, is all.
				for len(got) < len(want)-2 {
					e := <-events
					got = append(got, fact(e.name, e.data))
				}
			}
		}
		if life < 2 {
			p.kill()
			p = w.start(t)
		}
	}
	last := ""
	for len(got) < len(want) {
		e := <-events
		if len(e.id) < len(last) || len(e.id) == len(last) && e.id <= last {
			t.Errorf("place %s came after %s", e.id, last)
		}
		last = e.id
		got = append(got, fact(e.name, e.data))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func fact(name string, data []byte) string {
	_, id, _ := strings.Cut(string(data), `"message":"`)
	id, _, _ = strings.Cut(id, `"`)
	return name + " " + id
}
