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
func (c *Client) Get(ctx context.Context, idOrRef string) (Status, error) {
	return c.get(ctx, idOrRef, 0)
}

func (c *Client) get(ctx context.Context, idOrRef string, hold time.Duration) (s Status, err error) {
	call := call{method: http.MethodGet, path: "/v1/messages/" + url.PathEscape(idOrRef), safe: true}
	call.holdFor(hold)
	if err := c.do(ctx, call, nil, &s.Raw); err != nil {
		return Status{}, err
	}
	if decode(s.Raw, &s) != nil || s.ID == "" {
		return Status{}, &wayError{call, errNotOurs}
	}
	return s, nil
}

// longestHold is how long Wait has deliverd hold an answer back at a time: less than
// proxies think an answer may take.
const longestHold = 30 * time.Second

// Wait asks until a message has ended or ctx has, and returns where it stood when last
// asked, in the second case with an error. "Ended" is a terminal state: accepted by
// the recipient's server, refused, expired, superseded, cancelled or suppressed. An
// end is known at once, as deliverd holds its answers back until there is one. HTTP
// only.
func (c *Client) Wait(ctx context.Context, idOrRef string) (Status, error) {
	var last Status
	for pause := firstWait; ; pause = min(pause*3/2, longestWait) {
		hold := longestHold
		if deadline, ok := ctx.Deadline(); ok {
			hold = min(hold, time.Until(deadline)-time.Second) // the answer has to come in time
		}
		s, err := c.get(ctx, idOrRef, hold)
		if err != nil {
			return last, err
		}
		if last = s; last.State.Terminal() || last.State == mail.StateReturned || last.State == mail.StateComplained {
			return last, nil
		}
		// A server that holds nothing back must not be asked without pause.
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
}
