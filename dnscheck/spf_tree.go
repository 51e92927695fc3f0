package dnscheck

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// maxSPFDepth is how deep includes are followed: with ten lookups no evaluation
// gets further.
const maxSPFDepth = maxSPFLookups + 1

// maxSPFQuestions is the tree's share of a check's questions. A policy that needs
// more has broken its own limits several times over.
const maxSPFQuestions = 90

// spfTree is a policy with everything that it includes, every branch of it, which
// no single evaluation sees. The fetch fills it, side by side; later it is only
// read.
type spfTree struct {
	dns  *survey
	wait sync.WaitGroup

	mu    sync.Mutex
	nodes map[string]*spfNode // by domain, each fetched once
	asked int                 // questions begun
}

// afford takes n questions from the tree's share. The mutex is held.
func (t *spfTree) afford(n int) bool {
	if t.asked+n > maxSPFQuestions {
		return false
	}
	t.asked += n
	return true
}

// spfNode is one domain's policy.
type spfNode struct {
	domain string
	answer Answer
	texts  []TXT // all TXT records
	policy []TXT // those that are SPF records
	err    error // the lookup's, if it failed for the time being
	absent bool  // proven: no SPF record there
	rec    *spfRecord
	steps  []spfStep // what an evaluation may run through, in order
}

// spfStep is a term that an evaluation may reach, and what it leads to.
type spfStep struct {
	term    *spfTerm
	target  string // of include, redirect and the rest; empty if a macro decides
	dynamic bool
	void    int   // lookups that found nothing
	many    bool  // an mx with more exchangers than may be looked up
	err     error // a lookup failed for the time being
}

// costs reports whether the step counts as a lookup.
func (st *spfStep) costs() bool {
	return st.term.name != "all" && st.term.name != "ip4" && st.term.name != "ip6"
}

// fetchSPF reads the policy of domain and of all it includes.
func fetchSPF(ctx context.Context, s *survey, domain string) *spfTree {
	t := &spfTree{dns: s, nodes: map[string]*spfNode{}}
	t.visit(ctx, domain, 0)
	t.wait.Wait()
	return t
}

func (t *spfTree) visit(ctx context.Context, domain string, depth int) {
	domain = lowerASCII(strings.TrimSuffix(domain, "."))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodes[domain] != nil || depth > maxSPFDepth || !t.afford(1) {
		return
	}
	n := &spfNode{domain: domain}
	t.nodes[domain] = n
	t.wait.Go(func() { t.read(ctx, n, depth) })
}

// read looks up one policy, and what its terms name.
func (t *spfTree) read(ctx context.Context, n *spfNode, depth int) {
	found, err := t.dns.TXT(ctx, n.domain)
	n.answer, n.texts = found.Answer, found.List
	if temporary(err) {
		n.err = err
		return
	}
	for _, txt := range found.List {
		if isSPF(txt.String()) {
			n.policy = append(n.policy, txt)
		}
	}
	n.absent = len(n.policy) == 0
	if len(n.policy) != 1 {
		return
	}
	n.rec = parseSPF(n.policy[0].String())
	n.steps = n.rec.reachable(n.domain)
	for i := range n.steps {
		st := &n.steps[i]
		switch {
		case st.dynamic:
		case st.term.name == "include" || st.term.name == "redirect":
			t.visit(ctx, st.target, depth+1)
		case st.costs() && st.term.name != "ptr":
			t.wait.Go(func() { t.resolve(ctx, st) })
		}
	}
}

// reachable lists the terms up to the first all, and redirect if there is no all.
func (rec *spfRecord) reachable(domain string) []spfStep {
	values := &spfValues{domain: domain}
	var steps []spfStep
	step := func(term *spfTerm) {
		st := spfStep{term: term, target: domain}
		switch {
		case term.spec == nil:
		case term.spec.dynamic():
			// Only a message would give the other macros a value.
			st.dynamic, st.target = true, ""
		default:
			st.target = term.spec.expandDomain(values)
		}
		steps = append(steps, st)
	}
	for i := range rec.terms {
		step(&rec.terms[i])
		if rec.terms[i].name == "all" {
			return steps
		}
	}
	if rec.redirect != nil {
		step(rec.redirect)
	}
	return steps
}

