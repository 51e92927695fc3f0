package dnscheck

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// anyIP stands for a sender whom nobody has named: the dummy address of RFC 7600,
// which no mail can come from.
var anyIP = netip.MustParseAddr("192.0.0.8")

// broad is the share of all IPv4 addresses from which on a policy says nothing:
// an eighth. The largest networks of single companies are a sixteenth of that.
const broad = 1 << 29

// spf reports on the domain's policy for the mail that it sends.
func (s *survey) spf(ctx context.Context) *spfTree {
	t := fetchSPF(ctx, s, s.domain)
	root := t.root()
	s.spfHints(root)
	for _, domain := range slices.Sorted(maps.Keys(t.nodes)) {
		s.spfNode(t.nodes[domain], root)
	}
	if root.rec == nil {
		if root.absent {
			s.spfMissing(ctx, root)
		}
		return t
	}
	s.spfLimits(t, root)
	t.follow(s, root.domain, true, map[string]bool{})
	s.spfBroad(t)
	verdict := checkSPF(ctx, s, SPFQuery{IP: anyIP, Helo: s.domain, Sender: "postmaster@" + s.domain}, s.resolver.options.Now())
	s.fact("spf.result_other_ip", string(verdict.Result))
	return t
}

func txtFix(name, text string) detail { return fix("%s. IN TXT %q", name, text) }

// spfMissing tells the ways in which a policy can be absent.
func (s *survey) spfMissing(ctx context.Context, root *spfNode) {
	if found, err := s.TypeSPF(ctx, s.domain); err == nil {
		text := found.List[0].String()
		s.add("spf.type99_only", s.domain, "The policy is published only as the obsolete record type SPF, which nobody reads any more.",
			record(found.Answer, "SPF", text), txtFix(s.domain, text))
	}
	s.add("spf.missing", s.domain, "There is no SPF record, so anybody can send in the name of this domain.",
		txtFix(s.domain, "v=spf1 mx ~all"))
}

// spfHints points at records that were meant to be a policy and at ones that are
// obsolete.
func (s *survey) spfHints(root *spfNode) {
	for _, txt := range root.texts {
		text := txt.String()
		trimmed := strings.TrimLeft(text, " \t")
		unquoted := strings.Trim(trimmed, `"'`)
		switch {
		case isSPF(text):
			s.spfJoined(root, txt)
		case trimmed != text && isSPF(trimmed):
			s.add("spf.leading_space", s.domain, "The record begins with white space, so receivers do not see it as SPF.",
				record(root.answer, "TXT", fmt.Sprintf("%q", text)), txtFix(s.domain, trimmed))
		case unquoted != trimmed && isSPF(unquoted):
			s.add("spf.quoted", s.domain, "The record's text itself holds quotation marks, so receivers do not see it as SPF.",
				record(root.answer, "TXT", fmt.Sprintf("%q", text)), txtFix(s.domain, unquoted))
		case len(text) > 7 && strings.EqualFold(text[:7], "spf2.0/"):
			s.add("spf.senderid", s.domain, "There is a Sender ID record. That standard is obsolete; the record can be deleted.",
				record(root.answer, "TXT", text))
		}
	}
}

// spfJoined finds where two strings of a record join to one term by accident.
func (s *survey) spfJoined(n *spfNode, txt TXT) {
	for i := 1; i < len(txt); i++ {
		before, after := txt[i-1], txt[i]
		if before == "" || strings.HasSuffix(before, " ") || !startsTerm(after) {
			continue
		}
		s.add("spf.joined_strings", n.domain, "Two strings of the record join without a blank between them, which makes one term of two.",
			record(n.answer, "TXT", fmt.Sprintf("%q", []string(txt))), txtFix(n.domain, strings.Join(txt, " ")))
	}
}

// startsTerm reports whether s begins like a term of its own.
func startsTerm(s string) bool {
	s = lowerASCII(strings.TrimLeft(s, "+-~?"))
	for _, start := range []string{"include:", "ip4:", "ip6:", "a:", "mx:", "exists:", "ptr:", "redirect=", "exp=", "all ", "mx ", "a ", "ptr "} {
		if strings.HasPrefix(s, start) {
			return true
		}
	}
	return s == "all" || s == "mx" || s == "a"
}

