package bounces

import "bytes"

// header is the fields of a message or part in their order, as slices of it.
type header []headerField

type headerField struct {
	name, value []byte // the value as it stands, folds included
}

const (
	maxHeaderBytes  = 64 << 10
	maxHeaderFields = 500
)

// parseHeader reads the header at the start of b and returns what follows its empty
// line. It is tolerant: a line that is no field and no continuation ends the header
// if it is the first one, and is skipped otherwise, unless it looks like a MIME
// boundary; a header may end without an empty line. What is over the limits is
// dropped.
func parseHeader(b []byte) (header, []byte) {
	h := make(header, 0, 24)
	value := -1 // where the last field's value begins in b; -1 if it was dropped
	rest := b
	for len(rest) > 0 {
		line, after := cutLine(rest)
		switch {
		case len(line) == 0:
			return h, after
		case line[0] == ' ' || line[0] == '\t':
			if len(bytes.TrimSpace(line)) == 0 {
				// An empty line that got spaces on its way.
				if next, _ := cutLine(after); len(next) == 0 || fieldColon(next) < 0 && !isFold(next) {
					return h, after
				}
			}
			if n := len(h); n > 0 && value >= 0 {
				h[n-1].value = b[value : len(b)-len(rest)+len(line)]
			}
		default:
			colon := fieldColon(line)
			if colon < 0 {
				if len(h) == 0 && !bytes.HasPrefix(line, []byte("From ")) && !bytes.HasPrefix(line, []byte(">From ")) {
					return h, rest
				}
				if bytes.HasPrefix(line, []byte("--")) {
					return h, rest
				}
				if n := len(h); n > 0 && value >= 0 && bytes.HasSuffix(h[n-1].value, []byte(";")) {
					h[n-1].value = b[value : len(b)-len(rest)+len(line)] // a fold that lost its space
				}
				break
			}
			value = -1
			if len(h) < maxHeaderFields && len(b)-len(rest) < maxHeaderBytes {
				value = len(b) - len(rest) + colon + 1
				h = append(h, headerField{name: bytes.TrimRight(line[:colon], " \t"), value: line[colon+1:]})
			}
		}
		rest = after
	}
	return h, nil
}

func isFold(line []byte) bool { return len(line) > 0 && (line[0] == ' ' || line[0] == '\t') }

// fieldColon returns the place of the colon after a field's name, -1 if line does not
// begin with a field: printable ASCII without spaces (RFC 5322 2.2), at most 76 bytes,
// with a space before the colon forgiven.
func fieldColon(line []byte) int {
	for i, c := range line {
		switch {
		case c == ':':
			if i == 0 {
				return -1
			}
			return i
		case (c == ' ' || c == '\t') && i > 0:
			j := i
			for j < len(line) && (line[j] == ' ' || line[j] == '\t') {
				j++
			}
			if j < len(line) && line[j] == ':' {
				return j
			}
			return -1
		case c <= ' ' || c >= 0x7f || i == 76:
			return -1
		}
	}
	return -1
}

// cutLine cuts the first line off b, without its line break (CRLF, LF, or a CR that
// stands in for one at the end).
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return bytes.TrimRight(b, "\r"), nil
	}
	line, rest = b[:i], b[i+1:]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, rest
}

// get returns the value of the first field with this name (lower case), trimmed, nil
// if there is none.
func (h header) get(name string) []byte {
	for i := range h {
		if equalFold(h[i].name, name) {
			return bytes.TrimSpace(h[i].value)
		}
	}
	return nil
}

// has reports whether there is a field with this name.
func (h header) has(name string) bool { return h.get(name) != nil }

// equalFold reports whether b is the lower-case s in any case.
func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && hasPrefixFold(b, s)
}

// hasPrefixFold reports whether b begins with the lower-case s in any case.
func hasPrefixFold(b []byte, s string) bool {
	if len(b) < len(s) {
		return false
	}
	for i := range len(s) {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// containsFold reports whether the lower-case s occurs in b in any case. b is short: a
// line or a field.
func containsFold(b []byte, s string) bool { return indexFold(b, s) >= 0 }

func indexFold(b []byte, s string) int {
	for i := 0; i+len(s) <= len(b); i++ {
		if hasPrefixFold(b[i:], s) {
			return i
		}
	}
	return -1
}

// param returns the value of a parameter of a structured field such as Content-Type,
// without its quotes; nil if there is none.
func param(value []byte, name string) []byte {
	rest := value
	for {
		i := bytes.IndexByte(rest, ';')
		if i < 0 {
			return nil
		}
		rest = bytes.TrimLeft(rest[i+1:], " \t\r\n;")
		eq := 0
		for eq < len(rest) && rest[eq] != '=' && rest[eq] != ';' {
			eq++
		}
		if eq == len(rest) || rest[eq] == ';' {
			rest = rest[eq:]
			continue
		}
		matches := equalFold(bytes.TrimSpace(rest[:eq]), name)
		v := bytes.TrimLeft(rest[eq+1:], " \t\r\n")
		if len(v) > 0 && v[0] == '"' {
			end := bytes.IndexByte(v[1:], '"')
			if end < 0 {
				end = len(v) - 1
			}
			if matches {
				return v[1 : 1+end]
			}
			rest = v[1+end:]
			continue
		}
		if matches {
			if end := bytes.IndexAny(v, "; \t\r\n"); end >= 0 {
				v = v[:end]
			}
			return v
		}
		rest = v
	}
}
