package queue

import (
	"context"
	"errors"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// A message of a kind with ResendSame, an invite, may be sent again as it is while it
// is valid: to somebody who deleted it, or whose server said yes and put it away. Its
// record then outlives its end, with the sealed Data, until it expires: that costs no
// write, as the record is not buried, and some 1.5 KiB of disk and the store's memory
// of one key a message. Forget ends it earlier.

// keepLeast is how long a message has to be valid yet for its Data to be worth keeping.
const keepLeast = time.Minute

// keepsData reports whether an ended message's Data stays.
func (q *Queue) keepsData(m *mail.Message, ended mail.State) bool {
	switch ended {
	case mail.StateAccepted, mail.StateRefused, mail.StateSuppressed:
		now, _ := q.clock.now()
		return q.o.kind(m.Kind).ResendSame && m.ExpiresAt.Sub(now) >= keepLeast
	}
	return false
}

// Message returns a message with its Data opened: one that waits, or that has ended and
// may be sent again. Only code that renders or enqueues may call it: Data holds
// secrets. ErrNotFound: there is no Data any more.
func (q *Queue) Message(ctx context.Context, id mail.ID) (mail.Message, error) {
	_, r, _, err := q.find(ctx, id)
	if err != nil {
		return mail.Message{}, err
	}
	if r.sealed == nil {
		return mail.Message{}, ErrNotFound
	}
	return r.openData(q.o.Seal)
}

// Forget destroys the Data of an ended message that is kept to be sent again, because
// its link has been used. A message that waits, or that is not kept, stays as it is.
func (q *Queue) Forget(ctx context.Context, id mail.ID) error {
	sh, r, rev, err := q.find(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && !r.Kept {
		return nil
	}
	if err != nil {
		return err
	}
	return q.store.remove(ctx, sh.bucket, idKey(id), rev)
}
