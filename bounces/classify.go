package bounces

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Said is a refusal and what is known of where it was said.
type Said struct {
	Reply    mail.Reply
	Stage    mail.Stage // "" if not known
	Host     string     // the server that said it, "" if not known
	Provider string     // the provider's id, where the caller knows it from elsewhere
}

// Verdict is what a refusal means.
type Verdict struct {
	Cause mail.Cause
	Hard  bool // it was meant to be final
	Retry bool // a later attempt may succeed
	// Suppress: final, and about the address itself. Never set for a soft verdict,
	// nor for a cause that is about us or about a policy (law 10).
	Suppress   bool
	RetryAfter time.Duration // the wait that the text asked for; 0 if it did not
	Provider   string        // "" if not known
	Rule       string        // the name of the rule that decided, "" for none
}
