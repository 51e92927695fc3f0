package bounces

import (
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Said is a refusal and what is known of where it was said.
type Said struct {
	Reply    mail.Reply
	Stage    mail.Stage // "" if not known
	Host     string     // the server that said it, "" if not known
	Provider string     // the provider's id, where the caller knows it from elsewhere
}

// Verdict is what a refusal means.
type Verdict struct {
	Cause mail.Cause
	// Hard: repeating it is of no use. A 5xx reply whose cause passes by itself (a
	// full mailbox, a rate limit, their network) is not hard.
	Hard bool
	// Retry: a later attempt may succeed.
	Retry bool
	// Suppress: final, and about the address itself. Never set for a 4xx reply, for
	// 5.7.x, nor for a cause that is about us, our mail or a policy (law 10).
	Suppress   bool
	RetryAfter time.Duration // the wait that the text asked for, from 1 s to 24 h; 0 if it did not
	Provider   string        // "" if not known
	Rule       string        // the name of the rule that decided, "" for none

	sure bool // the rule that decided says so of itself
}

// Classify says what a refusal means. It is total and deterministic: every Said has
// a verdict, and the same one each time. Only the first 1 KiB of the text is looked
// at. It is safe for concurrent use.
func Classify(s Said) Verdict {
	v, _ := classify(s, false)
	return v
}

// strength is how much a rule that decided has to go by.
type strength int

const (
	strengthNone  strength = iota // no rule
	strengthLeast                 // a basic code, a word that only says that it failed
	strengthVague                 // a word that says little
	strengthCode                  // an enhanced code
	strengthText                  // a text that is known
)

// classify is Classify, for a text that may have no code: it was said for good if
// final.
func classify(s Said, final bool) (Verdict, strength) {
	t := compiled()
	text := s.Reply.Text
	if len(text) > maxText {
		text = text[:maxText]
	}
	var n normaliser
	var found bits
	t.matcher.scan(n.normalise(text, s.Reply.Code), &found)

	v := Verdict{Cause: mail.CauseUnknown}
	enhanced := effectiveCode(s.Reply, text)
	mask := t.provider(&v, s, &found)
	weak, strong := true, strengthNone
	for n := range t.rules {
		r := &t.rules[n]
		if r.hasText && !found.text(n) || found.unless(n) || !r.holds(s, enhanced, mask) {
			continue
		}
		v.Cause, v.Rule, v.sure, strong = r.cause, r.name, r.sure, r.strength
		weak = r.weak || found.has(targetVeto) && !r.sure
		break
	}
	code := s.Reply.Code
	switch {
	case code == 0 && s.Reply.Enhanced[0] != 0:
		code = s.Reply.Enhanced[0] * 100
	case code == 0 && final:
		code = 500
	}
	v.decide(code, s.Stage, enhanced, weak)
	if v.Retry {
		v.RetryAfter = waitHint(text)
	}
	return v, strong
}

// decide sets what follows from the cause and the codes.
func (v *Verdict) decide(code int, stage mail.Stage, enhanced mail.EnhancedCode, weak bool) {
	switch {
	case code >= 400 && code < 500:
		v.Hard = false
	case code == 552 && stage == mail.StageRcpt && v.Cause != mail.CauseBadMailbox && v.Cause != mail.CauseInactiveMailbox:
		// RFC 5321 4.5.3.1.10: a 552 to RCPT is to be read as 452.
		v.Hard = false
	default:
		v.Hard = !passes(v.Cause)
	}
	v.Retry = !v.Hard
	v.Suppress = v.Hard && code >= 500 && !weak && aboutAddress(v.Cause) && !codeAboutUs(enhanced)
}

// codeAboutUs reports whether an enhanced code is about us, our mail or a policy, so
// that no text beside it may suppress the address: 5.7.x (law 10), the sender's
// address (5.1.7, 5.1.8) and the content (5.6.x).
func codeAboutUs(e mail.EnhancedCode) bool {
	return e[1] == 7 || e[1] == 6 || e[1] == 1 && (e[2] == 7 || e[2] == 8)
}

// passes reports whether a cause goes away without anybody changing the message, so
// that even a 5xx reply is worth another attempt.
func passes(c mail.Cause) bool {
	switch c {
	case mail.CauseMailboxFull, mail.CauseGreylisted, mail.CauseRateLimited, mail.CauseNetwork,
		mail.CauseRemoteError, mail.CauseDNSFailure, mail.CauseTimeout:
		return true
	}
	return false
}

// aboutAddress reports whether a cause is about the address itself: the four on
// which an address may be suppressed.
func aboutAddress(c mail.Cause) bool {
	switch c {
	case mail.CauseBadMailbox, mail.CauseBadDomain, mail.CauseInactiveMailbox, mail.CauseAddressChanged:
		return true
	}
	return false
}

func (r *rule) holds(s Said, enhanced mail.EnhancedCode, providers uint64) bool {
	if r.providers != 0 && r.providers&providers == 0 {
		return false
	}
	if r.stages != nil && !slices.Contains(r.stages, s.Stage) {
		return false
	}
	if r.codes == nil {
		return true
	}
	for _, c := range r.codes {
		if c.holds(s.Reply.Code, enhanced) {
			return true
		}
	}
	return false
}

// text, unless and known report what the matcher found about rule or provider n.
func (b *bits) text(n int) bool   { return b.has(n*targetKinds + targetText) }
func (b *bits) unless(n int) bool { return b.has(n*targetKinds + targetUnless) }
func (b *bits) known(n int) bool  { return b.has(n*targetKinds + targetProvider) }

// provider sets the verdict's provider: by the host that said it, else what the
// caller knows, else by the text. It returns all of them, for the rules: a gateway
// often passes on what the server behind it said.
func (t *table) provider(v *Verdict, s Said, found *bits) (mask uint64) {
	for n := len(t.providers) - 1; n >= 0; n-- {
		if found.known(n) {
			v.Provider = t.providers[n].id
			mask |= 1 << n
		}
	}
	if s.Provider != "" {
		v.Provider = s.Provider
		if n, ok := t.byID[s.Provider]; ok {
			mask |= 1 << n
		}
	}
	if n, ok := t.providerOfHost(s.Host); ok {
		v.Provider = t.providers[n].id
		mask |= 1 << n
	}
	return mask
}

// providerOfHost finds the longest known suffix of a host's name.
func (t *table) providerOfHost(host string) (int, bool) {
	if host == "" || len(host) > 255 {
		return 0, false
	}
	var buf [255]byte
	name := buf[:copy(buf[:], strings.TrimSuffix(host, "."))]
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			name[i] = c | 0x20
		}
	}
	for {
		if n, ok := t.byHost[string(name)]; ok {
			return n, true
		}
		i := slices.Index(name, '.')
		if i < 0 {
			return 0, false
		}
		name = name[i+1:]
	}
}

