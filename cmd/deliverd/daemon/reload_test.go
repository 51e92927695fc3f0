package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// lines is a log that a test reads.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// TestReloadKeepsKindsTogether: the queue keeps the kinds that it was opened with, so
// requests are prepared by the same ones until a restart. A kind that only one of them
// knew would be sent by rules that nobody wrote.
func TestReloadKeepsKindsTogether(t *testing.T) {
	t.Parallel()
	sink, err := smtptest.Listen(smtptest.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	var c Config
	d := rehearsal(t, sink, func(configured *Config) { c = *configured })
	t.Cleanup(func() { d.Close(t.Context()) })
	var log lines
	d.log = slog.New(slog.NewTextHandler(&log, nil))

	c.Kinds = map[string]KindConfig{"alarm": {Lane: new(1)}}
	c.Send.Concurrency++
	if err := d.Reload(&c); err != nil {
		t.Fatal(err)
	}
	_, _, err = d.settings.Load().preparer.Prepare(mail.Request{Kind: "alarm", To: "kari@nordlys.example", ExpiresAt: time.Now().Add(time.Hour)})
	if p, ok := err.(*mail.Problem); !ok || p.Type != mail.ProblemUnknownKind {
		t.Errorf("a kind that the queue does not know was prepared: %v", err)
	}
	for _, name := range []string{"kinds", "send.concurrency"} {
		if !strings.Contains(log.String(), "this change takes a restart\" section="+name) {
			t.Errorf("nobody says that %s takes a restart:\n%s", name, log.String())
		}
	}
}
