package dnscheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

const (
	// maxFailures is how many unanswered questions a report names.
	maxFailures = 10
	// maxBogus is how many of them are asked again with checking disabled.
	maxBogus = 3
)

// unanswered reports the questions that the servers did not answer. Where they
// answer once DNSSEC is left aside, the data is there and its signatures are
// wrong, which is another fault and has another cure.
func (s *survey) unanswered(ctx context.Context, m *reception) {
	failures := slices.Clone(s.failures)
	slices.SortStableFunc(failures, func(a, b *Error) int {
		return cmp.Or(strings.Compare(a.Domain, b.Domain), strings.Compare(a.Type, b.Type))
	})
	failures = slices.CompactFunc(failures, func(a, b *Error) bool { return a.Domain == b.Domain && a.Type == b.Type })
	if lookup, ok := errors.AsType[*Error](m.err); ok && !lookup.Permanent() {
		// What decides comes first.
		failures = append([]*Error{lookup}, slices.DeleteFunc(failures, func(e *Error) bool { return e.Domain == lookup.Domain && e.Type == lookup.Type })...)
	}
	if s.bogus(ctx, failures) {
		failures = slices.DeleteFunc(failures, func(e *Error) bool { return e.RCode == "SERVFAIL" && underOrEqual(e.Domain, s.domain) })
	}
	for _, lookup := range failures[:min(len(failures), maxFailures)] {
		s.failure(lookup)
	}
}

// bogus asks again, with checking disabled, what ended in SERVFAIL, and reports
// whether the domain's signatures are to blame.
func (s *survey) bogus(ctx context.Context, failures []*Error) bool {
	var again []*Error
	for _, lookup := range failures {
		if lookup.RCode == "SERVFAIL" && underOrEqual(lookup.Domain, s.domain) && len(again) < maxBogus {
			again = append(again, lookup)
		}
	}
	works := make([]bool, len(again))
	var wg sync.WaitGroup
	for i, lookup := range again {
		wg.Go(func() {
			a := s.resolver.find(ctx, lookup.Domain, dns.StringToType[lookup.Type], true)
			works[i] = a.err == nil || a.err.Permanent()
		})
	}
	wg.Wait()
	i := slices.Index(works, true)
	if i < 0 {
		return false
	}
	s.add("dnssec.bogus", s.domain, "The domain's DNSSEC signatures are not valid, so resolvers that verify them, ours among them, refuse its records.",
		shown(again[i].Error(), again[i].Type+" of "+again[i].Domain+" is answered when checking is disabled"),
		fix("Renew the signatures, or remove the DS record at the registrar until they are valid."))
	return true
}

// failure reports one question without an answer.
func (s *survey) failure(lookup *Error) {
	name, text := "dns.timeout", "%s of %s was not answered in time."
	switch {
	case errors.Is(lookup.Err, errTruncated):
		name, text = "dns.tcp_failed", "%s of %s is too long for a datagram, and TCP failed."
	case lookup.RCode == "REFUSED":
		name, text = "dns.refused", "The servers refuse to answer %s of %s."
	case lookup.RCode != "":
		name, text = "dns.servfail", "The servers failed to answer %s of %s."
	}
	concern := Receiving
	if lookup.Type == "TXT" || lookup.Type == "SPF" {
		concern = TheirMail
	}
	s.add(name, lookup.Domain, fmt.Sprintf(text, lookup.Type, lookup.Domain), shown(lookup.Error()), about(concern))
}
