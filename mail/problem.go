package mail

import "time"

// Problem is why a request is refused, in the form of RFC 9457. It is the same over
// HTTP and NATS. No field repeats a value of the request: values may be secrets.
type Problem struct {
	Type   string `json:"type"` // "/problems/address-invalid"
	Title  string `json:"title"`
	Status int    `json:"status"`           // the HTTP status
	Detail string `json:"detail,omitempty"` // what is wrong and what to do
	Field  string `json:"field,omitempty"`  // the field of the request, e.g. "to" or "data.link"
	// Suppression is set with ProblemSuppressed.
	Suppression *SuppressionNotice `json:"suppression,omitempty"`
	// Message is the message that a conflict is with.
	Message ID `json:"message,omitempty"`
	// RetryAfter is set with ProblemRateLimited and ProblemUnavailable, in seconds.
	RetryAfter int `json:"retry_after,omitempty"`
}

// SuppressionNotice tells a caller since when and why an address gets no mail, and
// how to change that.
type SuppressionNotice struct {
	Cause Cause     `json:"cause"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
	Lift  string    `json:"lift"` // what to do, a sentence
}

// Error returns title and detail, so that a Problem can travel as an error.
func (p *Problem) Error() string {
	s := p.Title
	if p.Field != "" {
		s += " (" + p.Field + ")"
	}
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	return s
}

// The types of problems.
const (
	ProblemAddressInvalid   = "/problems/address-invalid"
	ProblemSuppressed       = "/problems/recipient-suppressed"
	ProblemUnknownKind      = "/problems/unknown-kind"
	ProblemVariableMissing  = "/problems/template-variable-missing"
	ProblemTemplateUnknown  = "/problems/template-unknown"
	ProblemExpired          = "/problems/expired"
	ProblemConflict         = "/problems/idempotency-conflict"
	ProblemRateLimited      = "/problems/rate-limited"
	ProblemTooLarge         = "/problems/too-large"
	ProblemInvalid          = "/problems/invalid-request" // the JSON, or a field of it
	ProblemNotFound         = "/problems/not-found"
	ProblemNotSignedIn      = "/problems/not-signed-in"
	ProblemNotAllowed       = "/problems/not-allowed"
	ProblemNotResendable    = "/problems/not-resendable"
	ProblemAlreadyEnded     = "/problems/already-ended"
	ProblemUnavailable      = "/problems/unavailable" // try again: the store can't take it now
	ProblemMethodNotAllowed = "/problems/method-not-allowed"
)

// Warning is something that the caller should know of a request that was taken.
type Warning struct {
	Code       string `json:"code"`
	Detail     string `json:"detail"`
	Suggestion string `json:"suggestion,omitempty"`
}

// The codes of warnings.
const (
	WarnAddressTrimmed     = "address_trimmed"
	WarnAddressTypo        = "address_typo"
	WarnDomainNoMail       = "domain_no_mail"
	WarnDestinationDelayed = "destination_delayed"
)
