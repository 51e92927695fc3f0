package mail

import (
	"net/url"
	"strings"
)

// SubjectToken writes any string as one token of a NATS subject: letters, digits, "-"
// and "_" as they are, every other byte percent-encoded with "=" for "%":
// "4711 Oy" is "4711=20Oy". The empty string is "=".
func SubjectToken(s string) string {
	if s == "" {
		return "="
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			b.Write([]byte{'=', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

// FromSubjectToken is the inverse of SubjectToken. A token that SubjectToken would
// not have written is taken as it stands.
func FromSubjectToken(token string) string {
	if token == "=" {
		return ""
	}
	s, err := url.PathUnescape(strings.ReplaceAll(token, "=", "%"))
	if err != nil {
		return token
	}
	return s
}
