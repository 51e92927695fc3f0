package queue

import (
	"context"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// saidPoll is how often Said looks: a fact is on its way for eventLinger and a write.
const saidPoll = 2 * time.Millisecond

// Said waits until what this node knows of a message is in the event log, or ctx
// ends: whoever reads the log then finds what was acknowledged before. The message is
// named by its id, or else by its reference.
func (q *Queue) Said(ctx context.Context, id mail.ID, ref mail.Ref) error {
	for {
		if id != "" && !q.unsaid.has(id) || id == "" && !q.unsaid.mentions(ref) {
			return nil
		}
		t := time.NewTimer(saidPoll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// mentions reports whether a fact about a message with this reference is on its way.
func (u *unsaidFacts) mentions(ref mail.Ref) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id := range u.byID {
		if id.Ref() == ref {
			return true
		}
	}
	return false
}
