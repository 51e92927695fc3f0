package dnscheck

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// errMacro marks a fault in a macro.
var errMacro = errors.New("invalid macro")

// spfMacro is a macro-string (RFC 7208 7.1), cut into its parts.
type spfMacro []spfPart

// spfPart is literal text, an escape (%% %_ %-) whose meaning is in literal, or a
// macro.
type spfPart struct {
	literal string
	escape  bool
	letter  byte // lower case; 0 for text
	upper   bool // written in upper case: URL-escape the value
	digits  int  // rightmost parts to keep; 0 is all
	reverse bool
	delims  string
}

// parseMacro parses a macro-string whose macros may be any of letters. Text may
// hold what the caller lets through.
func parseMacro(s, letters string) (spfMacro, error) {
	var parts spfMacro
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i != 0 {
			if i < 0 {
				i = len(s)
			}
			for _, c := range []byte(s[:i]) {
				if c < ' ' || c > '~' {
					return nil, fmt.Errorf("the byte 0x%02x is not allowed", c)
				}
			}
			parts = append(parts, spfPart{literal: s[:i]})
			s = s[i:]
			continue
		}
		part, rest, err := parsePart(s, letters)
		if err != nil {
			return nil, err
		}
		parts, s = append(parts, part), rest
	}
	return parts, nil
}

// parsePart parses what begins with a percent sign.
func parsePart(s, letters string) (part spfPart, rest string, err error) {
	bad := func(text string) (spfPart, string, error) {
		return spfPart{}, "", fmt.Errorf("%w %q", errMacro, text)
	}
	if len(s) < 2 {
		return bad(s)
	}
	switch s[1] {
	case '%':
		return spfPart{literal: "%", escape: true}, s[2:], nil
	case '_':
		return spfPart{literal: " ", escape: true}, s[2:], nil
	case '-':
		return spfPart{literal: "%20", escape: true}, s[2:], nil
	case '{':
	default:
		return bad(s[:2])
	}
	end := strings.IndexByte(s, '}')
	if end < 3 {
		return bad(s[:min(len(s), 10)])
	}
	text, body, rest := s[:end+1], s[3:end], s[end+1:]
	letter := s[2] | 0x20
	if !isAlpha(s[2]) || strings.IndexByte(letters, letter) < 0 {
		return bad(text)
	}
	part = spfPart{letter: letter, upper: s[2] != letter}
	digits := len(body) - len(strings.TrimLeft(body, "0123456789"))
	if digits > 0 {
		// A number beyond the 127 labels that a name can have keeps them all.
		for _, c := range []byte(body[:digits]) {
			part.digits = min(part.digits*10+int(c-'0'), maxName)
		}
		if part.digits == 0 {
			return bad(text)
		}
		body = body[digits:]
	}
	if body != "" && body[0]|0x20 == 'r' {
		part.reverse, body = true, body[1:]
	}
	if strings.Trim(body, ".-+,/_=") != "" {
		return bad(text)
	}
	part.delims = body
	return part, rest, nil
}

// dynamic reports whether the string's value depends on the message: anything
// but the current domain does.
func (m spfMacro) dynamic() bool {
	return slices.ContainsFunc(m, func(p spfPart) bool { return p.letter != 0 && p.letter != 'd' })
}

// spfValues are what macros stand for.
type spfValues struct {
	sender, helo string
	domain       string // the current one
	ip           netip.Addr
	receiver     string
	now          time.Time
	validated    func() string // the value of p, which costs lookups
}

// expand writes the string with its macros replaced.
func (m spfMacro) expand(v *spfValues) string {
	var b strings.Builder
	for _, p := range m {
		if p.letter == 0 {
			b.WriteString(p.literal)
			continue
		}
		value := p.transform(v.value(p.letter))
		if p.upper {
			value = escapeURL(value)
		}
		b.WriteString(value)
	}
	return b.String()
}

// expandDomain expands to a name to look up: without the final dot, and cut from
// the left to 253 bytes (RFC 7208 7.3).
func (m spfMacro) expandDomain(v *spfValues) string {
	name := strings.TrimSuffix(m.expand(v), ".")
	for len(name) > maxName {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return ""
		}
		name = rest
	}
	return name
}

func (v *spfValues) value(letter byte) string {
	local, domain := "", ""
	if i := strings.LastIndexByte(v.sender, '@'); i >= 0 {
		local, domain = v.sender[:i], v.sender[i+1:]
	}
	switch letter {
	case 's':
		return v.sender
	case 'l':
		return local
	case 'o':
		return domain
	case 'd':
		return v.domain
	case 'h':
		return v.helo
	case 'i':
		return dotted(v.ip)
	case 'c':
		return v.ip.String()
	case 'v':
		if v.ip.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'r':
		return v.receiver
	case 't':
		return fmt.Sprint(v.now.Unix())
	case 'p':
		return v.validated()
	}
	return ""
}

// dotted writes an IPv6 address as 32 nibbles with dots.
func dotted(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	var b strings.Builder
	for i, c := range ip.As16() {
		if i > 0 {
			b.WriteByte('.')
		}
		fmt.Fprintf(&b, "%X.%X", c>>4, c&15)
	}
	return b.String()
}

// transform splits at the delimiters, reverses, keeps the rightmost parts, and
// joins with dots.
func (p spfPart) transform(value string) string {
	delims := p.delims
	if delims == "" {
		delims = "."
	}
	if p.delims == "" && !p.reverse && p.digits == 0 {
		return value
	}
	var parts []string
	for {
		i := strings.IndexAny(value, delims)
		if i < 0 {
			parts = append(parts, value)
			break
		}
		parts = append(parts, value[:i])
		value = value[i+1:]
	}
	if p.reverse {
		slices.Reverse(parts)
	}
	if p.digits > 0 && p.digits < len(parts) {
		parts = parts[len(parts)-p.digits:]
	}
	return strings.Join(parts, ".")
}

// escapeURL escapes all but the unreserved characters of RFC 3986.
func escapeURL(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
