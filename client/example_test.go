package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/mail"
)

// standIn answers every request in the same way, so that the examples run.
func standIn(status int, answer string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if status >= 400 {
			w.Header().Set("Content-Type", "application/problem+json")
		}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
}

func Example() {
	server := standIn(202, `{"id": "msg_0195b1a0-5c3e-7b1d-9d2e-3f4a5b6c7d8e", "ref": "7K3Q-9DXP", "state": "queued", "warnings": []}`)
	defer server.Close()

	deliverd, err := client.New(server.URL, client.Token("dlv_example"))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	receipt, err := deliverd.Send(ctx, client.Message{
		Kind:           "invite",
		To:             "kari.nordmann@nordlys.example",
		ToName:         "Kari Nordmann",
		Tenant:         "4711",
		TenantName:     "Nordlys Oy",
		Locale:         "fi",
		Data:           map[string]any{"link": "https://login.acme.example/i/b7Xw", "inviter": "Lars"},
		ExpiresAt:      time.Now().Add(7 * 24 * time.Hour),
		IdempotencyKey: "invite-8812",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("on its way, reference", receipt.Ref)
	// Output: on its way, reference 7K3Q-9DXP
}

// A login page sends a PIN and looks for a few seconds whether it was handed over.
func ExampleClient_SendAndWait() {
	server := standIn(202, `{"id": "msg_0195b1a0-5c3e-7b1d-9d2e-3f4a5b6c7d8e", "ref": "7K3Q-9DXP", "state": "delayed", "warnings": []}`)
	defer server.Close()
	deliverd, err := client.New(server.URL, client.Token("dlv_example"))
	if err != nil {
		log.Fatal(err)
	}

	receipt, err := deliverd.SendAndWait(context.Background(), client.Message{
		Kind: "pin",
		To:   "kari.nordmann@nordlys.example",
		Data: map[string]any{"code": "493021"},
	}, 5*time.Second)
	switch {
	case err != nil:
		fmt.Println("the mail was not taken:", err)
	case receipt.State == mail.StateAccepted:
		fmt.Println("Look into your mailbox.")
	default:
		fmt.Println("The mail takes longer than usual. Use your authenticator instead?")
	}
	// Output: The mail takes longer than usual. Use your authenticator instead?
}

func ExampleIsSuppressed() {
	server := standIn(422, `{"type": "/problems/recipient-suppressed", "title": "The recipient is suppressed", "status": 422,
		"field": "to", "suppression": {"cause": "bad_mailbox", "since": "2026-11-20T09:14:07Z", "lift": "deliverd suppress rm"}}`)
	defer server.Close()
	deliverd, err := client.New(server.URL)
	if err != nil {
		log.Fatal(err)
	}

	_, err = deliverd.Send(context.Background(), client.Message{Kind: "reset", To: "kari@nordlys.example"})
	if p, ok := errors.AsType[*client.Problem](err); ok && client.IsSuppressed(err) {
		fmt.Printf("no mail since %s: %s\n", p.Suppression.Since.Format(time.DateOnly), p.Suppression.Cause)
	}
	// Output: no mail since 2026-11-20: bad_mailbox
}

// Over NATS, the request is made by the program's own connection.
func ExampleOverNATS() {
	// With nats.go: nc.RequestMsgWithContext. See Requester.
	request := func(_ context.Context, subject string, _ map[string][]string, _ []byte) ([]byte, error) {
		fmt.Println(subject)
		return []byte(`{"id": "msg_0195b1a0-5c3e-7b1d-9d2e-3f4a5b6c7d8e", "ref": "7K3Q-9DXP", "state": "queued", "warnings": []}`), nil
	}
	deliverd, err := client.OverNATS(request, "login")
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := deliverd.Send(context.Background(), client.Message{
		Kind: "pin", To: "kari@nordlys.example", Data: map[string]any{"code": "493021"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Ref)
	// Output:
	// deliverd.v1.send.login
	// 7K3Q-9DXP
}

// Telling deliverd that a link was used completes the story that support sees.
func ExampleClient_Outcome() {
	server := standIn(200, `{"id": "msg_0195b1a0-5c3e-7b1d-9d2e-3f4a5b6c7d8e", "ref": "7K3Q-9DXP", "outcome": "used"}`)
	defer server.Close()
	deliverd, err := client.New(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	err = deliverd.Outcome(context.Background(), "7K3Q-9DXP", client.Used, time.Now())
	fmt.Println(err)
	// Output: <nil>
}
