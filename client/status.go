package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Status is where a message stands. Raw is the whole answer, with the story and the
// evidence of each attempt.
type Status struct {
	ID          ID         `json:"id"`
	Ref         Ref        `json:"ref"`
	Kind        string     `json:"kind"`
	State       State      `json:"state"`
	Cause       mail.Cause `json:"cause"` // of the last delay or refusal
	ExpiresAt   time.Time  `json:"expires_at"`
	NextAttempt time.Time  `json:"next_attempt"` // zero where none follows

	Raw json.RawMessage `json:"-"`
}

// Get returns where a message stands, by its id or reference. HTTP only.
func (c *Client) Get(ctx context.Context, idOrRef string) (s Status, err error) {
	var raw json.RawMessage
	if err := c.Do(ctx, http.MethodGet, "/v1/messages/"+url.PathEscape(idOrRef), nil, nil, &raw); err != nil {
		return Status{}, err
	}
	if err := decode(raw, &s); err != nil {
		return Status{}, err
	}
	s.Raw = raw
	return s, nil
}

// Wait asks until a message has ended or ctx has, and returns where it stood when last
// asked, in the second case with an error. "Ended" is a terminal state: accepted
// by the recipient's server, refused, expired, superseded, cancelled or suppressed.
// HTTP only.
func (c *Client) Wait(ctx context.Context, idOrRef string) (Status, error) {
	var last Status
	for pause := firstWait; ; pause = min(pause*3/2, longestWait) {
		s, err := c.Get(ctx, idOrRef)
		if err != nil {
			return last, err
		}
		if last = s; last.State.Terminal() || last.State == mail.StateReturned || last.State == mail.StateComplained {
			return last, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
}