// resolve looks up what a, mx or exists names.
func (t *spfTree) resolve(ctx context.Context, st *spfStep) {
	questions := map[string]int{"exists": 1, "a": 2, "mx": 1 + 2*3}[st.term.name] // three exchangers are usual
	t.mu.Lock()
	enough := t.afford(questions)
	t.mu.Unlock()
	if !enough {
		return
	}
	hosts := []string{st.target}
	if st.term.name == "mx" {
		found, err := t.dns.MX(ctx, st.target)
		if err != nil {
			st.note(err)
			return
		}
		st.many = len(found.List) > maxSPFNames
		hosts = nil
		for _, mx := range found.List[:min(len(found.List), maxSPFNames)] {
			if mx.Host != "." {
				hosts = append(hosts, mx.Host)
			}
		}
	}
	type outcome struct{ err4, err6 error }
	outcomes := make([]outcome, len(hosts))
	var wg sync.WaitGroup
	for i, host := range hosts {
		wg.Go(func() { _, outcomes[i].err4 = t.dns.A(ctx, host) })
		if st.term.name != "exists" { // which is about IPv4 whoever asks
			wg.Go(func() { _, outcomes[i].err6 = t.dns.AAAA(ctx, host) })
		}
	}
	wg.Wait()
	for _, o := range outcomes {
		if st.term.name == "exists" {
			o.err6 = o.err4
		}
		switch {
		case o.err4 == nil || o.err6 == nil:
		case temporary(o.err6):
			st.note(o.err6)
		default:
			st.note(o.err4)
		}
	}
}

// note counts a name at which there is nothing as void, and keeps a failure.
func (st *spfStep) note(err error) {
	if temporary(err) {
		st.err = err
		return
	}
	st.void++
}

// spfCost is what an evaluation of a whole subtree may come to.
type spfCost struct {
	lookups, void int
	dynamic       bool
}

// cost adds up a domain's policy and all below it. A policy that is included
// twice costs twice. loops receives every chain that returns to itself.
func (t *spfTree) cost(domain string, path []string, memo map[string]spfCost, loops map[string][]string) spfCost {
	domain = lowerASCII(strings.TrimSuffix(domain, "."))
	if i := slices.Index(path, domain); i >= 0 {
		loops[domain] = append(slices.Clone(path[i:]), domain)
		return spfCost{}
	}
	if c, ok := memo[domain]; ok {
		return c
	}
	n := t.nodes[domain]
	if n == nil {
		return spfCost{}
	}
	var sum spfCost
	path = append(slices.Clone(path), domain)
	for i := range n.steps {
		c := t.stepCost(&n.steps[i], path, memo, loops)
		// Policies that include each other manifold grow past any number.
		sum.lookups = min(sum.lookups+c.lookups, 10000)
		sum.void = min(sum.void+c.void, 10000)
		sum.dynamic = sum.dynamic || c.dynamic
	}
	memo[domain] = sum
	return sum
}

// stepCost is what one term costs, with all that it includes.
func (t *spfTree) stepCost(st *spfStep, path []string, memo map[string]spfCost, loops map[string][]string) spfCost {
	if !st.costs() {
		return spfCost{}
	}
	c := spfCost{lookups: 1, void: st.void, dynamic: st.dynamic}
	if (st.term.name == "include" || st.term.name == "redirect") && !st.dynamic {
		below := t.cost(st.target, path, memo, loops)
		c.lookups += below.lookups
		c.void += below.void
		c.dynamic = c.dynamic || below.dynamic
	}
	return c
}