// spfNode reports what is wrong with one policy of the tree.
func (s *survey) spfNode(n, root *spfNode) {
	switch {
	case n.err != nil && errors.Is(n.err, errBudget):
		return
	case n.err != nil:
		s.add("spf.temperror", n.domain, fmt.Sprintf("The policy of %s could not be looked up now, so the result is not known.", n.domain), shown(n.err.Error()))
		return
	case len(n.policy) > 1:
		var texts []string
		for _, txt := range n.policy {
			texts = append(texts, txt.String())
		}
		s.add("spf.multiple", n.domain, fmt.Sprintf("%s has %d SPF records. Receivers take that as an error and ignore all of them.", n.domain, len(n.policy)),
			shown(texts...), txtFix(n.domain, mergeSPF(texts)))
		return
	case n.absent:
		if n != root {
			s.add("spf.include_no_record", n.domain, fmt.Sprintf("The policy includes %s, which has no SPF record. Receivers take the whole policy as an error.", n.domain),
				fix("Remove the term that names %s, or correct its name.", n.domain))
		}
		return
	}
	s.spfTerms(n)
}

// spfTerms reports on a policy's terms, each for itself.
func (s *survey) spfTerms(n *spfNode) {
	whole := record(n.answer, "TXT", n.rec.text)
	for _, f := range n.rec.faults {
		name, text := "spf.syntax", "The term %q can't be parsed: %s. Receivers take the whole policy as an error."
		if f.macro {
			name = "spf.macro_invalid"
		}
		s.add(name, n.domain, fmt.Sprintf(text, printable(f.term, 100), printable(f.why, 200)), whole)
	}
	for i := range n.steps {
		s.spfStep(n, &n.steps[i], whole)
	}
	all := slices.IndexFunc(n.rec.terms, func(t spfTerm) bool { return t.name == "all" })
	if all < 0 {
		return
	}
	if dead := n.rec.terms[all+1:]; len(dead) > 0 {
		var texts []string
		for _, t := range dead {
			texts = append(texts, t.text)
		}
		s.add("spf.after_all", n.domain, "Terms after all are never evaluated: "+printable(strings.Join(texts, " "), 200)+".", whole)
	}
	if n.rec.redirect != nil {
		s.add("spf.redirect_ignored", n.domain, "Beside all, redirect has no effect.", whole)
	}
}

// spfStep reports on a term that receivers evaluate.
func (s *survey) spfStep(n *spfNode, st *spfStep, whole detail) {
	if st.term.name == "ptr" {
		s.add("spf.ptr", n.domain, "The policy uses ptr, which is slow and not to be relied on; receivers may ignore it.", whole)
	}
	if st.dynamic {
		s.add("spf.macro_dynamic", n.domain, fmt.Sprintf("%s depends on the message, so it can't be followed here.", printable(st.term.text, 100)), whole)
	}
	if st.many {
		s.add("spf.mx_limit", st.target, fmt.Sprintf("%s leads to more than %d exchangers. Receivers take the whole policy as an error.", printable(st.term.text, 100), maxSPFNames), whole)
	}
	if st.void > 0 {
		s.add("spf.void", cmp.Or(st.target, n.domain), fmt.Sprintf("%s resolves to nothing.", printable(st.term.text, 100)), whole)
	}
	if st.err != nil && !errors.Is(st.err, errBudget) {
		s.add("spf.temperror", st.target, fmt.Sprintf("%s could not be looked up now, so the result is not known.", st.target), shown(st.err.Error()))
	}
}

// spfLimits adds up the tree and reports what exceeds the limits of RFC 7208
// 4.6.4, and which term is to blame.
func (s *survey) spfLimits(t *spfTree, root *spfNode) {
	memo, loops := map[string]spfCost{}, map[string][]string{}
	total := t.cost(root.domain, nil, memo, loops)
	for domain, chain := range loops {
		s.add("spf.include_loop", domain, "The policy leads back to itself: "+strings.Join(chain, " → ")+". Receivers take it as an error.")
	}
	s.fact("spf.lookups", total.lookups)
	s.fact("spf.void", total.void)
	var costs []string
	blame, most := root.domain, 0
	for i := range root.steps {
		st := &root.steps[i]
		c := t.stepCost(st, []string{root.domain}, memo, map[string][]string{})
		if c.lookups > 0 {
			costs = append(costs, fmt.Sprintf("%s: %d", st.term.text, c.lookups))
		}
		if c.lookups > most && st.target != "" {
			blame, most = st.target, c.lookups
		}
	}
	switch {
	case total.lookups > maxSPFLookups:
		s.add("spf.too_many_lookups", blame, fmt.Sprintf("The policy needs %d lookups, %d are allowed. The largest share, %d, comes from %s.", total.lookups, maxSPFLookups, most, blame),
			shown(costs...), fix("Remove services that are no longer used, or replace the include of %s by the networks it stands for.", blame))
	case total.lookups == maxSPFLookups:
		s.add("spf.at_lookup_limit", s.domain, "The policy needs exactly 10 lookups: the next service added breaks it.", shown(costs...))
	}
	switch {
	case total.void > maxSPFVoid:
		s.add("spf.too_many_void", s.domain, fmt.Sprintf("%d lookups of the policy find nothing, %d are allowed. Receivers take it as an error.", total.void, maxSPFVoid))
	case total.void == maxSPFVoid:
		s.add("spf.void_at_limit", s.domain, "2 lookups of the policy find nothing: one more breaks it.")
	}
}

