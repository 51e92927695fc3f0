package bounces

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// findAddress finds the next mail address in b from place from on: what has the shape
// of an addr-spec, not what may be one. It returns the address and where it begins and
// ends, nil if there is none.
func findAddress(b []byte, from int) (address []byte, start, end int) {
	for from < len(b) {
		at := bytes.IndexByte(b[from:], '@')
		if at < 0 {
			return nil, 0, 0
		}
		at += from
		start, end = at, at+1
		for start > from && at-start < 64 && isLocalByte(b[start-1]) {
			start--
		}
		for end < len(b) && end-at < 255 && isDomainByte(b[end]) {
			end++
		}
		for end > at+1 && (b[end-1] == '.' || b[end-1] == '-') {
			end--
		}
		for start < at && (b[start] == '.' || b[start] == '\'' || b[start] == '*' || b[start] == '=' && b[start+1] != '?') {
			start++
		}
		if start < at && end > at+1 && isHostName(b[at+1:end]) {
			return b[start:end], start, end
		}
		from = at + 1
	}
	return nil, 0, 0
}

// isLocalByte reports whether c may be part of a local part (RFC 5321 4.1.2 dot-atom,
// RFC 6531). "|" and "{" are left out: they are quotes more often.
func isLocalByte(c byte) bool {
	return isLetter(c) || isDigit(c) || c >= utf8.RuneSelf || strings.IndexByte("!#$%&*+-/=?^_~.'", c) >= 0
}

func isDomainByte(c byte) bool {
	return isLetter(c) || isDigit(c) || c >= utf8.RuneSelf || c == '.' || c == '-' || c == '_'
}

// isHostName reports whether a domain has a dot and a letter.
func isHostName(domain []byte) bool {
	dot := false
	letter := false
	for _, c := range domain {
		dot = dot || c == '.'
		letter = letter || isLetter(c) || c >= utf8.RuneSelf
	}
	return dot && letter
}
