package dnscheck

import "strings"

// Kind says which way a lookup failed, which decides what a caller does next.
type Kind string

const (
	// NoDomain: the name doesn't exist (NXDOMAIN). Permanent, unless it is asked
	// again later and has appeared.
	NoDomain Kind = "no_domain"
	// NullMX: the domain says that it takes no mail (RFC 7505). Permanent.
	NullMX Kind = "null_mx"
	// NoAddress: the name exists, but no host of it has an address that mail may
	// be sent to. Permanent.
	NoAddress Kind = "no_address"
	// NoData: the name exists and has no record of the type asked for. Only plain
	// lookups report it; Route turns it into an implicit MX or NoAddress.
	NoData Kind = "no_data"
	// Temporary: their side did not give a usable answer (SERVFAIL, REFUSED by an
	// upstream, a loop of aliases). Never a reason to give up on a message, and
	// never one to guess (RFC 5321 5.1).
	Temporary Kind = "temporary"
	// Local: none of our own resolvers answered at all. A fault of ours: it says
	// nothing about the domain, and a delivery that meets it has not been tried.
	Local Kind = "local"
	// BadName: the name can't be asked for (a label over 63 bytes, a name over
	// 253, an empty label). Permanent.
	BadName Kind = "bad_name"
)

// Error is what every failed lookup of this package returns.
type Error struct {
	Kind   Kind
	Domain string   // the name that was asked for
	Type   string   // the record type that was asked for, such as "MX"
	Server string   // the resolver that answered, or the last one tried; host:port
	RCode  string   // what it answered, such as "SERVFAIL"; empty: no answer
	EDE    []string // extended errors of the answer, "22 No Reachable Authority: text" (RFC 8914)
	Err    error    // what lies below, such as a dial error or context.DeadlineExceeded
}

// Error tells what was asked, of whom, and how it ended, on one line.
func (e *Error) Error() string {
	text := "dns " + e.Type + " " + e.Domain + ": " + e.says()
	if e.Server != "" {
		text += " from " + e.Server
	}
	if len(e.EDE) > 0 {
		text += " (" + strings.Join(e.EDE, "; ") + ")"
	}
	return text
}

func (e *Error) says() string {
	said := string(e.Kind)
	switch {
	case e.Kind == NullMX:
		said = "the domain takes no mail (null MX)"
	case e.Kind == NoAddress:
		said = "no address to send mail to"
	case e.Kind == NoData:
		said = "no such record"
	case e.RCode != "" && e.RCode != "NOERROR":
		said = e.RCode
	case e.Err != nil:
		return e.Err.Error()
	}
	if e.Err != nil {
		said += ": " + e.Err.Error()
	}
	return said
}

// Unwrap returns what lies below, so that errors.Is finds a context's end.
func (e *Error) Unwrap() error { return e.Err }

// Permanent reports whether asking again soon can't help.
func (e *Error) Permanent() bool {
	switch e.Kind {
	case NoDomain, NullMX, NoAddress, NoData, BadName:
		return true
	}
	return false
}
