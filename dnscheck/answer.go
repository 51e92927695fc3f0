package dnscheck

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/miekg/dns"
)

const (
	// maxAliases is how many CNAMEs are followed (FAULTS C07; BIND's limit).
	maxAliases = 16
	// maxRecords is how many records of one answer are kept: a zone that holds
	// more wants to be a burden.
	maxRecords = 1000
	// maxEDE bounds the extended errors kept of one answer, and each one's text.
	maxEDE     = 4
	maxEDEText = 200
)

// How long answers are remembered.
const (
	// minTTL keeps a zone that says 0 from being asked for every message of a
	// batch, maxTTL one that says 68 years from being wrong for as long.
	minTTL = 5 * time.Second
	maxTTL = 24 * time.Hour
	// maxNegative is the bound on remembered absence that RFC 2308 5 recommends.
	maxNegative = 3 * time.Hour
	// failureTTL is within the 1 s that RFC 9520 3.2 asks for at least and the
	// minute after which a domain may have been repaired.
	failureTTL = 5 * time.Second
)

// Answer is what is known of any answer besides its records.
type Answer struct {
	Name    string        // the name asked for
	Owner   string        // the name that has the records, after all aliases
	Aliases []string      // the aliases' targets in order; the last one is Owner
	TTL     time.Duration // as the server said, the least of all records used
	AD      bool          // validated, said by a resolver whose word counts
	Server  string        // the resolver, host:port
	TCP     bool          // the answer was too long for a datagram
	NoEDNS  bool          // the server answers only without EDNS
	Cut     bool          // records beyond the 1,000th were dropped
	EDE     []string      // extended errors, "15 Blocked: text" (RFC 8914)
}

// answer is what one question brought: records, proven absence or a failure.
// Shared by those who asked, and not changed once made.
type answer struct {
	Answer
	records []dns.RR
	next    string        // an alias whose target the server didn't resolve, else empty
	err     *Error        // absence or failure
	keep    time.Duration // how long it may be remembered
	size    int           // bytes, roughly
}

// digest reads a reply: follows the aliases in it, takes the records asked for,
// and tells absence from failure.
func digest(q question, rep *reply) *answer {
	m := rep.msg
	a := &answer{
		Answer: Answer{
			Name: plain(q.name), Owner: plain(q.name),
			AD:     m.AuthenticatedData && rep.server.trusted,
			Server: rep.server.addr, TCP: rep.tcp, NoEDNS: rep.plain,
			EDE: extendedErrors(m),
		},
		size: m.Len(),
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		a.fail(q, Temporary, m.Rcode, nil)
		a.keep = failureTTL
		return a
	}
	owner, alias, err := a.follow(q, m)
	if err != nil {
		a.fail(q, Temporary, m.Rcode, err)
		a.keep = failureTTL
		return a
	}
	a.take(q, m, owner)
	switch {
	case len(a.records) > 0:
		a.keep = min(max(a.TTL, minTTL), maxTTL)
	case m.Rcode == dns.RcodeNameError:
		a.absent(q, NoDomain, m)
	case alias && !hasSOA(m):
		// The server left the alias for us to follow.
		a.next, a.keep = owner, min(max(a.TTL, minTTL), maxTTL)
	default:
		a.absent(q, NoData, m)
	}
	return a
}

// follow walks the chain of aliases inside one reply and returns where it ends
// and whether there was any.
func (a *answer) follow(q question, m *dns.Msg) (owner string, alias bool, err error) {
	owner = q.name
	a.TTL = longestTTL
	if q.kind == dns.TypeCNAME {
		return owner, false, nil
	}
	targets := map[string]*dns.CNAME{}
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET {
			targets[lowerASCII(c.Hdr.Name)] = c
		}
	}
	for len(targets) > 0 {
		c := targets[owner]
		if c == nil {
			break
		}
		owner = lowerASCII(c.Target)
		if err := a.addAlias(plain(owner)); err != nil {
			return "", true, err
		}
		a.TTL = min(a.TTL, ttl(c.Hdr.Ttl))
	}
	return owner, owner != q.name, nil
}

// addAlias notes that the chain goes on to name. An endless chain is an error.
func (a *answer) addAlias(name string) error {
	if name == a.Name || slices.Contains(a.Aliases, name) {
		return fmt.Errorf("aliases lead in a circle at %s", name)
	}
	if len(a.Aliases) == maxAliases {
		return fmt.Errorf("more than %d aliases", maxAliases)
	}
	a.Aliases = append(a.Aliases, name)
	a.Owner = name
	return nil
}

// longestTTL is the most that a TTL can say (RFC 2181 8).
const longestTTL = (1<<31 - 1) * time.Second

// ttl reads a TTL; one with the top bit set counts as 0 (RFC 2181 8).
func ttl(seconds uint32) time.Duration {
	if seconds > 1<<31-1 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// take keeps the records of owner that were asked for.
func (a *answer) take(q question, m *dns.Msg, owner string) {
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != q.kind || h.Class != dns.ClassINET || lowerASCII(h.Name) != owner {
			continue
		}
		if len(a.records) == maxRecords {
			a.Cut = true
			return
		}
		a.records = append(a.records, rr)
		a.TTL = min(a.TTL, ttl(h.Ttl))
	}
}

// absent records proven absence and how long it holds (RFC 2308 5): as long as
// the zone's SOA says, and hardly at all without one.
func (a *answer) absent(q question, kind Kind, m *dns.Msg) {
	a.fail(q, kind, m.Rcode, nil)
	a.TTL, a.keep = 0, minTTL
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			a.TTL = min(ttl(soa.Hdr.Ttl), ttl(soa.Minttl))
			a.keep = min(max(a.TTL, minTTL), maxNegative)
		}
	}
}

func (a *answer) fail(q question, kind Kind, rcode int, err error) {
	a.err = &Error{
		Kind: kind, Domain: plain(q.name), Type: dns.TypeToString[q.kind],
		Server: a.Server, RCode: dns.RcodeToString[rcode], EDE: a.EDE, Err: err,
	}
}

func hasSOA(m *dns.Msg) bool {
	return slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
}

// extendedErrors reads the reply's extended errors as text fit for a report.
func extendedErrors(m *dns.Msg) []string {
	opt := m.IsEdns0()
	if opt == nil {
		return nil
	}
	var texts []string
	for _, o := range opt.Option {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok || len(texts) == maxEDE {
			continue
		}
		text := fmt.Sprint(ede.InfoCode)
		if name := dns.ExtendedErrorCodeToString[ede.InfoCode]; name != "" {
			text += " " + name
		}
		if extra := printable(ede.ExtraText, maxEDEText); extra != "" {
			text += ": " + extra
		}
		texts = append(texts, text)
	}
	return texts
}

// printable is s on one line of at most limit bytes, valid UTF-8, without
// characters that control a terminal or the direction of text.
func printable(s string, limit int) string {
	s = strings.ToValidUTF8(s[:min(len(s), limit)], "")
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return c
	}, s))
}
