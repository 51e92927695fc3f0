package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// policyRecords looks up the text records of one policy: those that begin with
// its version. Others at the name are a sign of a wildcard.
func (s *survey) policyRecords(ctx context.Context, name, version string) (found Records[TXT], texts []string) {
	found, err := s.TXT(ctx, name)
	if err != nil {
		return found, nil
	}
	if texts = versioned(found.List, version); len(texts) == 0 {
		s.wildcard(ctx)
	}
	return found, texts
}

// versioned returns those text records that begin with a version.
func versioned(list []TXT, version string) (texts []string) {
	for _, txt := range list {
		text := txt.String()
		first, _, _ := strings.Cut(text, ";")
		tag, value, _ := strings.Cut(first, "=")
		if strings.EqualFold(trimWSP(tag), "v") && trimWSP(value) == version {
			texts = append(texts, text)
		}
	}
	return texts
}

// wildcard tells whether any name below the domain has text records, after one
// had records that didn't belong there.
func (s *survey) wildcard(ctx context.Context) {
	found, err := s.TXT(ctx, "_no-such-policy."+s.domain)
	if err == nil {
		s.add("dns.wildcard_txt", s.domain, "A wildcard gives every name below the domain a text record, also those that policies are looked up at.",
			record(found.Answer, "TXT", found.List[0].String()))
	}
}

// tags reads a list of tag=value pairs; false if a part is none or a tag appears
// twice.
func tags(text string) (map[string]string, bool) {
	values := map[string]string{}
	valid := true
	for part := range strings.SplitSeq(strings.TrimRight(text, "; \t"), ";") {
		tag, value, ok := strings.Cut(part, "=")
		tag = lowerASCII(trimWSP(tag))
		if _, twice := values[tag]; !ok || tag == "" || twice {
			valid = false
			continue
		}
		values[tag] = trimWSP(value)
	}
	return values, valid
}

// stsState is what is known of a domain's MTA-STS.
type stsState struct {
	announced bool
	policy    *STSPolicy // nil: none that can be used
}

var stsID = regexp.MustCompile(`^[a-zA-Z0-9]{1,32}$`)

// sts reports on MTA-STS (RFC 8461).
func (s *survey) sts(ctx context.Context) stsState {
	name := "_mta-sts." + s.domain
	found, texts := s.policyRecords(ctx, name, "STSv1")
	if len(texts) == 0 {
		return stsState{}
	}
	state := stsState{announced: true}
	if len(texts) > 1 {
		s.add("mtasts.multiple", name, fmt.Sprintf("There are %d MTA-STS records, so senders act as if there were none.", len(texts)), shown(texts...), fix("Delete all but one of them."))
		return state
	}
	whole := record(found.Answer, "TXT", texts[0])
	values, ok := tags(texts[0])
	if !ok || !stsID.MatchString(values["id"]) {
		s.add("mtasts.syntax", name, "The MTA-STS record can't be parsed: it needs an id of 1 to 32 letters and digits.", whole, txtFix(name, "v=STSv1; id="+s.resolver.options.Now().UTC().Format("20060102150405")))
		return state
	}
	policy, err := fetchSTS(ctx, s, s.domain, s.options.Web)
	if failed, ok := errors.AsType[*STSError](err); ok {
		s.stsFailure(failed, whole)
		return state
	}
	state.policy = &policy
	s.fact("mtasts.mode", policy.Mode)
	if policy.Mode == "testing" {
		s.add("mtasts.mode_testing", s.domain, "MTA-STS is in testing: senders report what is wrong and deliver all the same.", whole)
	}
	return state
}

func (s *survey) stsFailure(failed *STSError, whole detail) {
	host := "mta-sts." + s.domain
	name, text := "mtasts.policy_unreachable", "The policy that MTA-STS announces can't be fetched from %s: %s."
	switch failed.Step {
	case "certificate":
		name, text = "mtasts.cert_invalid", "The certificate of %s is not valid, so senders don't trust the policy there: %s."
	case "redirect":
		name, text = "mtasts.redirect", "%s answers with a redirect, which senders must not follow: %s."
	case "syntax", "size", "type":
		name, text = "mtasts.policy_syntax", "The policy of %s is not valid: %s."
	}
	state := codes[name].state
	if temporary(failed.Err) {
		state = StateUnknown
	}
	s.add(name, host, fmt.Sprintf(text, host, failed.Detail), whole, as(state))
}

// stsCovers reports exchangers that the policy leaves out: senders that honour it
// do not deliver to them.
func (s *survey) stsCovers(state stsState, m *reception) {
	if state.policy == nil || state.policy.Mode == "none" || m.null {
		return
	}
	for _, h := range m.hosts {
		if state.policy.Covers(h.Name) {
			continue
		}
		gravity := StateFail
		if state.policy.Mode == "testing" {
			gravity = StateWarn
		}
		s.add("mtasts.mx_mismatch", h.Name, fmt.Sprintf("The MTA-STS policy does not name the exchanger %s, so senders that honour it don't deliver there.", h.Name),
			as(gravity), shown("policy: mx: "+strings.Join(state.policy.MX, ", mx: ")), fix("Add the line \"mx: %s\" to the policy, and change the id of the record.", h.Name))
	}
}

// tlsrpt reports on TLS reporting (RFC 8460), and returns whether it is set up.
func (s *survey) tlsrpt(ctx context.Context) bool {
	name := "_smtp._tls." + s.domain
	found, texts := s.policyRecords(ctx, name, "TLSRPTv1")
	if len(texts) == 0 {
		return false
	}
	values, ok := tags(texts[0])
	usable := values["rua"] != ""
	for uri := range strings.SplitSeq(values["rua"], ",") {
		parsed, err := url.Parse(trimWSP(uri))
		usable = usable && err == nil && (parsed.Scheme == "mailto" && strings.Contains(parsed.Opaque, "@") || parsed.Scheme == "https" && parsed.Host != "")
	}
	if !ok || !usable || len(texts) > 1 {
		s.add("tlsrpt.syntax", name, "The TLS reporting record can't be used: there has to be one, with rua=mailto:… or rua=https://….",
			record(found.Answer, "TXT", texts[0]), txtFix(name, "v=TLSRPTv1; rua=mailto:tls-reports@"+s.domain))
	}
	return true
}

// bimi reports on the logo record, which has effect only with an enforced DMARC
// policy.
func (s *survey) bimi(ctx context.Context) (published bool) {
	name := "default._bimi." + s.domain
	found, texts := s.policyRecords(ctx, name, "BIMI1")
	if len(texts) == 0 {
		return false
	}
	whole := record(found.Answer, "TXT", texts[0])
	values, ok := tags(texts[0])
	_, hasLogo := values["l"]
	if !ok || !hasLogo || len(texts) > 1 {
		s.add("bimi.syntax", name, "The BIMI record can't be parsed: there has to be one, with l=https://….", whole)
	}
	for _, tag := range []string{"l", "a"} {
		if value := values[tag]; value != "" && !strings.HasPrefix(lowerASCII(value), "https://") && !(tag == "a" && value == "self") {
			s.add("bimi.not_https", name, fmt.Sprintf("%s=%s has to be an https address.", tag, printable(value, 100)), whole)
		}
	}
	return true
}

// bimiEnforced reports a logo that nobody shows because forged mail isn't
// refused.
func (s *survey) bimiEnforced(p *dmarcPolicy) {
	if p.err == nil && p.policy != "quarantine" && p.policy != "reject" {
		s.add("bimi.no_enforcement", "default._bimi."+s.domain, "Mailbox providers show the logo only if the DMARC policy is quarantine or reject.")
	}
}
