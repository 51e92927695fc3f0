package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// secure goes from clear to TLS as the policy says (RFC 3207), and introduces us
// again: what was offered in clear may have been forged.
//
//	not offered         opportunistic: in clear.    mandatory: failure
//	refused (4xx, 5xx)  opportunistic: in clear, on the same connection
//	220 and more bytes  failure, always: somebody injected them (CVE-2011-0411)
//	handshake fails     failure; opportunistic: see Deliverer.open
func (c *conn) secure(ctx context.Context, d *Deliverer, p *Plan, policy TLSPolicy) *failure {
	if !policy.mandatory() && d.memory.tlsIsBroken(c.target.addr.Addr()) {
		c.tls = &mail.TLS{Problem: "not used: it failed here less than an hour ago"}
		return nil
	}
	if !c.caps.startTLS {
		if policy.mandatory() {
			return &failure{target: c.target, stage: mail.StageTLS, err: errNoTLS}
		}
		return nil
	}
	r, f := c.command(mail.StageTLS, c.wait.Command, "STARTTLS")
	switch {
	case f != nil:
		return f
	case r.negative() && (policy.mandatory() || c.broken):
		return c.refuse(mail.StageTLS, r)
	case r.negative():
		said := r.said()
		c.tls = &mail.TLS{Problem: "not used: offered, then refused with " + clip([]byte(said.String()), 200)}
		return nil
	case !r.positive():
		return c.unexpected(mail.StageTLS, r)
	case c.replies.buffered():
		// RFC 3207 4.2 and its errata: what was read before the handshake may be anybody's.
		return c.fail(mail.StageTLS, errInjection)
	}
	if f := c.handshake(ctx, d, policy); f != nil {
		return f
	}
	return c.sayHello(p)
}

// The ways in which TLS ends an attempt at a host.
var (
	errNoTLS     = errors.New("the server offers no TLS, and this mail may not go in clear")
	errInjection = errors.New("starttls-injection: bytes arrived between STARTTLS's reply and the handshake")
)

// errHandshake is a handshake that failed.
type errHandshake struct{ err error }

func (e *errHandshake) Error() string { return "TLS handshake: " + plain(e.err) }
func (e *errHandshake) Unwrap() error { return e.err }

// handshake puts TLS over the connection.
func (c *conn) handshake(ctx context.Context, d *Deliverer, policy TLSPolicy) *failure {
	facts := &mail.TLS{}
	verified := policy == TLSVerified || policy == TLSImplicit
	tc := tls.Client(c.raw, &tls.Config{
		ServerName: c.target.host,
		MinVersion: tls.VersionTLS12, // RFC 8996: nothing older is encryption to speak of
		RootCAs:    d.options.RootCAs,
		// The verification is ours, below: opportunistic TLS records what it finds and
		// goes on.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			err := verify(s, d.options.RootCAs, c.target.host)
			describe(facts, s, err)
			if verified {
				return err
			}
			return nil
		},
		// Tickets bought nothing and broke deliveries to Microsoft (golang/go#70232).
		SessionTicketsDisabled: true,
		// One record a write: small first records are for browsers.
		DynamicRecordSizingDisabled: true,
	})
	c.raw.SetDeadline(time.Now().Add(c.wait.TLS))
	if err := tc.HandshakeContext(ctx); err != nil {
		f := c.fail(mail.StageTLS, &errHandshake{err})
		f.clearNext = true
		return f
	}
	c.raw.SetDeadline(time.Time{})
	c.Conn = tc
	c.replies = newReplyReader(tc)
	c.tls = facts
	return nil
}

// verify checks the certificate against the roots and the host's name.
func verify(s tls.ConnectionState, roots *x509.CertPool, host string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	o := x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(o)
	return err
}

// maxNames bounds the certificate's names that are kept, as mail.TLS says.
const maxNames = 5

// describe notes what an IT manager would ask about the connection.
func describe(facts *mail.TLS, s tls.ConnectionState, verified error) {
	facts.Version = tls.VersionName(s.Version)
	facts.Cipher = tls.CipherSuiteName(s.CipherSuite)
	facts.Verified = verified == nil
	if len(s.PeerCertificates) == 0 {
		return
	}
	leaf := s.PeerCertificates[0]
	facts.Expires = leaf.NotAfter.UTC()
	for _, n := range leaf.DNSNames[:min(len(leaf.DNSNames), maxNames)] {
		facts.Names = append(facts.Names, cleanText(n))
	}
	if verified != nil {
		facts.Problem = certificateProblem(verified, leaf, facts.Names)
	}
}

// certificateProblem says in words what is wrong with a certificate.
func certificateProblem(err error, leaf *x509.Certificate, names []string) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if time.Now().Before(leaf.NotBefore) {
			return "not valid before " + leaf.NotBefore.UTC().Format(time.DateOnly)
		}
		return "expired on " + leaf.NotAfter.UTC().Format(time.DateOnly)
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "made for another name: " + strings.Join(names, ", ")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if leaf.Issuer.String() == leaf.Subject.String() {
			return "self-signed"
		}
		return "issued by an authority that we don't know"
	}
	return cleanText(err.Error())
}
