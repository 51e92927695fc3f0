package bounces

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/deliverd/deliverd/mail"
)

// maxReports bounds the recipients of one report: ours have one (law 9).
const maxReports = 100

// statusFields are what a delivery status notification says of one recipient, RFC
// 3464 2.3.
type statusFields struct {
	original, final, actual string // addresses, "" if there is none
	action                  string
	status                  mail.EnhancedCode
	remote                  string // Remote-MTA's name
	diagnostic              string
}

// complete reports whether the fields name a recipient and what became of it: an empty
// line ends them then, and not before.
func (s *statusFields) complete() bool {
	return (s.original != "" || s.final != "") && (s.action != "" || s.status != (mail.EnhancedCode{}))
}

// deliveryStatus is a delivery status notification.
type deliveryStatus struct {
	envelopeID string // Original-Envelope-Id: the ENVID of RFC 3461
	recipients []statusFields
}

// parseDeliveryStatus reads the fields of message/delivery-status: groups parted by
// empty lines, the first about the message. Missing and doubled empty lines and text
// between the groups are forgiven: a recipient begins where a field comes that it
// already has.
func parseDeliveryStatus(b []byte) deliveryStatus {
	var d deliveryStatus
	var now statusFields
	flush := func() {
		if now.original != "" || now.final != "" || now.actual != "" || now.action != "" || now.status != (mail.EnhancedCode{}) {
			if len(d.recipients) < maxReports {
				d.recipients = append(d.recipients, now)
			}
		}
		now = statusFields{}
	}
	for len(b) > 0 {
		h, rest := parseHeader(b)
		for _, f := range h {
			d.field(f, &now, flush)
		}
		if len(h) == 0 && len(rest) == len(b) {
			_, rest = cutLine(b) // a line that is no field
		} else if now.complete() {
			flush()
		}
		b = rest
	}
	flush()
	return d
}

// field takes one field into the recipient that is being read.
func (d *deliveryStatus) field(f headerField, now *statusFields, flush func()) {
	switch {
	case equalFold(f.name, "original-envelope-id"):
		d.envelopeID = clip(unfold(f.value), 200)
	case equalFold(f.name, "original-recipient"):
		if now.original != "" || now.final != "" && now.diagnostic != "" {
			flush()
		}
		now.original = typedAddress(f.value)
	case equalFold(f.name, "final-recipient"):
		if now.final != "" {
			flush()
		}
		now.final = typedAddress(f.value)
	case equalFold(f.name, "x-actual-recipient"):
		now.actual = typedAddress(f.value)
	case equalFold(f.name, "action"):
		if now.action != "" && now.complete() {
			flush()
		}
		if now.action == "" {
			word, _, _ := strings.Cut(strings.ToLower(unfold(f.value)), " ")
			now.action = clip(strings.Trim(word, "();,."), 20)
		}
	case equalFold(f.name, "status"):
		if now.status == (mail.EnhancedCode{}) {
			now.status = statusCode(f.value)
		}
	case equalFold(f.name, "remote-mta"):
		_, host, ok := strings.Cut(unfold(f.value), ";")
		if ok {
			host, _, _ = strings.Cut(strings.TrimSpace(host), " ")
			now.remote = clip(host, 255)
		}
	case equalFold(f.name, "diagnostic-code"), equalFold(f.name, "x-supplementary-info"):
		if now.diagnostic == "" || equalFold(f.name, "diagnostic-code") {
			now.diagnostic = diagnosticText(f.value)
		}
	}
}

// statusCode finds the enhanced code in a Status field: "5.1.1", "5.1.1 (bad
// destination mailbox address)", "Status: 550 5.1.1".
func statusCode(v []byte) mail.EnhancedCode {
	for i := range v {
		if i > 0 && (isDigit(v[i-1]) || v[i-1] == '.') {
			continue
		}
		if e, _, ok := cutEnhanced(string(v[i:min(len(v), i+12)])); ok && v[i] != '(' {
			return e
		}
	}
	return mail.EnhancedCode{}
}

// diagnosticText returns a Diagnostic-Code's text without its type, lines kept apart so
// that a multi-line reply can be read.
func diagnosticText(v []byte) string {
	v = bytes.TrimSpace(v[:min(len(v), 4*maxText)])
	if i := bytes.IndexByte(v, ';'); i > 0 && i < 40 && bytes.IndexByte(v[:i], ' ') < 0 {
		v = bytes.TrimSpace(v[i+1:])
	}
	return string(decodeCharset(v, nil))
}

// typedAddress reads "rfc822; a@b.example", "utf-8; ä@b.example" (RFC 6533) and what
// servers write instead. It returns "" for what is no mail address.
func typedAddress(v []byte) string {
	s := unfold(v)
	kind, address, ok := strings.Cut(s, ";")
	if !ok {
		kind, address = "rfc822", s
	}
	address = strings.TrimSpace(address)
	if strings.EqualFold(strings.TrimSpace(kind), "utf-8") {
		address = decodeUnicodeXtext(address)
	}
	if a, _, _ := findAddress([]byte(address), 0); a != nil {
		return string(a)
	}
	if strings.Contains(address, "+40") { // xtext, RFC 3461 4
		if a, _, _ := findAddress([]byte(strings.Replace(address, "+40", "@", 1)), 0); a != nil {
			return string(a)
		}
	}
	// A quoted local part, or a domain without a dot.
	address = strings.Trim(address, "<> ")
	at := strings.LastIndexByte(address, '@')
	if at < 1 || at+1 == len(address) || strings.ContainsAny(address[at:], " ;<>()") {
		return ""
	}
	if address[0] != '"' && strings.ContainsAny(address, " ;<>()") {
		return ""
	}
	return clip(address, 320)
}

// decodeUnicodeXtext decodes the "\x{221E}" of RFC 6533 3.
func decodeUnicodeXtext(s string) string {
	if !strings.Contains(s, `\x{`) {
		return s
	}
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(s, `\x{`)
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		hex, after, ok := strings.Cut(rest, "}")
		r := rune(0)
		for i := range len(hex) {
			d := unhex(hex[i])
			if d < 0 || i == 6 {
				ok = false
				break
			}
			r = r<<4 | rune(d)
		}
		if !ok || hex == "" || !utf8.ValidRune(r) {
			out.WriteString(`\x{`)
			s = rest
			continue
		}
		out.WriteRune(r)
		s = after
	}
}

// unfold returns a field's value on one line, at most 1 KiB.
func unfold(v []byte) string {
	v = bytes.TrimSpace(v[:min(len(v), 1024)])
	if bytes.IndexByte(v, '\n') < 0 {
		return string(v)
	}
	return strings.Join(strings.Fields(string(v)), " ")
}

// clip returns s without control characters, at most n bytes.
func clip(s string, n int) string {
	s = cleanText(s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
