package queue

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// TestKept: the Data of an invite outlives its handing over, restarts included, for as
// long as it is valid or until it is forgotten; that of any other message, or of one
// that may not be sent any more, does not.
func TestKept(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var tried atomic.Int32
	refuse := func(_ context.Context, a *mail.Attempt) mail.Outcome {
		tried.Add(1)
		if strings.HasPrefix(string(a.Message.To), "gone@") {
			return mail.Outcome{State: mail.StateRefused, Cause: "bad_mailbox"}
		}
		return mail.Outcome{State: mail.StateAccepted}
	}
	stop := b.work(refuse)
	long := func(m *mail.Message) mail.ID {
		m.ExpiresAt = m.QueuedAt.Add(time.Hour)
		return b.enqueue(m).ID
	}
	invite, refused := long(b.message("invite", "kari@nordlys.example", "kari")), long(b.message("invite", "gone@nordlys.example", "gone"))
	pin, brief := long(b.message("pin", "pin@nordlys.example", "pin")), b.enqueue(b.message("invite", "brief@nordlys.example", "brief")).ID
	b.until(4)

	kept := func(id mail.ID) bool {
		m, err := b.q.Message(t.Context(), id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if err == nil && m.Data["code"] != "917 342" {
			t.Errorf("%s: the kept data are %v", id, m.Data)
		}
		return err == nil
	}
	if !kept(invite) || !kept(refused) || kept(pin) || kept(brief) {
		t.Errorf("kept: invite %v, refused invite %v, PIN %v, invite about to expire %v", kept(invite), kept(refused), kept(pin), kept(brief))
	}
	sh, _, _, err := b.q.find(t.Context(), invite)
	if err != nil {
		t.Fatal(err)
	}
	e, err := b.q.store.get(t.Context(), sh.bucket, idKey(invite))
	if err != nil {
		t.Fatal(err)
	}
	if life, err := strconv.Atoi(strings.TrimSuffix(e.header.Get(headerTTL), "s")); err != nil || life > 3600 || life < 3000 {
		t.Errorf("the store keeps it for %q, and it is valid for an hour", e.header.Get(headerTTL))
	}

	stop()
	b.q.Close()
	b.open()
	b.work(refuse)
	next := b.message("pin", "next@nordlys.example", "next") // worked on after the scan
	b.enqueue(next)
	b.follow(func(e mail.Event) bool { return e.Message == next.ID && e.State.Terminal() })
	if !kept(invite) || tried.Load() != 5 {
		t.Errorf("after a restart it is kept: %v, and there were %d attempts of 5 messages", kept(invite), tried.Load())
	}
	if err := b.q.Forget(t.Context(), invite); err != nil || kept(invite) {
		t.Errorf("forgotten, and there still: %v", err)
	}
	if err := b.q.Forget(t.Context(), invite); err != nil {
		t.Errorf("forgotten twice: %v", err)
	}
}
