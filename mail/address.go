package mail

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// The caps on an address. RFC 5321 4.5.3.1.1 and .2 for local part and domain; 254 is
// what a path of 256 octets leaves between its angle brackets (4.5.3.1.3, RFC 3696
// erratum 1690); RFC 1035 2.3.4 for a label.
const (
	maxLocal   = 64
	maxDomain  = 253
	maxLabel   = 63
	maxAddress = 254
	// maxTyped bounds what is looked at all: a domain in U-labels may be longer than
	// its A-labels, but not by more than this.
	maxTyped = 1024
)

// ParseAddress reads one addr-spec and nothing else: a dot-atom local part (RFC 5322
// 3.2.3) and a public domain name. The domain may be written in U-labels and comes
// back in lower-case A-labels (UTS #46, non-transitional); the local part comes back
// as written.
//
// Refused are quoted local parts, display names, comments, groups, spaces, control and
// bidirectional characters, address literals, IP addresses as domain, single labels, a
// trailing dot, underscores, and labels that begin or end with a hyphen. So are local
// parts that are not ASCII: they need SMTPUTF8 (RFC 6531) on every server of the way,
// which nobody can know when the mail is taken, and a mail that people wait for should
// be refused while there is still somebody to tell.
//
// An error is a sentence for the person who typed the address. It never repeats it.
func ParseAddress(s string) (Address, error) {
	if len(s) > maxTyped {
		return "", errAddressLong
	}
	if err := checkCharacters(s); err != nil {
		return "", err
	}
	at := strings.LastIndexByte(s, '@')
	switch {
	case s == "":
		return "", errors.New("the address is empty")
	case at < 0:
		return "", errors.New("the address has no @")
	case s[0] == '"':
		return "", errors.New("the part before the @ is in quotes; only plain addresses are taken")
	case strings.ContainsAny(s, "<>(),;:\""):
		return "", errors.New("the address holds a name, a comment or punctuation; give the plain address alone")
	case strings.ContainsFunc(s, unicode.IsSpace):
		return "", errors.New("the address holds a space")
	case strings.IndexByte(s, '@') != at:
		return "", errors.New("the address has more than one @")
	}
	local := s[:at]
	if err := checkLocal(local); err != nil {
		return "", err
	}
	domain, err := parseDomain(s[at+1:])
	if err != nil {
		return "", err
	}
	if len(local)+1+len(domain) > maxAddress {
		return "", errAddressLong
	}
	return Address(local + "@" + domain), nil
}

var (
	errAddressLong = errors.New("the address is too long: at most 254 characters, 64 before the @")
	errDomainLong  = errors.New("the domain is too long: at most 253 characters, 63 between two dots")
	errDomainForm  = errors.New("the part after the @ is not a domain name: letters, digits, hyphens and dots, no hyphen beside a dot")
)

// checkCharacters refuses what has no place anywhere in an address, with the reason
// that helps most: the characters concerned are mostly invisible.
func checkCharacters(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("the address is not valid UTF-8")
	}
	for _, r := range s {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return errors.New("the address holds a control character or a line break")
		case unicode.Is(unicode.Bidi_Control, r):
			return errors.New("the address holds an invisible character that changes the direction of the text")
		}
	}
	return nil
}

// checkLocal wants a dot-atom. Old relay syntax (a%b, a!b) is one too: an opaque name
// that only its server understands.
func checkLocal(local string) error {
	switch {
	case local == "":
		return errors.New("the part before the @ is missing")
	case len(local) > maxLocal:
		return errAddressLong
	case local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, ".."):
		return errors.New("the part before the @ has a dot at an end, or two in a row")
	}
	for i := range len(local) {
		switch c := local[i]; {
		case c >= utf8.RuneSelf:
			return errors.New("the part before the @ holds letters that not every mail server takes; use an address with a to z only")
		case !isAtext(c) && c != '.':
			return errors.New("the part before the @ holds a character that is not allowed there")
		}
	}
	return nil
}

// isAtext is RFC 5322 3.2.3.
func isAtext(c byte) bool {
	return isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// lookup is UTS #46 for looking a name up, with every check on.
var lookup = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.StrictDomainName(true),
	idna.BidiRule(),
	idna.CheckHyphens(true),
	idna.CheckJoiners(true),
)

// parseDomain returns a public domain name in lower-case A-labels. A name in plain
// ASCII without "xn--" is no matter for IDNA: then "ab--cd.example" is a valid name,
// which UTS #46 would refuse for its hyphens.
func parseDomain(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return "", errors.New("the part after the @ is an IP address; a domain name is needed")
	}
	d := asciiLower(s)
	if !isASCII(d) || strings.HasPrefix(d, "xn--") || strings.Contains(d, ".xn--") {
		a, err := lookup.ToASCII(s)
		if err != nil {
			return "", errors.New("the domain is not a valid internationalized name")
		}
		d = a
	}
	return d, checkDomain(d)
}

// checkDomain holds a name in lower-case ASCII against RFC 5321's Domain and against
// what is reachable in public.
func checkDomain(d string) error {
	if len(d) > maxDomain {
		return errDomainLong
	}
	if strings.HasSuffix(d, ".") {
		return errors.New("the domain ends with a dot")
	}
	labels, last := 0, ""
	for label := range strings.SplitSeq(d, ".") {
		if len(label) > maxLabel {
			return errDomainLong
		}
		if !isLabel(label) {
			return errDomainForm
		}
		labels, last = labels+1, label
	}
	switch {
	case last == "localhost":
		return errors.New("the domain is this machine's own; a public domain name is needed")
	case labels < 2:
		return errors.New("the domain is a single word; a public domain name has a dot")
	case !isTopLevel(last):
		return errors.New("the domain is an IP address, or its last part is not one of a public name")
	}
	return nil
}

func isLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// isTopLevel: a top-level label is alphabetic or an A-label (RFC 1123 2.1, RFC 3696
// 2). This is what keeps out 127.0.0.1 and all its spellings.
func isTopLevel(s string) bool {
	if strings.HasPrefix(s, "xn--") {
		return true
	}
	for i := range len(s) {
		if s[i] < 'a' || s[i] > 'z' {
			return false
		}
	}
	return len(s) >= 2
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// asciiLower lowers A to Z alone and leaves every other byte where it is: Unicode's
// lower case of the Kelvin sign is "k", and what a mapped character may stand for is UTS
// #46's to say.
func asciiLower(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
