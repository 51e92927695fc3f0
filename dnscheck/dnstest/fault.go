package dnstest

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Verb is what a Fault does to an answer.
type Verb string

// What can go wrong with an answer.
const (
	Servfail  Verb = "servfail"  // answers SERVFAIL
	Refused   Verb = "refused"   // answers REFUSED
	NXDomain  Verb = "nxdomain"  // answers NXDOMAIN, whatever the zone says
	Silent    Verb = "silent"    // never answers
	Lossy     Verb = "lossy"     // never answers over UDP with EDNS
	NoEDNS    Verb = "noedns"    // FORMERR to a query with EDNS
	Truncated Verb = "truncated" // no records over UDP, all over TCP
	NoTCP     Verb = "notcp"     // no records over UDP, and TCP closes
	WrongID   Verb = "wrongid"   // a forged answer with another id, no good one
	WrongName Verb = "wrongname" // an answer to another question, no good one
	WrongCase Verb = "wrongcase" // the question comes back in another case
	Forged    Verb = "forged"    // forged answers before the good one
	Garbage   Verb = "garbage"   // bytes that are no DNS
	Bogus     Verb = "bogus"     // SERVFAIL with EDE 6 unless checking is disabled
	Secure    Verb = "secure"    // the AD bit
	Slow      Verb = "slow"      // the good answer, late by Delay
	Loose     Verb = "loose"     // an alias is answered without its target
)

// Fault does something to the answers for a name.
type Fault struct {
	Name  string // "mx.example.com"; "*.example.com" is everything below, "*" everything
	Type  string // "MX"; empty is any
	Do    Verb
	Delay time.Duration // for Slow
	Times int           // how often, then never again; 0 is always
	Text  string        // for Servfail and Refused: the text of an extended error (code 0)
}

func (f *Fault) matches(q dns.Question) bool {
	if f.Type != "" && dns.StringToType[strings.ToUpper(f.Type)] != q.Qtype {
		return false
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	want := strings.ToLower(strings.TrimSuffix(f.Name, "."))
	if suffix, ok := strings.CutPrefix(want, "*"); ok {
		return strings.HasSuffix(name, suffix)
	}
	return name == want
}

// fault returns the first fault for q of any of the verbs, and counts its use.
func (s *Server) fault(q dns.Question, verbs ...Verb) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.faults {
		f := &s.faults[i]
		if !f.matches(q) || f.Times > 0 && s.used[i] >= f.Times {
			continue
		}
		if slices.Contains(verbs, f.Do) {
			s.used[i]++
			return f
		}
	}
	return nil
}

// response is what a query brings: datagrams or TCP messages after a delay, or
// silence if there are none.
type response struct {
	packets [][]byte
	delay   time.Duration
	hangUp  bool // close the connection instead
}

// respond answers a query as the zone and the faults say.
func (s *Server) respond(query *dns.Msg, tcp bool) response {
	q := query.Question[0]
	edns := query.IsEdns0() != nil
	switch {
	case s.fault(q, Silent) != nil, !tcp && edns && s.fault(q, Lossy) != nil:
		return response{}
	case tcp && s.fault(q, NoTCP) != nil:
		return response{hangUp: true}
	}
	m := new(dns.Msg).SetReply(query)
	m.RecursionAvailable = true
	m.AuthenticatedData = s.fault(q, Secure) != nil
	if edns {
		m.SetEdns0(ednsSize, false)
	}
	s.fillFaulty(m, query)
	if !tcp {
		if s.fault(q, Truncated, NoTCP) != nil {
			m.Answer, m.Ns, m.Truncated = nil, nil, true
		}
		m.Truncate(datagramSize(query))
	}
	out := response{packets: s.forge(m, tcp)}
	if f := s.fault(q, Slow); f != nil {
		out.delay = f.Delay
	}
	return out
}

// fillFaulty answers from the zone, or as the fault for the question says.
func (s *Server) fillFaulty(m, query *dns.Msg) {
	q := query.Question[0]
	edns := query.IsEdns0() != nil
	if edns && s.fault(q, NoEDNS) != nil {
		m.Rcode, m.Extra = dns.RcodeFormatError, nil
		return
	}
	if !query.CheckingDisabled && s.fault(q, Bogus) != nil {
		m.Rcode = dns.RcodeServerFailure
		explain(m, dns.ExtendedErrorCodeDNSBogus, "signature expired")
		return
	}
	rcodes := map[Verb]int{Servfail: dns.RcodeServerFailure, Refused: dns.RcodeRefused, NXDomain: dns.RcodeNameError}
	if f := s.fault(q, Servfail, Refused, NXDomain); f != nil {
		m.Rcode = rcodes[f.Do]
		if f.Text != "" {
			explain(m, dns.ExtendedErrorCodeOther, f.Text)
		}
		return
	}
	s.zone.Load().fill(m)
	if s.fault(q, Loose) != nil && len(m.Answer) > 0 {
		m.Answer, m.Ns, m.Rcode = m.Answer[:1], nil, dns.RcodeSuccess
	}
}

// forge packs the answer and puts in front or in place of it what a forger or a
// broken server would send.
func (s *Server) forge(m *dns.Msg, tcp bool) [][]byte {
	q := m.Question[0]
	var out [][]byte
	fake := func(change func(*dns.Msg)) []byte {
		c := m.Copy()
		c.Rcode, c.Answer, c.Ns = dns.RcodeNameError, nil, nil
		change(c)
		return pack(c)
	}
	otherID := fake(func(c *dns.Msg) { c.Id++ })
	otherName := fake(func(c *dns.Msg) { c.Question[0].Name = "other.invalid." })
	otherCase := fake(func(c *dns.Msg) { c.Question[0].Name = strings.ToUpper(c.Question[0].Name) })
	switch {
	case s.fault(q, WrongID) != nil:
		return append(out, otherID)
	case s.fault(q, WrongName) != nil:
		return append(out, otherName)
	case s.fault(q, WrongCase) != nil:
		return append(out, otherCase)
	case s.fault(q, Garbage) != nil:
		return append(out, []byte("no DNS at all"))
	case !tcp && s.fault(q, Forged) != nil:
		out = append(out, otherID, otherName, otherCase, []byte{0})
	}
	return append(out, pack(m))
}

// pack compresses as real servers do. What the zone's parser took can be packed.
func pack(m *dns.Msg) []byte {
	m.Compress = true
	wire, err := m.Pack()
	if err != nil {
		return nil
	}
	return wire
}

func explain(m *dns.Msg, code uint16, text string) {
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
	}
}

// ednsSize is the longest datagram the server says it takes.
const ednsSize = 1232

// datagramSize is how long a datagram may be that answers query.
func datagramSize(query *dns.Msg) int {
	if opt := query.IsEdns0(); opt != nil {
		return max(dns.MinMsgSize, int(opt.UDPSize()))
	}
	return dns.MinMsgSize
}