// follow walks the policies that can let a sender pass: the domain's own, the one
// it redirects to, and those it includes; and reports how their all ends them.
func (t *spfTree) follow(s *survey, domain string, own bool, seen map[string]bool) {
	n := t.nodes[domain]
	if n == nil || n.rec == nil || seen[domain] {
		return
	}
	seen[domain] = true
	ended := false
	for i := range n.steps {
		st := &n.steps[i]
		switch {
		case st.term.name == "all":
			ended = true
			s.spfAll(n, st.term, own)
		case st.term.name == "redirect":
			ended = true
			t.follow(s, st.target, own, seen)
		case st.term.name == "include" && st.term.qualifier == '+':
			t.follow(s, st.target, false, seen)
		}
	}
	if own && !ended {
		s.add("spf.no_all", n.domain, "The policy has neither all nor redirect, so it says nothing about other senders.",
			record(n.answer, "TXT", n.rec.text), txtFix(n.domain, strings.TrimSpace(n.rec.text)+" ~all"))
	}
}

func (s *survey) spfAll(n *spfNode, all *spfTerm, own bool) {
	better := strings.Replace(n.rec.text, all.text, "-all", 1)
	whole := record(n.answer, "TXT", n.rec.text)
	switch {
	case all.qualifier == '+':
		s.add("spf.plus_all", n.domain, "+all lets everybody send in the name of this domain.", whole, txtFix(n.domain, better))
	case all.qualifier == '?' && own:
		s.add("spf.neutral_all", n.domain, "?all says nothing about other senders.", whole, txtFix(n.domain, better))
	}
}

// spfBroad reports policies that let a large part of the Internet pass.
func (s *survey) spfBroad(t *spfTree) {
	var ranges [][2]uint32
	for _, domain := range slices.Sorted(maps.Keys(t.nodes)) {
		for _, st := range t.nodes[domain].steps {
			if st.term.qualifier != '+' {
				continue
			}
			network := st.term.network
			switch {
			case st.term.name == "ip4":
				first := binary.BigEndian.Uint32(network.Addr().AsSlice())
				ranges = append(ranges, [2]uint32{first, first | uint32(uint64(1)<<(32-network.Bits())-1)})
			case st.term.name == "ip6" && network.Bits() < 12,
				(st.term.name == "a" || st.term.name == "mx") && (st.term.bits4 < 4 || st.term.bits6 < 12):
				s.add("spf.too_broad", domain, fmt.Sprintf("%s lets a large part of the Internet send in the name of this domain.", st.term.text))
			}
		}
	}
	if n := covered(ranges); n >= broad {
		s.add("spf.too_broad", s.domain, fmt.Sprintf("The policy lets %d %% of all IPv4 addresses send in the name of this domain.", n*100>>32))
	}
}

// covered is how many addresses are in at least one of the ranges.
func covered(ranges [][2]uint32) uint64 {
	slices.SortFunc(ranges, func(a, b [2]uint32) int { return cmp.Compare(a[0], b[0]) })
	var total, next uint64
	for _, r := range ranges {
		first, last := max(uint64(r[0]), next), uint64(r[1])
		if last >= first {
			total += last - first + 1
			next = last + 1
		}
	}
	return total
}

// mergeSPF makes one policy of several: all their terms, each once, and the
// strictest all.
func mergeSPF(texts []string) string {
	merged := []string{"v=spf1"}
	all := ""
	for _, text := range texts {
		for _, term := range strings.Fields(text)[1:] {
			name := lowerASCII(strings.TrimLeft(term, "+-~?"))
			switch {
			case name == "all":
				if all == "" || strings.Index("+?~-", term[:1]) > strings.Index("+?~-", all[:1]) {
					all = term
				}
			case !slices.Contains(merged, term):
				merged = append(merged, term)
			}
		}
	}
	return strings.Join(append(merged, cmp.Or(all, "~all")), " ")
}
