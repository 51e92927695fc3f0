package tlspolicy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// Level is how a connection has to be protected; each asks for more than the one
// before it.
type Level int

const (
	// Opportunistic encrypts where the server can, whatever its certificate, and goes
	// on in clear where it can't (RFC 7435): a passive reader is kept out, and nobody's
	// mail waits for a broken certificate.
	Opportunistic Level = iota
	// None never encrypts.
	None
	// Encrypted wants encryption and takes any certificate.
	Encrypted
	// Verified wants encryption and a certificate for the host's name from a root that
	// we trust.
	Verified
	// Implicit is Verified from the first byte (RFC 8314 3.3, port 465).
	Implicit
	// DANE wants encryption and a certificate that the host's TLSA records name (RFC
	// 7672).
	DANE
)

// Mandatory reports whether nothing may be sent in clear.
func (l Level) Mandatory() bool { return l >= Encrypted }

// Demand is what a connection to one host has to be like.
type Demand struct {
	Level  Level
	By     mail.TLSPolicy
	Source string // where that was found, for people
	// Host is the name that certificates are held against, and that is named in the
	// handshake.
	Host string
	// TLSA and Names: the associations of DANE, usable or not, and the names that a
	// certificate of usage 2 may have.
	TLSA  []dnscheck.TLSA
	Names []string
	// Testing: an MTA-STS policy would ask for Verified, and for a host that it names,
	// but nothing fails by it.
	Testing bool
	// Unlisted: that policy does not name the host.
	Unlisted bool
	// RequireTLS: the server has to promise to pass this protection on (RFC 8689).
	RequireTLS bool
	// Secure says that nobody can have forged which hosts take the domain's mail: by
	// DNSSEC, or by an MTA-STS policy that names this one.
	Secure bool
	// Report is what reports are about, nil where there are none: a relay of ours.
	Report *Policy
}

// Facts are what is known of one host before it is dialled.
type Facts struct {
	Domain   string // the recipient's
	Host     string // one of its exchangers
	Port     uint16
	MXSecure bool // the answer that named the host was validated
	// Associations are those of the host, and TLSAErr says that whether there are any
	// could not be learned although the zone is signed.
	Associations dnscheck.Associations
	TLSAErr      error
	// Policy is the domain's MTA-STS policy in force, nil if there is none.
	Policy *Kept
}

// Decide says what a connection to the host has to be like, or, as an *Problem, why
// there must be none. It is a pure function; the table is in the package's doc.
func Decide(f Facts) (Demand, *Problem) {
	d := Demand{By: mail.TLSOpportunistic, Host: f.Host, Secure: f.MXSecure, Report: &Policy{Type: NoPolicy, Domain: f.Domain}}
	if f.TLSAErr != nil {
		d.By, d.Source = mail.TLSByDANE, fmt.Sprintf("_%d._tcp.%s", f.Port, f.Host)
		d.Report = &Policy{Type: TLSA, Domain: f.Domain, MX: []string{f.Host}}
		return d, d.problem(mail.TLSALookup, f.TLSAErr)
	}
	if len(f.Associations.Records) > 0 {
		d.dane(f)
		if d.Level == DANE {
			return d, nil
		}
	}
	if f.Policy == nil || f.Policy.Mode == "none" {
		return d, nil
	}
	listed := f.Policy.Covers(f.Host)
	if f.Policy.Mode != "enforce" {
		if d.Level == Opportunistic {
			d.Testing, d.Unlisted = true, !listed
			d.By, d.Source, d.Report = mail.TLSTesting, f.Policy.source(), f.Policy.report()
		}
		return d, nil
	}
	d.By, d.Source, d.Report = mail.TLSBySTS, f.Policy.source(), f.Policy.report()
	d.Level, d.Secure = Verified, true
	if !listed {
		d.Secure = f.MXSecure
		return d, d.problem(mail.TLSMXMismatch, fmt.Errorf("it names %s", strings.Join(f.Policy.MX[:min(len(f.Policy.MX), 3)], ", ")))
	}
	return d, nil
}

// dane takes over what the associations ask for.
func (d *Demand) dane(f Facts) {
	base, records := f.Associations.Base, f.Associations.Records
	name := fmt.Sprintf("_%d._tcp.%s", f.Port, base)
	texts := make([]string, 0, len(records))
	for _, r := range records[:min(len(records), maxStrings)] {
		texts = append(texts, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data[:min(len(r.Data), 64)]))
	}
	d.TLSA, d.Level, d.By = records, Encrypted, mail.TLSByUnusable
	d.Report = &Policy{Type: TLSA, Domain: f.Domain, Strings: texts, MX: []string{f.Host}}
	first := records[0]
	if i := slices.IndexFunc(records, dnscheck.TLSA.Usable); i >= 0 {
		d.Level, d.By, first = DANE, mail.TLSByDANE, records[i]
		// RFC 7672 3.2.2: the base, where the exchangers were named securely the domain
		// itself, and what the base was an alias of.
		d.Host, d.Names = base, slices.Compact([]string{base, f.Host, f.Domain})
	}
	d.Source = fmt.Sprintf("%s TLSA %d %d %d", name, first.Usage, first.Selector, first.Matching)
}

// Raise puts a kind's floor under the demand. It never asks for less than was asked
// for, but where failures of TLS are to be ignored. A *Problem says that the floor
// can't be met at this host, whatever it offers.
func (d Demand) Raise(floor mail.TLSFloor, kind string) (Demand, *Problem) {
	least, by := Opportunistic, mail.TLSByKind
	switch floor {
	case mail.TLSFloorNone:
		return d, nil
	case mail.TLSFloorIgnored:
		if d.By != mail.TLSByRelay {
			d.Level, d.Report = Opportunistic, nil
		}
		return d, nil
	case mail.TLSFloorRequired:
		least = Encrypted
	case mail.TLSFloorVerified:
		least = Verified
	case mail.TLSFloorRequire:
		least, by, d.RequireTLS = Verified, mail.TLSByRequire, true
	}
	if d.Level < least {
		d.Level, d.By = least, by
		d.Source = fmt.Sprintf("kinds.%s.tls = %q", kind, string(floor))
	}
	// RFC 8689 4.2.1: a name that anybody may have forged proves nothing, however good
	// its certificate.
	if d.RequireTLS && !d.Secure {
		d.By, d.Source = by, fmt.Sprintf("kinds.%s.tls = %q", kind, string(floor))
		return d, d.problem(mail.TLSUnprovenExchange, nil)
	}
	return d, nil
}

// Sharing tells demands apart that are of one level and to one host, and yet whose
// connections must not be shared: a certificate of usage 2 may have been good for the
// one domain's name alone, and what fails under a policy in testing is noted for those
// that have one.
func (d *Demand) Sharing() string {
	switch {
	case d.Testing && d.Unlisted:
		return "testing, not listed"
	case d.Testing:
		return "testing"
	case d.Level == DANE && slices.ContainsFunc(d.TLSA, func(t dnscheck.TLSA) bool { return t.Usage == 2 }):
		return strings.Join(d.Names, " ")
	}
	return ""
}
