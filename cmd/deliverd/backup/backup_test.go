package backup

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
	"github.com/deliverd/deliverd/queue/natstest"
)

// store makes a data directory with a queue in it: some messages that ended, some that
// wait.
func store(t *testing.T, ended, waiting int) (dir string, s *natstest.Server, all []mail.ID) {
	t.Helper()
	dir = t.TempDir()
	s = natstest.Start(t, filepath.Join(dir, "nats"))
	q := open(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- q.Work(ctx, ctx, func(_ context.Context, a *mail.Attempt) mail.Outcome {
			if strings.HasPrefix(string(a.Message.To), "wait") {
				return mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseNetwork}
			}
			return mail.Outcome{State: mail.StateAccepted}
		})
	}()
	for i := range ended + waiting {
		m := message(i, map[bool]string{true: "wait", false: "kari"}[i >= ended])
		all = append(all, m.ID)
		if _, err := q.Enqueue(t.Context(), &m, [32]byte{}); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	for e, err := range q.Events(t.Context(), 0, mail.StateAccepted, mail.StateDelayed) {
		if err != nil {
			t.Fatal(err)
		}
		_ = e
		if told++; told == ended+waiting {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, s, all
}

func open(t *testing.T, s *natstest.Server) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), s.Connect(t), queue.Options{
		Kinds: map[string]mail.Kind{"invite": {Name: "invite", Lane: 3, ValidFor: time.Hour, Retries: []time.Duration{10 * time.Minute}}},
		Seal:  queue.NewKeyRing(), Alone: true, Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func message(i int, name string) mail.Message {
	id := mail.NewID(time.Now())
	return mail.Message{ID: id, Ref: id.Ref(), Kind: "invite", To: mail.Address(name + strconv.Itoa(i) + "@nordlys.example"),
		Template: "invite", Data: map[string]any{"link": "https://login.acme.example/i/abc"},
		QueuedAt: time.Now().UTC(), ExpiresAt: time.Now().Add(time.Hour).UTC()}
}

func take(t *testing.T, s *natstest.Server) string {
	t.Helper()
	var b bytes.Buffer
	if err := Take(t.Context(), s.Connect(t), &b, "test"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A backup that is restored holds what the store held, at the same places and times,
// and the directory and the file verify alike.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	const ended, waiting = 20, 10
	dir, s, _ := store(t, ended, waiting)
	path := take(t, s)
	s.Stop()

	again := filepath.Join(t.TempDir(), "data")
	restored, err := Restore(path, again, false)
	if err != nil {
		t.Fatal(err, restored.Damage)
	}
	for _, want := range []struct {
		what string
		r    Report
		err  error
	}{
		{what: "restored", r: restored},
		{what: "the directory"}, {what: "the restored directory"}, {what: "the file"},
	} {
		switch want.what {
		case "the directory":
			want.r, want.err = VerifyDir(dir)
		case "the restored directory":
			want.r, want.err = VerifyDir(again)
		case "the file":
			want.r, want.err = VerifyFile(path)
		}
		if want.err != nil || !want.r.OK() || want.r.Waiting != waiting || want.r.Events != ended*2+waiting*2 {
			t.Errorf("%s: %v, %+v", want.what, want.err, want.r)
		}
	}
	if was, is := dump(t, dir), dump(t, again); !slices.Equal(was, is) {
		t.Errorf("the log was %d lines and is %d; or differs", len(was), len(is))
	}
}

// dump is a data directory's event log as lines, with places and times.
func dump(t *testing.T, dir string) (lines []string) {
	t.Helper()
	err := readBlocks(dir, "DELIVERD_EVENTS", func(m *queue.Stored) {
		lines = append(lines, strings.Join([]string{strconv.FormatUint(m.Seq, 10), m.Time.String(), m.Subject, string(m.Data)}, " "))
	}, t.Errorf)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestRestoreRefusesADirectoryWithSomethingInIt(t *testing.T) {
	t.Parallel()
	_, s, _ := store(t, 1, 1)
	path := take(t, s)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "something"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(path, dir, false); err == nil || !strings.Contains(err.Error(), "something") {
		t.Errorf("%v", err)
	}
}

// testdata/first.backup is of a store that the first deliverd there was wrote, and that
// was killed while mail waited: every record and event of it can be read.
func TestReadsWhatTheFirstVersionWrote(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "first.backup")
	r, err := VerifyFile(path)
	if err != nil || !r.OK() || r.Waiting != 4 || r.Events != 15 {
		t.Errorf("%v %+v", err, r)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if r, err := Restore(path, dir, false); err != nil || !r.OK() {
		t.Errorf("restore: %v %+v", err, r)
	}
	if was := dump(t, dir); len(was) != 15 {
		t.Errorf("%d events restored", len(was))
	}
}
