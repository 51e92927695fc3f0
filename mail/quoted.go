package mail

import (
	"strings"
	"unicode/utf8"
)

// appendQuotedPrintable writes text, whose lines end with LF, in quoted-printable (RFC
// 2045 6.7): lines of at most 76 characters ended by CRLF, no blank at the end of one,
// no character cut in two by a soft line break. A dot or "From " at the beginning of a
// line is encoded, as transports and mailboxes alter them. A control character does not
// come through, so that no bare CR or LF can appear when a reader decodes it.
func appendQuotedPrintable(b []byte, text string) []byte {
	for len(text) > 0 {
		line := text
		if end := strings.IndexByte(text, '\n'); end >= 0 {
			line, text = text[:end], text[end+1:]
		} else {
			text = ""
		}
		b = appendQuotedLine(b, line)
		b = append(b, crlf...)
	}
	return b
}

func appendQuotedLine(b []byte, line string) []byte {
	start := len(b)
	for i := 0; i < len(line); {
		size := 1
		if line[i] >= utf8.RuneSelf {
			_, size = utf8.DecodeRuneInString(line[i:])
		}
		last := i+size == len(line)
		need := size
		literal := isLiteral(line, i, last, len(b) == start)
		if !literal {
			need = 3 * size
		}
		// 75 and the "=" of a soft line break; the last character needs none.
		room := maxLine - 1
		if last {
			room = maxLine
		}
		if len(b)-start+need > room {
			b = append(b, "=\r\n"...)
			start = len(b)
			continue
		}
		switch c := line[i]; {
		case literal:
			b = append(b, c)
		case isControl(c):
		default:
			for j := range size {
				b = appendHex(b, line[i+j])
			}
		}
		i += size
	}
	return b
}

// isLiteral reports whether the byte at i can stand for itself.
func isLiteral(line string, i int, last, first bool) bool {
	c := line[i]
	switch {
	case c == ' ' || c == '\t':
		return !last
	case c <= ' ' || c >= 0x7f || c == '=':
		return false
	case first && c == '.':
		return false
	case first && c == 'F':
		return !strings.HasPrefix(line[i:], "From ")
	}
	return true
}

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
