package dnscheck

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// maxTLSAHosts is how many exchangers' certificate associations are looked up.
const maxTLSAHosts = 5

// Conversation is what happened when an exchanger was talked to as for a
// delivery, up to RCPT and never DATA. The package doesn't speak SMTP; who asks
// for the report does, see Options.Converse.
type Conversation struct {
	Host     string              `json:"host"`
	Address  string              `json:"address"`
	Reached  bool                `json:"reached"`           // a greeting came
	STARTTLS bool                `json:"starttls"`          // offered
	TLS      string              `json:"tls,omitempty"`     // version and cipher, if the handshake succeeded
	Refused  string              `json:"refused,omitempty"` // the reply that ended it, if it was a permanent refusal
	Lines    []string            `json:"lines"`             // both sides' lines
	Err      string              `json:"error,omitempty"`
	Chain    []*x509.Certificate `json:"-"` // as the server sent it
}

// dane reports on the exchangers' certificate associations and returns whether
// any counts.
func (s *survey) dane(ctx context.Context, m *reception) (set map[string][]TLSA) {
	set = map[string][]TLSA{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range m.hosts[:min(len(m.hosts), maxTLSAHosts)] {
		h := &m.hosts[i]
		if len(h.Addrs) == 0 {
			continue
		}
		wg.Go(func() {
			if usable := s.tlsa(ctx, m, h); usable != nil {
				mu.Lock()
				defer mu.Unlock()
				set[h.Name] = usable
			}
		})
	}
	wg.Wait()
	return set
}

// tlsa looks up one exchanger's associations and returns those that a sender has
// to hold its certificate against.
func (s *survey) tlsa(ctx context.Context, m *reception, h *Host) []TLSA {
	name := "_25._tcp." + h.Name
	found, err := s.TLSA(ctx, name, m.secured(h))
	if err != nil {
		return nil
	}
	var texts []string
	for _, t := range found.List {
		texts = append(texts, fmt.Sprintf("%s TLSA %d %d %d %x", name, t.Usage, t.Selector, t.Matching, t.Data))
	}
	if !m.secured(h) || !found.AD {
		if s.resolver.trusts() {
			s.add("dane.unsigned", h.Name, fmt.Sprintf("%s has TLSA records, but the domain, the host or the records are not signed, so they have no effect.", h.Name), shown(texts...))
		}
		return nil
	}
	usable := slices.DeleteFunc(slices.Clone(found.List), func(t TLSA) bool { return !t.Usable() })
	if len(usable) == 0 {
		s.add("dane.unusable", h.Name, fmt.Sprintf("None of the TLSA records of %s can be used for mail: it needs usage 2 or 3.", h.Name), shown(texts...))
		return nil
	}
	return usable
}

// Usable reports whether the association means anything for SMTP: usage 2 or 3
// with a known selector and matching type (RFC 7672 3.1).
func (t TLSA) Usable() bool {
	if t.Usage != 2 && t.Usage != 3 || t.Selector > 1 {
		return false
	}
	switch t.Matching {
	case 0:
		return len(t.Data) > 0
	case 1:
		return len(t.Data) == sha256.Size
	case 2:
		return len(t.Data) == sha512.Size
	}
	return false
}

// matches reports whether the association is with this certificate.
func (t TLSA) matches(c *x509.Certificate) bool {
	data := c.Raw
	if t.Selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	switch t.Matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, t.Data)
}

// MatchTLSA holds the certificates that a server sent, its own first, against
// its associations (RFC 7672 3.1); nil means that one matches. With usage 3
// neither names nor dates count; with usage 2 the chain has to lead to the named
// authority, and the certificate has to be for one of names.
func MatchTLSA(records []TLSA, names []string, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("the server sent no certificate")
	}
	why := errors.New("no usable TLSA record")
	for _, t := range records {
		switch {
		case !t.Usable():
		case t.Usage == 3 && t.matches(chain[0]):
			return nil
		case t.Usage == 3:
			why = errors.New("the server's certificate is not the one that its TLSA records name")
		default:
			if why = t.anchors(names, chain); why == nil {
				return nil
			}
		}
	}
	return why
}

// anchors verifies the chain up to the authority that t names.
func (t TLSA) anchors(names []string, chain []*x509.Certificate) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain {
		if t.matches(c) {
			roots.AddCert(c)
			found = true
		} else {
			between.AddCert(c)
		}
	}
	if !found {
		return errors.New("the server's certificates don't include the authority that its TLSA records name")
	}
	err := errors.New("no name to verify")
	for _, name := range names {
		if _, err = chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between}); err == nil {
			return nil
		}
	}
	return err
}

// converse talks to each exchanger, if that was asked for, and reports what it
// says about firewalls and encryption.
func (s *survey) converse(ctx context.Context, m *reception, set map[string][]TLSA) []Conversation {
	if s.options.Converse == nil {
		return nil
	}
	hosts := slices.DeleteFunc(slices.Clone(m.hosts), func(h Host) bool { return len(h.Addrs) == 0 })
	talks := make([]Conversation, min(len(hosts), maxTLSAHosts))
	var wg sync.WaitGroup
	for i := range talks {
		wg.Go(func() { talks[i] = s.options.Converse(ctx, s.domain, hosts[i]) })
	}
	wg.Wait()
	reached := slices.ContainsFunc(talks, func(c Conversation) bool { return c.Reached })
	for i := range talks {
		s.conversation(&talks[i], reached, set[hosts[i].Name])
	}
	return talks
}

func (s *survey) conversation(c *Conversation, anyReached bool, records []TLSA) {
	switch {
	case !c.Reached:
		gravity := StateFail
		if anyReached {
			gravity = StateWarn
		}
		s.add("smtp.unreachable", c.Host, fmt.Sprintf("%s does not answer on port 25 from here: a firewall there, or port 25 closed on our side.", c.Host), as(gravity), shown(c.Err))
		return
	case c.Refused != "":
		s.add("smtp.refused", c.Host, fmt.Sprintf("%s refuses our mail: %s", c.Host, printable(c.Refused, 300)), shown(c.Lines...))
	}
	if !c.STARTTLS {
		s.add("smtp.no_starttls", c.Host, fmt.Sprintf("%s offers no encryption (STARTTLS), so mail goes there in the clear.", c.Host), shown(c.Lines...))
	}
	if len(records) == 0 || len(c.Chain) == 0 {
		return
	}
	if err := MatchTLSA(records, []string{c.Host, s.domain}, c.Chain); err != nil {
		s.add("dane.mismatch", c.Host, fmt.Sprintf("The certificate of %s does not match its TLSA records, so senders that honour DANE don't deliver: %v.", c.Host, err))
		return
	}
	s.add("dane.ok", c.Host, fmt.Sprintf("The certificate of %s matches its TLSA records.", c.Host), shown(strings.TrimSpace(c.TLS)))
}
