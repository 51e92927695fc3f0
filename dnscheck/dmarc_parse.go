package dnscheck

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// dmarcRecord is a parsed DMARC record (RFC 9989 4.7). What the RFC tells a
// receiver to ignore is ignored, and noted.
type dmarcRecord struct {
	text        string
	p, sp, np   string // lower case; empty: absent
	adkim, aspf string // "r" or "s"
	psd         string // "y", "n" or "u"
	test        bool   // t=y: receivers apply the next weaker policy
	rua, ruf    []string
	applies     bool // a receiver acts on it
	deprecated  []string
	faults      []dmarcFault
}

// dmarcFault is something in a record that isn't as it should be, with the code
// of its finding.
type dmarcFault struct {
	code, text string
}

func (d *dmarcRecord) fault(code, text string) {
	d.faults = append(d.faults, dmarcFault{code, printable(text, 300)})
}

// isDMARC reports whether a TXT record is a DMARC record: v=DMARC1 comes first
// and the version's case counts (RFC 9989 4.8).
func isDMARC(text string) bool {
	first, _, _ := strings.Cut(text, ";")
	tag, value, ok := strings.Cut(first, "=")
	return ok && strings.EqualFold(trimWSP(tag), "v") && trimWSP(value) == "DMARC1"
}

func trimWSP(s string) string { return strings.Trim(s, " \t") }

var policyRank = map[string]int{"none": 0, "quarantine": 1, "reject": 2}

// parseDMARC parses a record for which isDMARC is true.
func parseDMARC(text string) *dmarcRecord {
	d := &dmarcRecord{text: text, adkim: "r", aspf: "r", psd: "u"}
	seen := map[string]bool{}
	badPolicy, twice := false, false
	for part := range strings.SplitSeq(text, ";") {
		tag, value, ok := strings.Cut(part, "=")
		tag, value = lowerASCII(trimWSP(tag)), trimWSP(value)
		switch {
		case tag == "" && !ok:
			continue
		case !ok || tag == "":
			d.fault("dmarc.syntax", "the part "+strconv.Quote(trimWSP(part))+" is not a tag with a value")
			continue
		case seen[tag]:
			d.fault("dmarc.syntax", "the tag "+tag+" appears twice")
			twice = true
			continue
		}
		seen[tag] = true
		badPolicy = d.set(tag, value) || badPolicy
	}
	d.conclude(seen["p"], badPolicy, twice)
	return d
}

// set takes one tag; true if it is a policy that isn't one.
func (d *dmarcRecord) set(tag, value string) (badPolicy bool) {
	low := lowerASCII(value)
	choose := func(field *string, choices ...string) {
		if slices.Contains(choices, low) {
			*field = low
		} else {
			d.fault("dmarc.syntax", tag+"="+value+" is not one of "+strings.Join(choices, ", ")+"; receivers use the default")
		}
	}
	switch tag {
	case "p", "sp", "np":
		if _, ok := policyRank[low]; !ok {
			d.fault("dmarc.invalid_policy", tag+"="+value+" is not none, quarantine or reject")
			return true
		}
		*map[string]*string{"p": &d.p, "sp": &d.sp, "np": &d.np}[tag] = low
	case "adkim":
		choose(&d.adkim, "r", "s")
	case "aspf":
		choose(&d.aspf, "r", "s")
	case "psd":
		choose(&d.psd, "y", "n", "u")
	case "t":
		var t string
		choose(&t, "y", "n")
		d.test = t == "y"
	case "fo":
		for option := range strings.SplitSeq(low, ":") {
			if !slices.Contains([]string{"0", "1", "d", "s"}, trimWSP(option)) {
				d.fault("dmarc.syntax", "fo="+value+" holds an unknown option; receivers ignore it")
			}
		}
	case "rua":
		d.rua = d.addresses(tag, value)
	case "ruf":
		d.ruf = d.addresses(tag, value)
	case "pct", "rf", "ri":
		d.deprecated = append(d.deprecated, tag)
	}
	return false
}