// effectiveCode is the reply's enhanced code, or the one in its text where it has
// none or one that says nothing (x.0.0): qmail's and Cisco's "(#5.1.1)", or that of
// the server that a relay quotes.
func effectiveCode(r mail.Reply, text string) mail.EnhancedCode {
	if r.Enhanced != (mail.EnhancedCode{}) && (r.Enhanced[1] != 0 || r.Enhanced[2] != 0) {
		return r.Enhanced
	}
	for i := 0; i+4 < len(text); i++ {
		c := text[i]
		if c != '2' && c != '4' && c != '5' || text[i+1] != '.' || i > 0 && !startsCode(text[i-1]) {
			continue
		}
		e, _, ok := cutEnhanced(text[i:])
		if ok && (e[1] != 0 || e[2] != 0) && (r.Code == 0 || e[0] == r.Code/100) && plausible(e) {
			return e
		}
	}
	return r.Enhanced
}

// startsCode reports whether an enhanced code may follow c.
func startsCode(c byte) bool {
	return c == ' ' || c == '#' || c == '(' || c == '[' || c == '-' || c == ':' || c == '=' || c == '<' || c == '"'
}

// plausible reports whether e is like the codes in use (RFC 3463, the IANA registry,
// Microsoft's three-digit details): subjects 1 to 7. It keeps version numbers out.
func plausible(e mail.EnhancedCode) bool { return e[1] >= 1 && e[1] <= 7 }
