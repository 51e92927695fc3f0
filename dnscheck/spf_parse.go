package dnscheck

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// spfRecord is a parsed SPF record (RFC 7208 4.6.1). What can't be parsed is in
// faults and left out of the rest, so that a report can still say what the rest
// would do.
type spfRecord struct {
	text     string
	terms    []spfTerm // directives, in order
	redirect *spfTerm
	exp      *spfTerm
	faults   []spfFault
}

// spfTerm is one directive or modifier.
type spfTerm struct {
	text      string
	qualifier byte         // + - ~ ?; 0 for a modifier
	name      string       // all include a mx ptr ip4 ip6 exists redirect exp, lower case
	spec      spfMacro     // the domain-spec, nil if there is none
	network   netip.Prefix // of ip4 and ip6
	bits4     int          // of a and mx
	bits6     int
}

// spfFault is a part of a record that doesn't follow the grammar.
type spfFault struct {
	term  string
	why   string
	macro bool // the fault is in a macro
}

// isSPF reports whether a TXT record is an SPF record (RFC 7208 4.5).
func isSPF(text string) bool {
	const version = "v=spf1"
	return len(text) >= len(version) && strings.EqualFold(text[:len(version)], version) &&
		(len(text) == len(version) || text[len(version)] == ' ')
}

// parseSPF parses a record for which isSPF is true.
func parseSPF(text string) *spfRecord {
	rec := &spfRecord{text: text}
	for term := range strings.SplitSeq(text[len("v=spf1"):], " ") {
		if term == "" {
			continue
		}
		if err := rec.add(term); err != nil {
			rec.faults = append(rec.faults, spfFault{term, err.Error(), errors.Is(err, errMacro)})
		}
	}
	return rec
}

// add parses one term into the record.
func (rec *spfRecord) add(text string) error {
	end := strings.IndexAny(text, ":/=")
	if end >= 0 && text[end] == '=' {
		return rec.addModifier(text, text[:end], text[end+1:])
	}
	term := spfTerm{text: text, qualifier: '+', bits4: 32, bits6: 128}
	rest := text
	if strings.IndexByte("+-~?", rest[0]) >= 0 {
		term.qualifier, rest = rest[0], rest[1:]
	}
	name, argument := rest, ""
	if i := strings.IndexAny(rest, ":/"); i >= 0 {
		name, argument = rest[:i], rest[i:]
	}
	term.name = lowerASCII(name)
	if err := term.parseArgument(argument); err != nil {
		return err
	}
	rec.terms = append(rec.terms, term)
	return nil
}

// addModifier parses redirect, exp, or one that is unknown and only has to be
// well-formed (RFC 7208 6).
func (rec *spfRecord) addModifier(text, name, value string) error {
	if !validModifierName(name) {
		return errors.New("not a modifier's name")
	}
	name = lowerASCII(name)
	var place **spfTerm
	switch name {
	case "redirect":
		place = &rec.redirect
	case "exp":
		place = &rec.exp
	default:
		_, err := parseMacro(value, "slodiphv")
		return err
	}
	spec, err := parseDomainSpec(value)
	if err != nil {
		return err
	}
	if *place != nil {
		return fmt.Errorf("%s appears twice", name)
	}
	*place = &spfTerm{text: text, name: name, spec: spec}
	return nil
}

// validModifierName checks name = ALPHA *( ALPHA / DIGIT / "-" / "_" / "." ).
func validModifierName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !isAlpha(c) && (i == 0 || !isDigit(c) && strings.IndexByte("-_.", c) < 0) {
			return false
		}
	}
	return name != ""
}

// parseArgument parses what follows a mechanism's name: ":" and a domain-spec or
// a network, then "/" and prefix lengths.
func (t *spfTerm) parseArgument(s string) error {
	value, colon := strings.CutPrefix(s, ":")
	var err error
	switch t.name {
	case "all":
		if s != "" {
			return errors.New("all takes no argument")
		}
		return nil
	case "include", "exists":
		if !colon {
			return errors.New("a domain is missing")
		}
		t.spec, err = parseDomainSpec(value)
		return err
	case "ptr":
		if s == "" {
			return nil
		}
		if !colon {
			return errors.New("ptr takes no prefix length")
		}
		t.spec, err = parseDomainSpec(value)
		return err
	case "a", "mx":
		if s, err = t.cutPrefixLengths(s); err != nil || s == "" {
			return err
		}
		t.spec, err = parseDomainSpec(strings.TrimPrefix(s, ":"))
		return err
	case "ip4", "ip6":
		if !colon {
			return errors.New("an address is missing")
		}
		t.network, err = parseNetwork(value, t.name == "ip4")
		return err
	}
	return errors.New("no such mechanism")
}

// cutPrefixLengths takes the dual-cidr-length off the end of an argument.
func (t *spfTerm) cutPrefixLengths(s string) (string, error) {
	var err error
	if i := strings.LastIndex(s, "//"); i >= 0 && allDigits(s[i+2:]) {
		if t.bits6, err = prefixLength(s[i+2:], 128); err != nil {
			return "", err
		}
		s = s[:i]
	}
	if i := strings.LastIndexByte(s, '/'); i >= 0 && allDigits(s[i+1:]) {
		if t.bits4, err = prefixLength(s[i+1:], 32); err != nil {
			return "", err
		}
		s = s[:i]
	}
	return s, nil
}

func allDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// prefixLength parses "0" or a number without leading zeros.
func prefixLength(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n > most || len(s) > 1 && s[0] == '0' {
		return 0, fmt.Errorf("prefix length %q, want 0 to %d", s, most)
	}
	return n, nil
}

// parseNetwork parses the argument of ip4 or ip6.
func parseNetwork(s string, v4 bool) (netip.Prefix, error) {
	text, length, hasLength := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4() != v4 {
		return netip.Prefix{}, fmt.Errorf("%q is not an address of that family", text)
	}
	bits := addr.BitLen()
	if hasLength {
		if bits, err = prefixLength(length, bits); err != nil {
			return netip.Prefix{}, err
		}
	}
	return netip.PrefixFrom(addr, bits).Masked(), nil
}

func isAlpha(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// parseDomainSpec parses a domain-spec: a macro-string that ends in a macro or in
// a top label (RFC 7208 7.1).
func parseDomainSpec(s string) (spfMacro, error) {
	parts, err := parseMacro(s, "slodiphv")
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, errors.New("the domain is empty")
	}
	last := parts[len(parts)-1]
	if last.letter != 0 || last.escape {
		return parts, nil
	}
	literal := strings.TrimSuffix(last.literal, ".")
	dot := strings.LastIndexByte(literal, '.')
	if dot < 0 || !validTopLabel(literal[dot+1:]) {
		return nil, fmt.Errorf("%q is not a domain", s)
	}
	return parts, nil
}

// validTopLabel checks toplabel: letters, digits and inner hyphens, not digits
// alone.
func validTopLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' || allDigits(s) {
		return false
	}
	for i := range len(s) {
		if !isAlpha(s[i]) && !isDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}
