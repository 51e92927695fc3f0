package tlspolicy

import (
	"net/netip"

	"github.com/deliverd/deliverd/mail"
)

// The policy types of RFC 8460 4.1.
const (
	TLSA     = "tlsa"
	STSType  = "sts"
	NoPolicy = "no-policy-found"
)

// maxStrings bounds the lines of a policy that a report quotes.
const maxStrings = 20

// Policy is a policy as reports quote it (RFC 8460 4.2).
type Policy struct {
	Type    string   // TLSA, STSType or NoPolicy
	Domain  string   // the recipients'
	Strings []string // its text, a line each; at most 20
	MX      []string // the patterns or the host that it is about; at most 20
}

// Session is how one connection did under the policy that applied to it, or why there
// was none.
type Session struct {
	Policy
	// Failure is "" for a session that met the policy.
	Failure mail.TLSFailure
	// Fetch is why the MTA-STS policy that the domain announces could not be had, "" if
	// it could.
	Fetch       mail.TLSFailure
	FetchReason string
	Reason      string // detail of Failure
	Host        string // the exchanger
	Address     netip.Addr
	Encrypted   bool
	Downgrade   bool // not encrypted, where the host took TLS before
}
