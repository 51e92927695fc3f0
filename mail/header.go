package mail

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// Header lines, RFC 5322 2.2, folded at 76 characters as RFC 2047 2 asks. Whatever the
// value, a header can't end before it should: appendClean is the only way into one.

const maxLine = 76

// appendHeader writes a header whose value is ASCII and already folded.
func appendHeader(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	for i, line := range strings.Split(value, crlf+" ") {
		if i > 0 {
			b = append(b, crlf+" "...)
		}
		b = appendClean(b, line)
	}
	return append(b, crlf...)
}

// appendClean writes s with a space for every control character and for every byte that
// is not ASCII: a second wall behind the checks of Prepare.
func appendClean(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c < 0x7f {
			b = append(b, c)
		} else {
			b = append(b, ' ')
		}
	}
	return b
}

// appendText writes a header of unstructured text (RFC 5322 3.2.5).
func appendText(b []byte, name, text string) []byte {
	b = append(b, name...)
	b = append(b, ':')
	b, _ = appendFolded(b, len(name)+1, text)
	return append(b, crlf...)
}

// appendMailbox writes a header with one mailbox (RFC 5322 3.4).
func appendMailbox(b []byte, field, name string, a Address) []byte {
	if name == "" {
		return appendHeader(b, field, string(a))
	}
	b = append(b, field...)
	b = append(b, ':')
	col := len(field) + 1
	if isPlain(name) && !isPhrase(name) && len(name) <= 60 {
		quoted := quote(name)
		b = append(b, ' ')
		b = appendClean(b, quoted)
		col += 1 + len(quoted)
	} else {
		b, col = appendFolded(b, col, name)
	}
	if col+len(" <>")+len(a) > maxLine {
		b = append(b, crlf...)
	}
	b = append(b, " <"...)
	b = appendClean(b, string(a))
	return append(b, ">\r\n"...)
}

// isPhrase: words of atext and single spaces, which need no quotes.
func isPhrase(s string) bool {
	for i := range len(s) {
		if s[i] == ' ' && i > 0 && s[i-1] != ' ' && i < len(s)-1 || isAtext(s[i]) {
			continue
		}
		return false
	}
	return !strings.Contains(s, "=?")
}

// isPlain: printable ASCII that no reader can take for an encoded word.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return !strings.Contains(s, "=?")
}

// appendFolded writes text after a header's name and colon, col characters into the
// line, and returns the column where it ends. Plain text is folded at its spaces; other
// text, and text with a word too long for a line, goes as encoded words (RFC 2047).
func appendFolded(b []byte, col int, text string) ([]byte, int) {
	if !isPlain(text) || strings.Contains(text, "  ") || strings.Trim(text, " ") != text || longestWord(text) > maxLine-len("Subject: ") {
		return appendEncodedWords(b, col, text)
	}
	for word := range strings.SplitSeq(text, " ") {
		if col+1+len(word) > maxLine {
			b = append(b, crlf...)
			col = 0
		}
		b = append(b, ' ')
		b = appendClean(b, word)
		col += 1 + len(word)
	}
	return b, col
}

func longestWord(s string) int {
	longest := 0
	for word := range strings.SplitSeq(s, " ") {
		longest = max(longest, len(word))
	}
	return longest
}

// appendEncodedWords writes text as encoded words of at most 75 characters that each
// hold whole characters (RFC 2047 2 and 5): in Q, which people can read in a log, unless
// it is half as long again as B, as for scripts other than Latin.
func appendEncodedWords(b []byte, col int, text string) ([]byte, int) {
	text = strings.ToValidUTF8(text, "\ufffd")
	q, base64Size := 0, base64.StdEncoding.EncodedLen(len(text))
	for i := range len(text) {
		q += qLen(text[i])
	}
	useQ := 2*q <= 3*base64Size
	const frame = len(" =?utf-8?q??=")
	for text != "" {
		room := min(maxLine, 75+1) - col - frame
		n := fitting(text, room, useQ)
		if n == 0 { // the line is full: the next one has room for any character
			b = append(b, crlf...)
			col = 0
			continue
		}
		start := len(b)
		if useQ {
			b = append(b, " =?utf-8?q?"...)
			b = appendQ(b, text[:n])
		} else {
			b = append(b, " =?utf-8?b?"...)
			b = base64.StdEncoding.AppendEncode(b, []byte(text[:n]))
		}
		b = append(b, "?="...)
		col += len(b) - start
		text = text[n:]
	}
	return b, col
}

// fitting returns how many bytes of text, in whole characters, can be encoded in room
// characters.
func fitting(text string, room int, useQ bool) int {
	n, used := 0, 0
	for n < len(text) {
		_, size := utf8.DecodeRuneInString(text[n:])
		for i := range size {
			used += qLen(text[n+i])
		}
		if !useQ {
			used = base64.StdEncoding.EncodedLen(n + size)
		}
		if used > room {
			break
		}
		n += size
	}
	return n
}

// qLen is the length of a byte in Q encoding, with only those characters as themselves
// that are safe in a phrase too (RFC 2047 5 (3)).
func qLen(c byte) int {
	if isAlnum(c) || c == ' ' || c == '-' {
		return 1
	}
	return 3
}

func appendQ(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			b = append(b, '_')
		case qLen(c) == 1:
			b = append(b, c)
		default:
			b = appendHex(b, c)
		}
	}
	return b
}

// appendHex writes "=" and two upper-case digits.
func appendHex(b []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(b, '=', digits[c>>4], digits[c&15])
}