// addresses reads a list of report addresses: the domain-wise usable mailto URIs.
// A size behind "!" is obsolete and ignored.
func (d *dmarcRecord) addresses(tag, value string) []string {
	var mailboxes []string
	for entry := range strings.SplitSeq(value, ",") {
		entry, _, _ = strings.Cut(trimWSP(entry), "!")
		uri, err := url.Parse(entry)
		if err != nil || !strings.EqualFold(uri.Scheme, "mailto") || strings.Count(uri.Opaque, "@") != 1 {
			d.fault("dmarc.rua_invalid", tag+": "+strconv.Quote(entry)+" is not an address with mailto: before it")
			continue
		}
		mailbox, err := url.PathUnescape(uri.Opaque)
		if local, domain, ok := strings.Cut(mailbox, "@"); err != nil || !ok || local == "" || domain == "" {
			d.fault("dmarc.rua_invalid", tag+": "+strconv.Quote(entry)+" is not an address")
			continue
		}
		mailboxes = append(mailboxes, mailbox)
	}
	return mailboxes
}

// conclude decides what receivers do with the record as a whole (RFC 9989 4.10.1):
// one without a usable p counts as p=none if somebody wants its reports, and else
// not at all.
func (d *dmarcRecord) conclude(hasP, badPolicy, twice bool) {
	if !hasP {
		d.fault("dmarc.missing_policy", "the tag p is missing")
	}
	if d.test {
		d.fault("dmarc.test_mode", "t=y asks receivers to apply the next weaker policy only")
	}
	if len(d.deprecated) > 0 {
		d.fault("dmarc.deprecated_tag", "removed from the standard and ignored: "+strings.Join(d.deprecated, ", "))
	}
	if d.p != "" {
		for _, sub := range []string{d.sp, d.np} {
			if sub != "" && policyRank[sub] < policyRank[d.p] {
				d.fault("dmarc.sp_weaker", "subdomains have the weaker policy "+sub)
				break
			}
		}
	}
	switch {
	case twice, badPolicy && d.p != "":
		// A record that contradicts itself, or whose sp or np is none of the
		// policies, isn't trusted.
	case d.p != "":
		d.applies = true
	case len(d.rua) > 0:
		d.p, d.applies = "none", true
	}
}

// policy is what receivers do with mail of the domain itself, or of a name below
// it that exists or doesn't; empty if the record doesn't apply.
func (d *dmarcRecord) policy(below, exists bool) string {
	if !d.applies {
		return ""
	}
	p := d.p
	switch {
	case below && !exists && d.np != "":
		p = d.np
	case below && d.sp != "":
		p = d.sp
	}
	if d.test {
		switch p {
		case "reject":
			p = "quarantine"
		case "quarantine":
			p = "none"
		}
	}
	return p
}

// The grammar of RFC 7489 6.4, which was stricter about order and values.
var (
	dmarc7489Head = regexp.MustCompile(`^(?i:v)[ \t]*=[ \t]*DMARC1[ \t]*(;|$)`)
	dmarc7489Tags = map[string]*regexp.Regexp{
		"adkim": regexp.MustCompile(`^(?i:[rs])$`),
		"aspf":  regexp.MustCompile(`^(?i:[rs])$`),
		"fo":    regexp.MustCompile(`^(?i:[01ds])([ \t]*:[ \t]*(?i:[01ds]))*$`),
		"rf":    regexp.MustCompile(`^(?i:afrf)([ \t]*:[ \t]*(?i:afrf))*$`),
		"ri":    regexp.MustCompile(`^[0-9]{1,10}$`),
		"pct":   regexp.MustCompile(`^([0-9]{1,2}|100)$`),
		"rua":   regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*:[^ ,;]+([ \t]*,[ \t]*[a-zA-Z][a-zA-Z0-9+.-]*:[^ ,;]+)*$`),
	}
)

// valid7489 reports whether receivers that still follow RFC 7489 apply the
// record.
func valid7489(text string) bool {
	if !dmarc7489Head.MatchString(text) {
		return false
	}
	var tags []string
	values := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimRight(text, "; \t"), ";") {
		tag, value, ok := strings.Cut(part, "=")
		tag, value = lowerASCII(trimWSP(tag)), trimWSP(value)
		if rule := dmarc7489Tags[strings.Replace(tag, "ruf", "rua", 1)]; !ok || tag == "" || rule != nil && !rule.MatchString(value) {
			return false
		}
		tags = append(tags, tag)
		if _, ok := values[tag]; !ok {
			values[tag] = lowerASCII(value)
		}
	}
	if len(tags) < 2 || tags[1] != "p" {
		return false
	}
	// RFC 7489 6.6.3: a wrong policy counts as none if there is where to report it.
	for _, tag := range []string{"p", "sp"} {
		value, ok := values[tag]
		if _, valid := policyRank[value]; ok && !valid && values["rua"] == "" {
			return false
		}
	}
	return true
}
