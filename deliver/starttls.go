package deliver

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
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
	demand := c.target.demand()
	inClear := func(why string, failure mail.TLSFailure) {
		c.tls = &mail.TLS{Policy: demand.By, Source: demand.Source, Problem: why}
		if policy.Mandatory() || demand.Testing {
			c.tls.Failure = failure
		}
	}
	if !policy.Mandatory() && d.memory.tlsIsBroken(c.target.addr.Addr()) {
		inClear("not used: it failed here less than an hour ago", mail.TLSHandshake)
		return nil
	}
	if !c.caps.startTLS {
		inClear("not offered", mail.TLSNotOffered)
		if policy.Mandatory() {
			return c.unprotected(demand.Missing(mail.TLSNotOffered, nil))
		}
		return nil
	}
	r, f := c.command(mail.StageTLS, c.wait.Command, "STARTTLS")
	switch {
	case f != nil:
		return f
	case r.negative() && c.broken:
		return c.refuse(mail.StageTLS, r)
	case r.negative():
		said := r.said()
		refused := "offered, then refused with " + clip([]byte(said.String()), 200)
		inClear("not used: "+refused, mail.TLSNotOffered)
		if policy.Mandatory() {
			// Not the server's word on the message: however final it sounds, a policy only
			// ever delays (RFC 8461 5, RFC 7672 2.2).
			return c.unprotected(demand.Missing(mail.TLSNotOffered, errors.New(refused)))
		}
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
	if f := c.sayHello(p); f != nil {
		return f
	}
	if demand.RequireTLS && !c.caps.requireTLS {
		c.tls.Failure = mail.TLSNoRequire
		return c.unprotected(demand.Missing(mail.TLSNoRequire, nil))
	}
	return nil
}

// unprotected is the failure of a connection that does not meet its demand, and is in
// sync.
func (c *conn) unprotected(p *tlspolicy.Problem) *failure {
	return &failure{target: c.target, stage: mail.StageTLS, err: p}
}

// errInjection is what ends an attempt at a host, whatever the policy.
var errInjection = errors.New("starttls-injection: bytes arrived between STARTTLS's reply and the handshake")

// errHandshake is a handshake that failed.
type errHandshake struct{ err error }

func (e *errHandshake) Error() string { return "TLS handshake: " + plain(e.err) }
func (e *errHandshake) Unwrap() error { return e.err }

// handshake puts TLS over the connection, and holds the certificate against the
// target's demand. Only a policy that is mandatory fails by it.
func (c *conn) handshake(ctx context.Context, d *Deliverer, policy TLSPolicy) *failure {
	demand := c.target.demand()
	facts := &mail.TLS{Policy: demand.By, Source: demand.Source}
	tc := tls.Client(c.raw, &tls.Config{
		ServerName: demand.Host,
		MinVersion: tls.VersionTLS12, // RFC 8996: nothing older is encryption to speak of
		RootCAs:    d.options.RootCAs,
		// The verification is ours, below: opportunistic TLS records what it finds and
		// goes on.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			err := verify(s, d.options.RootCAs, demand.Host)
			describe(facts, s, err)
			problem := demand.Check(s.PeerCertificates, err)
			if problem == nil {
				return nil
			}
			if facts.Failure = problem.Failure; policy.Mandatory() {
				return problem
			}
			return nil
		},
		// No session is resumed, so none is ever offered to another host or under another
		// policy (FAULTS B20). Resuming, measured, saved nothing: 1.05 ms of CPU a new
		// connection with it and 1.07 without, over both sides' key exchange; what saves is
		// keeping connections.
		SessionTicketsDisabled: true,
		// One record a write: small first records are for browsers.
		DynamicRecordSizingDisabled: true,
	})
	began := time.Now()
	c.raw.SetDeadline(began.Add(c.wait.TLS))
	if err := tc.HandshakeContext(ctx); err != nil {
		return c.unshaken(facts, policy, demand, err)
	}
	c.raw.SetDeadline(time.Time{})
	c.Conn = tc
	c.replies = newReplyReader(tc)
	c.tls = facts
	c.said.add(mail.Exchange{Command: "(TLS handshake)", Reply: facts.Version + ", " + facts.Cipher, Took: time.Since(began)})
	return nil
}

// unshaken is the failure of a handshake: of the certificate, or of all the rest.
func (c *conn) unshaken(facts *mail.TLS, policy TLSPolicy, demand tlspolicy.Demand, err error) *failure {
	f := c.fail(mail.StageTLS, &errHandshake{err})
	f.clearNext = true
	if problem, ok := errors.AsType[*tlspolicy.Problem](err); ok {
		f.err = problem
	} else if facts.Failure = mail.TLSHandshake; policy.Mandatory() {
		f.err = demand.Missing(mail.TLSHandshake, f.err)
	}
	c.tls = facts
	return f
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
	facts.Issuer = clip([]byte(cleanText(cmp.Or(leaf.Issuer.CommonName, strings.Join(leaf.Issuer.Organization, ", ")))), 100)
	for _, n := range leaf.DNSNames[:min(len(leaf.DNSNames), maxNames)] {
		facts.Names = append(facts.Names, cleanText(n))
	}
	if verified != nil {
		facts.Problem = cleanText(tlspolicy.Trouble(verified, leaf))
	}
}
