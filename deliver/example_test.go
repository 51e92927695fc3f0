package deliver_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// A message travels into a sink, which was told to greylist its recipient once.
func ExampleDeliverer_Attempt() {
	sink, err := smtptest.Listen(smtptest.SinkOptions{
		Rules: []smtptest.Rule{{Pattern: "kari@*", Behaviour: smtptest.Behaviour{Greylist: 1}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sink.Close()

	d, err := deliver.New(deliver.Options{
		Hello:      "out.acme.example",
		Plan:       deliver.Fixed("sink.test", sink.Addr(), deliver.TLSOpportunistic),
		ReturnPath: func(mail.ID) string { return "bounce@acme.example" },
		Render: func(m *mail.Message) ([]byte, error) {
			return []byte("From: " + m.From + "\r\nTo: " + string(m.To) + "\r\nSubject: Your invite\r\n\r\nWelcome!\r\n"), nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()

	attempt := &mail.Attempt{Number: 1, Message: mail.Message{
		ID: mail.NewID(time.Now()), From: "no-reply@acme.example", To: "kari@nordlys.example",
		QueuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}}
	for range 2 {
		outcome := d.Attempt(context.Background(), attempt)
		said, _, _ := strings.Cut(outcome.Evidence.Reply.String(), ",")
		said, _, _ = strings.Cut(said, " queued")
		fmt.Println(outcome.State, outcome.Cause, said)
		attempt.Number, attempt.Signed = attempt.Number+1, outcome.Signed
	}
	// Output:
	// delayed greylisted 451 4.7.1 Greylisted
	// accepted  250 2.0.0 Ok:
}
