package tlspolicy

import (
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// Problem is a connection, or a host before it is dialled, that does not meet a
// demand.
type Problem struct {
	Failure mail.TLSFailure
	By      mail.TLSPolicy
	Source  string
	Host    string
	Detail  error // what was seen, nil where Failure says it all
}

func (d *Demand) problem(failure mail.TLSFailure, detail error) *Problem {
	return &Problem{Failure: failure, By: d.By, Source: d.Source, Host: d.Host, Detail: detail}
}

// Error tells host, what was seen and who wants it otherwise, for an administrator.
func (p *Problem) Error() string {
	var said string
	switch p.Failure {
	case mail.TLSNotOffered:
		said = p.Host + " offers no TLS"
	case mail.TLSHandshake:
		said = "TLS with " + p.Host + " fails"
	case mail.TLSALookup:
		said = "the TLSA records of " + p.Host + " can't be looked up, and its zone is signed"
	case mail.TLSMXMismatch:
		said = "the MTA-STS policy does not name the exchanger " + p.Host
	case mail.TLSNoRequire:
		said = "5.7.30 " + p.Host + " does not support REQUIRETLS"
	case mail.TLSUnprovenExchange:
		said = "5.7.30 nothing proves that " + p.Host + " is an exchanger of the domain: neither DNSSEC nor an MTA-STS policy"
	default:
		said = "the certificate of " + p.Host + " is not accepted"
	}
	if p.Detail != nil {
		said += ": " + p.Detail.Error()
	}
	return said + " (" + string(p.Failure) + ", wanted by " + strings.TrimSpace(string(p.By)+" "+p.Source) + ")"
}

// Unwrap returns what was seen.
func (p *Problem) Unwrap() error { return p.Detail }

// Missing is the problem of a server with which there is no TLS at all: none offered,
// or a handshake that fails for a reason of detail.
func (d *Demand) Missing(failure mail.TLSFailure, detail error) *Problem {
	return d.problem(failure, detail)
}

// Check holds the certificates that a server sent, its own first, against the demand.
// pkix is how they do by the trusted roots and the host's name, nil for well; DANE
// does not ask for that. A problem of a policy in testing is one, too: whether it
// counts is for the demand's Level to say.
func (d *Demand) Check(chain []*x509.Certificate, pkix error) *Problem {
	switch {
	case d.Level == DANE:
		if err := dnscheck.MatchTLSA(d.TLSA, d.Names, chain); err != nil {
			return d.problem(daneFailure(err), err)
		}
	case d.Level == Verified || d.Level == Implicit:
		if pkix != nil {
			return d.problem(pkixFailure(pkix), sayCertificate(pkix, chain))
		}
	case d.Testing && d.Unlisted:
		return d.problem(mail.TLSMXMismatch, nil)
	case d.Testing && pkix != nil:
		return d.problem(pkixFailure(pkix), sayCertificate(pkix, chain))
	}
	return nil
}

// pkixFailure names the result type of a certificate that the roots or the name
// reject (RFC 8460 4.3.1).
func pkixFailure(err error) mail.TLSFailure {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return mail.TLSExpired
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return mail.TLSNameMismatch
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return mail.TLSNotTrusted
	}
	return mail.TLSInvalid
}

// daneFailure is the same where associations decide: an authority that they name may
// have issued what is expired or has another name.
func daneFailure(err error) mail.TLSFailure {
	if f := pkixFailure(err); f == mail.TLSExpired || f == mail.TLSNameMismatch {
		return f
	}
	return mail.TLSAMismatch
}

// sayCertificate says in words what is wrong with a certificate.
func sayCertificate(err error, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return err
	}
	return errors.New(Trouble(err, chain[0]))
}

// maxNames bounds the certificate's names that are told.
const maxNames = 5

// Trouble says in words what is wrong with a certificate that was rejected for err.
func Trouble(err error, leaf *x509.Certificate) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if time.Now().Before(leaf.NotBefore) {
			return "not valid before " + leaf.NotBefore.UTC().Format(time.DateOnly)
		}
		return "expired on " + leaf.NotAfter.UTC().Format(time.DateOnly)
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "made for another name: " + strings.Join(leaf.DNSNames[:min(len(leaf.DNSNames), maxNames)], ", ")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if leaf.Issuer.String() == leaf.Subject.String() {
			return "self-signed"
		}
		return "issued by an authority that we don't know"
	}
	return err.Error()
}
