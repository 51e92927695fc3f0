package daemon

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// everySecond makes PINs come back after a second, and last a minute.
func everySecond(c *Config) {
	c.Kinds = map[string]KindConfig{"pin": {Retries: []Duration{Duration(time.Second)}, ValidFor: new(Duration(time.Minute))}}
}

func pinFor(person, to, code string) mail.Request {
	return mail.Request{Kind: "pin", To: to, Tenant: "4711", PersonID: person, Data: map[string]any{"code": code}}
}

func (d *Daemon) story(t *testing.T, id mail.ID) []mail.Event {
	t.Helper()
	if err := d.view.CatchUp(t.Context(), lastSeq(t, d)); err != nil {
		t.Fatal(err)
	}
	facts, err := d.view.Facts(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return facts.Events
}

// TestNewestWins: while a PIN waits for its next attempt, a newer one to the same
// person takes its place, even at another address (law 4).
func TestNewestWins(t *testing.T) {
	t.Parallel()
	d, sink := open(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, everySecond)
	first, err := d.submit(t.Context(), pinFor("usr_1", "greylist@nordlys.example", "111111"))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := d.view.Wait(t.Context(), first.ID, func(s mail.State) bool { return s == mail.StateDelayed || s.Terminal() }); s != mail.StateDelayed {
		t.Fatal(s, err)
	}
	second, err := d.submit(t.Context(), pinFor("usr_1", "greylist@nordlys.example", "222222"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.submit(t.Context(), pinFor("usr_2", "greylist@sydlys.example", "333333"))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[mail.ID]mail.State{first.ID: mail.StateSuperseded, second.ID: mail.StateAccepted, other.ID: mail.StateAccepted} {
		if s := d.waitEnded(t.Context(), id); s != want {
			t.Errorf("%s ended as %s, want %s", id, s, want)
		}
	}
	events := d.story(t, first.ID)
	last := events[len(events)-1]
	if last.State != mail.StateSuperseded || last.Other != second.ID {
		t.Errorf("its story ends with %+v", last)
	}
	accepted := d.story(t, second.ID)
	for _, e := range events {
		if e.Evidence != nil && e.Evidence.StartedAt.After(accepted[0].At) {
			t.Errorf("an attempt began at %v, when the newer one was accepted at %v", e.Evidence.StartedAt, accepted[0].At)
		}
	}
	var codes []string
	for m := range sink.Mails() {
		for _, code := range []string{"111111", "222222", "333333"} {
			if strings.Contains(string(m.Raw), code) {
				codes = append(codes, code)
			}
		}
	}
	slices.Sort(codes)
	if !slices.Equal(codes, []string{"222222", "333333"}) {
		t.Errorf("the codes %q arrived", codes)
	}
}

// TestNeverLate: a PIN that a server keeps putting off ends when its time is over; the
// login page hears before that it will, and nothing is sent after (law 3).
func TestNeverLate(t *testing.T) {
	t.Parallel()
	const to = "kari@nordlys.example"
	d, sink := open(t, smtptest.SinkOptions{Rules: []smtptest.Rule{
		{Pattern: to, Behaviour: smtptest.Behaviour{Reply: "451 4.7.1 Greylisted, please try again later"}},
	}}, everySecond)
	pin := pinFor("usr_1", to, "111111")
	pin.ExpiresAt = time.Now().Add(6 * time.Second) // less is refused
	r, err := d.submit(t.Context(), pin)
	if err != nil {
		t.Fatal(err)
	}
	if s := d.waitEnded(t.Context(), r.ID); s != mail.StateExpired {
		t.Fatal(s)
	}
	// It would be taken now.
	if err := sink.Tell(to, smtptest.Behaviour{}); err != nil {
		t.Fatal(err)
	}
	tried := sink.Stats().Refused
	next, err := d.submit(t.Context(), pinFor("usr_2", "lars@nordlys.example", "222222"))
	if err != nil {
		t.Fatal(err)
	}
	if s := d.waitEnded(t.Context(), next.ID); s != mail.StateAccepted {
		t.Fatal(s)
	}
	for m := range sink.Mails() {
		if m.To == to {
			t.Errorf("it arrived at %v, and expired at %v", m.At, pin.ExpiresAt)
		}
	}
	var said []mail.State
	attempts := 0
	for _, e := range d.story(t, r.ID) {
		said = append(said, e.State)
		if e.Evidence != nil {
			attempts++
			if !e.Evidence.StartedAt.Before(pin.ExpiresAt) {
				t.Errorf("attempt %d began at %v, after %v", e.Attempt, e.Evidence.StartedAt, pin.ExpiresAt)
			}
		}
		if e.State == mail.EventAtRisk && !e.At.Before(pin.ExpiresAt) {
			t.Errorf("at risk only at %v", e.At)
		}
	}
	atRisk := slices.Index(said, mail.EventAtRisk)
	if atRisk < 0 || said[len(said)-1] != mail.StateExpired || atRisk > len(said)-2 {
		t.Errorf("the story is %v", said)
	}
	if attempts < 2 || attempts != tried {
		t.Errorf("%d attempts are told of, the server saw %d", attempts, tried)
	}
}
