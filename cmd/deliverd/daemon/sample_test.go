package daemon

import (
	"os"
	"testing"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// A fresh data directory gets its day once, through the doors that all mail comes
// through; nothing is lost in it, and one that mail was sent from gets none.
func TestSample(t *testing.T) {
	t.Parallel()
	sink, err := smtptest.Listen(smtptest.SinkOptions{Addr: "127.0.0.1:0", Name: "catch.acme.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	data := t.TempDir()
	start := func() *Daemon {
		d := rehearsal(t, sink, func(c *Config) { c.Data = data })
		d.catch = sink
		return d
	}
	d := start()
	if there, err := d.Sample(t.Context()); !there || err != nil {
		t.Fatalf("sample: %v %v", there, err)
	}
	stop := d.runUntil(t)

	last, err := d.queue.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.view.CatchUp(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	people, err := d.view.FindPeople(t.Context(), console.PeopleQuery{Q: "lähteenkorva"})
	if err != nil || len(people.People) != 1 {
		t.Errorf("Anna-Kaarina: %d people, %v", len(people.People), err)
	}
	for _, s := range []mail.State{mail.StateAccepted, mail.StateRefused, mail.StateExpired, mail.StateSuperseded, mail.StateReturned} {
		if found, err := d.view.List(t.Context(), console.Filter{State: s}); err != nil || len(found) == 0 {
			t.Errorf("nothing is %s: %v", s, err)
		}
	}
	if a, err := d.queue.Audit(t.Context()); err != nil || !a.OK() {
		t.Errorf("audit: %+v, %v", a, err)
	}
	stop()

	d = start()
	before, _ := d.queue.LastSeq(t.Context())
	if there, err := d.Sample(t.Context()); !there || err != nil {
		t.Errorf("at the second start: %v %v", there, err)
	}
	if after, _ := d.queue.LastSeq(t.Context()); after != before {
		t.Errorf("the second start added %d facts", after-before)
	}
	if err := os.Remove(d.config.dataFile(sampleFile)); err != nil {
		t.Fatal(err)
	}
	d.sample.Store(false)
	if there, err := d.Sample(t.Context()); there || err != nil || d.sample.Load() {
		t.Errorf("in a directory that mail was sent from: %v %v", there, err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
