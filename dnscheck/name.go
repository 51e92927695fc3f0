package dnscheck

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of a name on the wire (RFC 1035 2.3.4): 255 bytes with the length bytes
// and the root leave 253 for the text.
const (
	maxName  = 253
	maxLabel = 63
)

// presentation turns a name as people write it ("Example.COM", "a.b.") into the
// form that questions and records are compared in: lower case, with a final dot,
// and what is special in a zone file escaped. A name's bytes are free (RFC 2181
// 11), so anything that fits is let through.
func presentation(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return ".", nil
	}
	if len(name) > maxName {
		return "", fmt.Errorf("name of %d bytes, %d is the most", len(name), maxName)
	}
	var b strings.Builder
	label := 0
	for i := range len(name) {
		c := name[i]
		if c == '.' {
			if label == 0 {
				return "", errors.New("name with an empty label")
			}
			label = 0
			b.WriteByte(c)
			continue
		}
		if label++; label > maxLabel {
			return "", fmt.Errorf("name with a label over %d bytes", maxLabel)
		}
		writeNameByte(&b, c)
	}
	if label == 0 {
		return "", errors.New("name with an empty label")
	}
	b.WriteByte('.')
	return b.String(), nil
}

// writeNameByte writes one byte of a label as miekg/dns unpacks it, so that the
// question that comes back is the same text as the one that went out.
func writeNameByte(b *strings.Builder, c byte) {
	switch {
	case 'A' <= c && c <= 'Z':
		b.WriteByte(c + 'a' - 'A')
	case strings.IndexByte(` '@;()"\`, c) >= 0:
		b.WriteByte('\\')
		b.WriteByte(c)
	case c < ' ' || c > '~':
		fmt.Fprintf(b, `\%03d`, c)
	default:
		b.WriteByte(c)
	}
}

// plain is the name as shown and returned: lower case, no final dot. The root is
// ".".
func plain(fqdn string) string {
	if fqdn == "." {
		return fqdn
	}
	return lowerASCII(strings.TrimSuffix(fqdn, "."))
}

// lowerASCII lowers A-Z alone: names compare by ASCII case only (RFC 4343).
func lowerASCII(s string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, s)
}

// unescape gives back the bytes of a character string that miekg/dns holds in
// zone file form (\" \\ \DDD).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b = append(b, s[i])
			continue
		}
		i++
		if i+2 < len(s) && isDigit(s[i]) && isDigit(s[i+1]) && isDigit(s[i+2]) {
			b = append(b, (s[i]-'0')*100+(s[i+1]-'0')*10+s[i+2]-'0')
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
