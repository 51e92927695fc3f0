// Package client hands mail to deliverd: the invite, the password-reset link, the
// device PIN. It speaks HTTP ([New]) or NATS ([OverNATS]) with the same methods.
//
//	deliverd, err := client.New("https://deliverd.internal:8025", client.Token(token))
//	…
//	receipt, err := deliverd.Send(ctx, client.Message{
//		Kind:           "reset",
//		To:             user.Email,
//		ToName:         user.Name,
//		Tenant:         user.Tenant,
//		Locale:         user.Locale,
//		Data:           map[string]any{"link": link},
//		ExpiresAt:      linkExpiry,
//		IdempotencyKey: "reset-" + resetID,
//	})
//
// # What a nil error means
//
// The message is safe: it survives a crash of deliverd and of its store. It will be
// handed over to the recipient's mail server, or you will hear why not: from
// [Client.Get], from [Client.Wait], or from the event stream. It does not mean that
// the message has arrived. Show receipt.Ref to the user ("reference 7K3Q-9DXP"):
// support finds the mail by it.
//
// # Retries and idempotency
//
// Send tries again when the connection breaks or deliverd is busy, until ctx ends or
// the attempts are used up ([Attempts]). That is safe because each message has an
// idempotency key: the same key and content are one mail, however often they are
// sent. Send makes a key where you give none, which covers its own retries. A key of
// your own, such as the id of the invite in your database, also covers your
// program's restart in between; use that where you can.
//
// Give every call a context with a deadline: it bounds all attempts together. A wait
// that the server asks for (Retry-After) and that does not fit before the deadline is
// not begun; you get the refusal at once.
//
// # Errors
//
// What deliverd refuses is a [*Problem], the same over HTTP and NATS. Ask with
// [IsSuppressed], [IsConflict] and their siblings, or look at its fields:
//
//	if p, ok := errors.AsType[*client.Problem](err); ok && client.IsSuppressed(err) {
//		log.Printf("no mail to this address since %s: %s", p.Suppression.Since, p.Suppression.Cause)
//	}
//
// Any other error is about the way there. No error has a token, a message's data or
// an address in it, so that all of them may be logged.
package client
