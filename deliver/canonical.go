package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// oversigned fields are named in h= once more than they occur, so that nobody can
// add one without breaking the signature (RFC 6376 5.4, 8.15). These are what a
// reader is shown, or what decides how the mail is treated.
var oversigned = []string{
	"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type", "Auto-Submitted",
}

// signedIfPresent fields are oversigned only where they occur: a forwarder may
// rightly add them.
var signedIfPresent = []string{
	"Sender", "Content-Transfer-Encoding", "Content-Language", "In-Reply-To", "References",
	"List-Id", "List-Unsubscribe", "List-Unsubscribe-Post",
}

// field is one header field with its folds and its final CRLF.
type field struct {
	name string
	raw  []byte
}

// normalise makes CRLF of every bare CR and LF, and ends the last line and the header:
// all failures of DKIM between implementations that were seen came from these. It refuses what
// would need an 8-bit or binary transport: rendering makes none (trap 6).
func normalise(raw []byte) ([]byte, error) {
	clean := bytes.HasSuffix(raw, []byte("\r\n")) && bytes.Contains(raw, []byte("\r\n\r\n"))
	line := 0
	for i, c := range raw {
		switch {
		case c == 0 || c >= 0x80:
			return nil, errors.New("the rendered message is not 7-bit: its parts must be quoted-printable or base64")
		case c == '\n':
			clean = clean && i > 0 && raw[i-1] == '\r'
			line = 0
		case c == '\r':
			clean = clean && i+1 < len(raw) && raw[i+1] == '\n'
		default:
			if line++; line > 998 {
				return nil, errors.New("the rendered message has a line over 998 bytes")
			}
		}
	}
	if clean {
		return raw, nil
	}
	out := make([]byte, 0, len(raw)+64)
	for i, c := range raw {
		switch {
		case c == '\r':
			out = append(out, "\r\n"...)
		case c == '\n' && i > 0 && raw[i-1] == '\r':
		case c == '\n':
			out = append(out, "\r\n"...)
		default:
			out = append(out, c)
		}
	}
	if !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	if !bytes.Contains(out, []byte("\r\n\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out, nil
}

// splitMessage separates the header, with its last CRLF, from the body, without the
// empty line between them.
func splitMessage(raw []byte) (head, body []byte) {
	i := bytes.Index(raw, []byte("\r\n\r\n"))
	if i < 0 {
		return raw, nil
	}
	return raw[:i+2], raw[i+4:]
}

// parseFields takes a header apart into fields, each with its folds.
func parseFields(head []byte) ([]field, error) {
	var out []field
	start := 0 // of the last field
	end := 0
	for line := range bytes.Lines(head) {
		begin := end
		end += len(line)
		if line[0] == ' ' || line[0] == '\t' {
			if len(out) == 0 {
				return nil, errors.New("the rendered header begins with a folded line")
			}
			out[len(out)-1].raw = head[start:end]
			continue
		}
		name, _, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("the rendered header has a line that is no field: %q", clip(name, 20))
		}
		start = begin
		out = append(out, field{name: string(name), raw: head[start:end]})
	}
	return out, nil
}

// selectFields returns the names for h= and the canonical fields that they pick, in
// the same order. Of a field that occurs more than once the last is picked first
// (RFC 6376 5.4.2).
func selectFields(fields []field) (names []string, signed []byte) {
	for i, name := range slices.Concat(oversigned, signedIfPresent) {
		found := false
		for _, f := range slices.Backward(fields) {
			if strings.EqualFold(f.name, name) {
				names = append(names, name)
				signed = append(signed, relaxedField(f.raw)...)
				found = true
			}
		}
		if found || i < len(oversigned) {
			names = append(names, name)
		}
	}
	return names, signed
}

// relaxedField is RFC 6376 3.4.2: name in lower case, folds undone, runs of blanks to
// one space, none around the colon or at the end.
func relaxedField(raw []byte) []byte {
	name, value, _ := bytes.Cut(raw, []byte(":"))
	out := make([]byte, 0, len(raw)+2)
	out = append(out, bytes.ToLower(bytes.TrimRight(name, " \t"))...)
	out = append(out, ':')
	start := len(out)
	blank := false
	for _, c := range value {
		switch c {
		case ' ', '\t', '\r', '\n':
			blank = true
		default:
			if blank && len(out) > start {
				out = append(out, ' ')
			}
			blank = false
			out = append(out, c)
		}
	}
	return append(out, "\r\n"...)
}

// relaxedBody is RFC 6376 3.4.4: runs of blanks to one space, none at a line's end,
// no empty lines at the body's end. An empty body stays empty.
func relaxedBody(body []byte) []byte {
	out := make([]byte, 0, len(body)+2)
	empty := 0
	for line := range bytes.Lines(body) {
		line = bytes.TrimRight(line, " \t\r\n")
		if len(line) == 0 {
			empty++
			continue
		}
		for ; empty > 0; empty-- {
			out = append(out, "\r\n"...)
		}
		out = appendReduced(out, line)
		out = append(out, "\r\n"...)
	}
	return out
}

// appendReduced appends line with each run of blanks as one space.
func appendReduced(out, line []byte) []byte {
	if bytes.IndexByte(line, '\t') < 0 && !bytes.Contains(line, []byte("  ")) {
		return append(out, line...) // as nearly all lines are
	}
	blank := false
	for _, c := range line {
		if c == ' ' || c == '\t' {
			blank = true
			continue
		}
		if blank {
			out = append(out, ' ')
		}
		blank = false
		out = append(out, c)
	}
	return out
}
