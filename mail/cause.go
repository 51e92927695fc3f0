package mail

// Cause is why a message was delayed, refused or returned. The sentences that go
// with one, who acts and what to answer are in package bounces' catalogue.
type Cause string

// What a receiving server may say, in its reply or in a bounce.
const (
	CauseBadMailbox      Cause = "bad_mailbox"
	CauseInactiveMailbox Cause = "inactive_mailbox"
	CauseMailboxFull     Cause = "mailbox_full"
	CauseAddressChanged  Cause = "address_changed"
	CauseBadDomain       Cause = "bad_domain"
	CauseTooLarge        Cause = "too_large"
	CauseGreylisted      Cause = "greylisted"
	CauseRateLimited     Cause = "rate_limited"
	CauseBlocklisted     Cause = "blocklisted"
	CausePTRMissing      Cause = "ptr_missing"
	CauseAuthFailed      Cause = "auth_failed"
	CauseSpam            Cause = "spam"
	CauseContentRejected Cause = "content_rejected"
	CausePolicy          Cause = "policy"
	CauseSenderRejected  Cause = "sender_rejected"
	CauseRelayDenied     Cause = "relay_denied"
	CauseTLSRequired     Cause = "tls_required"
	CauseProtocol        Cause = "protocol"
	CauseNetwork         Cause = "network"
	CauseRemoteError     Cause = "remote_error"
	CauseExpired         Cause = "expired"
	CauseUnknown         Cause = "unknown"
)

// What deliverd itself finds or decides.
const (
	CauseNullMX          Cause = "null_mx"
	CauseDNSFailure      Cause = "dns_failure"
	CauseTimeout         Cause = "timeout"
	CauseLoop            Cause = "loop"
	CauseSuppressed      Cause = "suppressed"
	CauseSuperseded      Cause = "superseded"
	CauseCancelled       Cause = "cancelled"
	CauseNotUsefulInTime Cause = "not_useful_in_time"
	CauseComplaint       Cause = "complaint" // the recipient called a message unwanted
)

// Causes lists every cause once, in the order above.
var Causes = [...]Cause{
	CauseBadMailbox, CauseInactiveMailbox, CauseMailboxFull, CauseAddressChanged, CauseBadDomain,
	CauseTooLarge, CauseGreylisted, CauseRateLimited, CauseBlocklisted, CausePTRMissing, CauseAuthFailed,
	CauseSpam, CauseContentRejected, CausePolicy, CauseSenderRejected, CauseRelayDenied, CauseTLSRequired,
	CauseProtocol, CauseNetwork, CauseRemoteError, CauseExpired, CauseUnknown,
	CauseNullMX, CauseDNSFailure, CauseTimeout, CauseLoop, CauseSuppressed, CauseSuperseded,
	CauseCancelled, CauseNotUsefulInTime, CauseComplaint,
}

// Actor is who has to do something.
type Actor string

// Who acts.
const (
	ActNobody  Actor = "nobody"
	ActPerson  Actor = "person"
	ActTheirIT Actor = "their_it"
	ActUs      Actor = "us"
	ActSupport Actor = "support"
)
