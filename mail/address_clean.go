package mail

import (
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// CleanAddress reads an address as it was typed or pasted. It takes away what is
// plainly not part of it (spaces and invisible characters around it, "mailto:" and its
// query, angle brackets, a comma or semicolon at the end) and says so in a warning
// [WarnAddressTrimmed]; what is left has to pass [ParseAddress]. If the domain looks
// like a slip of a well-known one, a warning [WarnAddressTypo] carries the suggestion,
// which is never applied.
func CleanAddress(s string) (Address, []Warning, error) {
	return cleanAddress(s, nil)
}

// cleanAddress is CleanAddress with further domains to suggest.
func cleanAddress(s string, domains []string) (Address, []Warning, error) {
	// Four times the cap of ParseAddress: junk is short.
	if len(s) > 4*maxTyped {
		return "", nil, errAddressLong
	}
	s, removed := trimAddress(s)
	a, err := ParseAddress(s)
	if err != nil {
		return "", nil, err
	}
	var warnings []Warning
	if len(removed) > 0 {
		warnings = append(warnings, Warning{
			Code:   WarnAddressTrimmed,
			Detail: "Taken away from the address: " + strings.Join(removed, ", ") + ".",
		})
	}
	if domain := suggestDomain(a.Domain(), domains); domain != "" {
		warnings = append(warnings, Warning{
			Code:       WarnAddressTypo,
			Detail:     "The domain looks like a slip of " + domain + ". The mail goes to the address as written; ask the person if the suggestion is meant.",
			Suggestion: a.Local() + "@" + domain,
		})
	}
	return a, warnings, nil
}

// trimAddress takes junk away until there is no more, and says in words what it was.
func trimAddress(s string) (rest string, removed []string) {
	note := func(what, after string) {
		if after == s {
			return
		}
		s = after
		if !slices.Contains(removed, what) {
			removed = append(removed, what)
		}
	}
	note("invisible characters", strings.Map(dropInvisible, s))
	for range 4 { // e.g. ` <mailto:x@y.example>, `: each wrapping may hide another
		before := s
		note("direction marks around it", strings.TrimFunc(s, isDirectionMark))
		note("blank characters around it", strings.TrimFunc(s, isBlank))
		note("a comma or semicolon at the end", strings.TrimRight(s, ",;"))
		if len(s) > 2 && s[0] == '<' && s[len(s)-1] == '>' {
			note("angle brackets", s[1:len(s)-1])
		}
		if len(s) > 7 && strings.EqualFold(s[:7], "mailto:") {
			note(`"mailto:"`, fromMailto(s[7:]))
		}
		if s == before {
			break
		}
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII && !isJoiner(r) }) {
		// Joiners mean something in the domains of some scripts; between ASCII letters
		// they are debris of a word processor.
		note("invisible characters", strings.Map(dropJoiner, s))
	}
	return s, removed
}

// fromMailto returns the address of a mailto URI (RFC 6068) without its scheme: what
// is before the query, its escapes resolved. ParseAddress judges what comes out.
func fromMailto(s string) string {
	s, _, _ = strings.Cut(s, "?")
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// dropInvisible drops zero-width characters that never belong to an address: soft
// hyphen, zero-width space, word joiner, byte order mark.
func dropInvisible(r rune) rune {
	switch r {
	case '\u00ad', '\u200b', '\u2060', '\ufeff':
		return -1
	}
	return r
}

func dropJoiner(r rune) rune {
	if isJoiner(r) {
		return -1
	}
	return r
}

func isJoiner(r rune) bool { return r == '\u200c' || r == '\u200d' }

// isBlank covers spaces, NBSP and joiners that join nothing, but no line break: one in
// an address is a list, or an attempt at something.
func isBlank(r rune) bool { return r == '\t' || isJoiner(r) || unicode.Is(unicode.Zs, r) }

// isDirectionMark covers the marks and embeddings that Windows and web pages put
// around a copied address. The overrides (U+202D, U+202E) are not among them: nobody
// gets one by accident.
func isDirectionMark(r rune) bool {
	switch r {
	case '\u200e', '\u200f', '\u061c', '\u202a', '\u202b', '\u202c', '\u2066', '\u2067', '\u2068', '\u2069':
		return true
	}
	return false
}
