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
		// 75 and the "=" of a soft line break; what ends the line needs none.
		if n := literalRun(line[i:], maxLine-1-(len(b)-start), len(b) == start); n > 0 {
			b = append(b, line[i:i+n]...)
			i += n
			continue
		}
		size := 1
		if line[i] >= utf8.RuneSelf {
			_, size = utf8.DecodeRuneInString(line[i:])
		}
		room := maxLine - 1
		if i+size == len(line) {
			room = maxLine
		}
		switch {
		case isControl(line[i]):
		case len(b)-start+3*size > room:
			b = append(b, "=\r\n"...)
			start = len(b)
			continue
		default:
			for j := range size {
				b = appendHex(b, line[i+j])
			}
		}
		i += size
	}
	return b
}

// literalRun returns how many bytes of rest, at most room, can stand for themselves.
// begins says that they would begin a line.
func literalRun(rest string, room int, begins bool) int {
	if len(rest) == room+1 && isVisible(rest[room]) {
		room++ // the whole rest, with no soft line break after it
	}
	n := 0
	for n < len(rest) && n < room && (isVisible(rest[n]) || isBlankByte(rest[n]) && n+1 < len(rest)) {
		n++
	}
	if begins && n > 0 && (rest[0] == '.' || strings.HasPrefix(rest, "From ")) {
		return 0
	}
	return n
}

// isVisible: printable ASCII that quoted-printable has no use for.
func isVisible(c byte) bool { return c > ' ' && c < 0x7f && c != '=' }

func isBlankByte(c byte) bool { return c == ' ' || c == '\t' }

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
