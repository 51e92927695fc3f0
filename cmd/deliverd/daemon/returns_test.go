package daemon

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// asReturned is the event that the receiver makes of a report about a message.
func asReturned(id mail.ID) mail.Event {
	return mail.Event{ID: string(id) + ".returned.dsn.bad_mailbox", At: time.Now().UTC(), State: mail.StateReturned, Message: id,
		Cause: mail.CauseBadMailbox, Suppress: true, By: "dsn"}
}

// The event log itself refuses a fact twice for some minutes only. A report that comes
// again days later is known all the same (E05).
func TestE05ReturnedAgainAfterDays(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, nil)
	r, err := d.submit(t.Context(), anInvite("4711", "kari@nordlys.example"))
	if err != nil {
		t.Fatal(err)
	}
	if s := d.waitEnded(t.Context(), r.ID); s != mail.StateAccepted {
		t.Fatal(s)
	}
	// A fact that the log's window does not know any more.
	old := asReturned(r.ID)
	old.Tenant, old.To = "4711", "kari@nordlys.example"
	b, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(d.nc)
	if err == nil {
		_, err = js.Publish(t.Context(), "deliverd.v1.event.4711.returned", b)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := lastSeq(t, d)
	if told, err := d.recordReturned(t.Context(), asReturned(r.ID)); !told || err != nil {
		t.Fatal(told, err)
	}
	if after := lastSeq(t, d); after != before {
		t.Errorf("the same report was recorded again: %+v", d.story(t, r.ID))
	}
	other := asReturned(r.ID)
	other.ID, other.Cause = string(r.ID)+".returned.dsn.mailbox_full", mail.CauseMailboxFull
	if told, err := d.recordReturned(t.Context(), other); !told || err != nil {
		t.Fatal(told, err)
	}
	if story := d.story(t, r.ID); story[len(story)-1].Cause != mail.CauseMailboxFull {
		t.Errorf("another report was not: %+v", story)
	}
}

// A report can overtake our own record of the accept, whose reply we still wait for.
// It is told to come again, and counts then (E15).
func TestE15ReturnedBeforeTheReply(t *testing.T) {
	t.Parallel()
	gate, arrived := make(chan struct{}), make(chan struct{})
	d, _ := open(t, smtptest.SinkOptions{OnMail: func(smtptest.Mail) { close(arrived); <-gate }}, nil)
	r, err := d.submit(t.Context(), anInvite("4711", "kari@nordlys.example"))
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	if told, err := d.recordReturned(t.Context(), asReturned(r.ID)); told || !errors.Is(err, errUnsettled) {
		t.Errorf("while the reply is waited for: %v, %v", told, err)
	}
	close(gate)
	if s := d.waitEnded(t.Context(), r.ID); s != mail.StateAccepted {
		t.Fatal(s)
	}
	if told, err := d.recordReturned(t.Context(), asReturned(r.ID)); !told || err != nil {
		t.Fatal(told, err)
	}
	story := d.story(t, r.ID)
	if last := story[len(story)-1]; last.State != mail.StateReturned || last.To != "kari@nordlys.example" || last.Tenant != "4711" || !last.Suppress {
		t.Errorf("the story ends with %+v", last)
	}
}
