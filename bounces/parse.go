package bounces

import (
	"bytes"
	"slices"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// Kind is what a mail that came back is.
type Kind string

// The kinds.
const (
	KindBounce     Kind = "bounce"       // a message was not handed on, for good
	KindDelay      Kind = "delay"        // not yet, and it is tried again
	KindComplaint  Kind = "complaint"    // the recipient called it unwanted
	KindAutoReply  Kind = "autoreply"    // a machine answered for a person
	KindReport     Kind = "report"       // a receipt, a success, a DMARC or TLS report
	KindNotABounce Kind = "not-a-bounce" // mail like any other
)

// Action is what a report says became of a message, RFC 3464 2.3.3, and "complaint".
type Action string

// The actions.
const (
	ActionFailed    Action = "failed"
	ActionDelayed   Action = "delayed"
	ActionDelivered Action = "delivered"
	ActionRelayed   Action = "relayed"
	ActionExpanded  Action = "expanded"
	ActionComplaint Action = "complaint"
)

// Returned is what a mail that came back says. All of it is evidence, none of it
// decides whom it is about: the return path does.
type Returned struct {
	Kind       Kind
	Reports    []Report // one a recipient, at most 100; none for most kinds
	EnvelopeID string   // the ENVID that the message was sent with, "" if there is none
	MessageID  string   // of the original message, without its brackets, "" if not known
}

// Report is what a mail says of one recipient.
type Report struct {
	Recipient string // as the report has it, "" if it names none
	Original  string // the address that the message was sent to, where it says another
	Action    Action
	Status    mail.EnhancedCode // the report's own, else the one that its reply has
	Host      string            // the server that refused, "" if not known
	Reply     mail.Reply        // its words; Code is 0 where it has none
	Verdict   Verdict           // zero where nothing failed
}

// Parse reads a mail that came back: delivery status notifications (RFC 3464, 6533),
// bounces in free form, delay notices, complaints (RFC 5965), automatic replies (RFC
// 3834) and receipts (RFC 8098). It is total: any other mail is KindNotABounce. Only
// the first 1 MiB is looked at; its time is linear in that, whatever it holds. It
// keeps no part of raw. It is safe for concurrent use.
func Parse(raw []byte) Returned {
	m := reading{mime: parseMIME(raw)}
	m.survey()
	r := Returned{Kind: m.kind()}
	switch r.Kind {
	case KindBounce, KindDelay:
		r.Reports = m.reports(r.Kind)
		if slices.ContainsFunc(r.Reports, func(x Report) bool { return x.Action == ActionFailed }) {
			r.Kind = KindBounce // one failure makes it one
		}
	case KindComplaint:
		r.Reports = m.complaints()
	case KindReport:
		if m.statusKind() == KindReport {
			r.Reports = m.reports(r.Kind)
		}
	}
	r.EnvelopeID = m.dsn.envelopeID
	r.MessageID = messageID(m.original.get("message-id"))
	return r
}

// reading is a mail while it is read.
type reading struct {
	mime
	subject  []byte
	text     []byte // the human-readable part, decoded
	form     freeForm
	status   *part // message/delivery-status
	feedback *part // message/feedback-report
	receipt  bool  // message/disposition-notification
	attached *part // the original message
	original header
	dsn      deliveryStatus
	signs    signs // of subject and text
	daemon   bool  // the sender is a mail system
	failed   []byte
}

// survey finds the parts that matter and reads them.
func (m *reading) survey() {
	m.subject = decodeHeaderText(m.header.get("subject"))
	m.failed = m.header.get("x-failed-recipients")
	var plain, html *part
	for i := range m.parts {
		p := &m.parts[i]
		switch {
		case p.is("message/delivery-status"), p.is("message/global-delivery-status"):
			m.status = first(m.status, p)
		case p.is("message/feedback-report"):
			m.feedback = first(m.feedback, p)
		case p.is("message/disposition-notification"), p.is("message/global-disposition-notification"):
			m.receipt = true
		case p.is("message/"), p.is("text/rfc822"):
			m.attached = first(m.attached, p)
		case p.is("text/html"):
			html = first(html, p)
		case p.is("text/"), p.ctype == nil, p.is("text;"), p.is("text "):
			if m.attached == nil {
				plain = first(plain, p)
			}
		}
	}
	if plain == nil || len(bytes.TrimSpace(plain.body)) == 0 {
		plain = first(html, plain)
	}
	if plain != nil {
		m.text = plain.text()
	}
	if m.attached != nil {
		m.original, _ = parseHeader(bytes.TrimLeft(decodeTransfer(m.attached.body, m.attached.header.get("content-transfer-encoding")), "\r\n"))
	}
	m.form = parseFreeForm(m.text, m.ownAddresses())
	if m.original == nil && m.form.original != nil {
		m.original, _ = parseHeader(m.form.original)
	}
	switch {
	case m.status != nil:
		m.dsn = parseDeliveryStatus(decodeTransfer(m.status.body, m.status.header.get("content-transfer-encoding")))
	case containsFields(m.form.intro):
		m.dsn = parseDeliveryStatus(m.form.intro)
	}
}

func first(a, b *part) *part {
	if a != nil {
		return a
	}
	return b
}

// containsFields reports whether a text has the fields of a delivery status
// notification, as mail systems without MIME reports write them.
func containsFields(text []byte) bool {
	return bytes.Contains(text, []byte("Final-Recipient:")) || bytes.Contains(text, []byte("Original-Recipient:")) ||
		bytes.Contains(text, []byte("\nDiagnostic-Code:"))
}

// ownAddresses are the ones that a report is addressed to: the senders of the
// original message.
func (m *reading) ownAddresses() [][]byte {
	var own [][]byte
	for _, name := range [...]string{"to", "delivered-to", "x-envelope-to"} {
		if a, _, _ := findAddress(m.header.get(name), 0); a != nil {
			own = append(own, a)
		}
	}
	for _, name := range [...]string{"from", "return-path"} {
		if a, _, _ := findAddress(m.original.get(name), 0); a != nil {
			own = append(own, a)
		}
	}
	return own
}

// messageID returns a Message-ID without its brackets.
func messageID(v []byte) string {
	v = bytes.Trim(v, " \t\r\n<>")
	if len(v) > 250 || bytes.IndexByte(v, '@') < 0 {
		return ""
	}
	return clip(string(v), 250)
}

// reports makes the reports of a bounce, a delay notice or a receipt.
func (m *reading) reports(kind Kind) []Report {
	if reports := m.statusReports(kind); reports != nil {
		return reports
	}
	action := ActionFailed
	if kind == KindDelay {
		action = ActionDelayed
	}
	failures := m.form.failures
	if addresses := m.failedRecipients(); addresses != nil {
		failures = m.matchFailures(addresses, failures)
	}
	if len(failures) == 0 {
		if m.dsn = m.attachedStatus(); m.dsn.recipients != nil {
			return m.statusReports(kind)
		}
		failures = []failure{{address: m.originalRecipient(), text: m.form.intro}}
	}
	reports := make([]Report, 0, len(failures))
	for _, f := range failures {
		r := Report{Recipient: string(f.address), Action: action}
		m.judge(&r, "", f.text, len(failures) == 1)
		reports = append(reports, r)
	}
	return reports
}

// attachedStatus reads the notification that a gateway attached to one of its own.
func (m *reading) attachedStatus() deliveryStatus {
	if m.attached == nil || !hasPrefixFold(m.original.get("content-type"), "multipart/report") {
		return deliveryStatus{}
	}
	inner := parseMIME(m.attached.body)
	for i := range inner.parts {
		if p := &inner.parts[i]; p.is("message/delivery-status") {
			return parseDeliveryStatus(decodeTransfer(p.body, p.header.get("content-transfer-encoding")))
		}
	}
	return deliveryStatus{}
}

// statusReports makes the reports of a delivery status notification, nil if it names
// no recipient.
func (m *reading) statusReports(kind Kind) []Report {
	var reports []Report
	for _, s := range m.dsn.recipients {
		r := Report{Recipient: s.final, Original: s.original, Action: Action(s.action), Status: s.status, Host: s.remote}
		if failed := m.failedRecipients(); r.Recipient == "" && r.Original == "" && len(failed) == 1 && len(m.dsn.recipients) == 1 {
			r.Recipient = string(failed[0])
		} else if r.Recipient == "" || s.actual != "" && r.Recipient != s.original {
			r.Recipient = strings.Join([]string{s.final, s.actual, s.original}, " ")
			r.Recipient, _, _ = strings.Cut(strings.TrimLeft(r.Recipient, " "), " ")
		}
		switch r.Action {
		case ActionFailed, ActionDelayed, ActionDelivered, ActionRelayed, ActionExpanded:
		default: // none, or one that RFC 3464 does not have
			r.Action = ActionFailed
			if kind == KindDelay {
				r.Action = ActionDelayed
			}
		}
		var text []byte
		for _, f := range m.form.failures {
			if strings.EqualFold(string(f.address), s.final) || strings.EqualFold(string(f.address), s.original) {
				text = f.text
			}
		}
		if text == nil && len(m.dsn.recipients) == 1 {
			text = m.form.intro
			if len(m.form.failures) == 1 {
				text = m.form.failures[0].text
				if r.Recipient == "" {
					r.Recipient = string(m.form.failures[0].address)
				}
			}
		}
		if r.Recipient == "" && len(m.dsn.recipients) == 1 {
			r.Recipient = string(m.originalRecipient())
		}
		m.judge(&r, s.diagnostic, text, len(m.dsn.recipients) == 1)
		reports = append(reports, r)
	}
	return reports
}

// failedRecipients are the addresses of X-Failed-Recipients, which Exim and Gmail
// write.
func (m *reading) failedRecipients() [][]byte {
	var all [][]byte
	from := 0
	for len(all) < maxReports {
		a, _, end := findAddress(m.failed, from)
		if a == nil {
			return all
		}
		all = append(all, a)
		from = end
	}
	return all
}

// matchFailures finds what the text says of each of the addresses.
func (m *reading) matchFailures(addresses [][]byte, failures []failure) []failure {
	matched := make([]failure, 0, len(addresses))
	for _, a := range addresses {
		f := failure{address: a}
		for _, g := range failures {
			if bytes.EqualFold(g.address, a) {
				f.text = g.text
			}
		}
		if f.text == nil && len(addresses) == 1 {
			f.text = m.form.intro
			if len(failures) == 1 {
				f.text = failures[0].text
			}
		}
		matched = append(matched, f)
	}
	return matched
}

// originalRecipient is the address that the original message was sent to, nil if it
// is not known or not one.
func (m *reading) originalRecipient() []byte {
	for _, name := range [...]string{"x-envelope-to", "to"} {
		v := m.original.get(name)
		a, _, end := findAddress(v, 0)
		if a == nil {
			continue
		}
		if b, _, _ := findAddress(v, end); b != nil {
			return nil
		}
		return a
	}
	return nil
}

// complaints makes the report of a complaint. Its recipient is often blanked; the
// original message names it then.
func (m *reading) complaints() []Report {
	r := Report{Action: ActionComplaint, Verdict: Verdict{Cause: mail.CauseComplaint, Hard: true}}
	if m.feedback != nil {
		h, _ := parseHeader(bytes.TrimLeft(decodeTransfer(m.feedback.body, m.feedback.header.get("content-transfer-encoding")), "\r\n"))
		for _, name := range [...]string{"original-rcpt-to", "removal-recipient"} {
			if a := typedAddress(h.get(name)); a != "" && r.Recipient == "" {
				r.Recipient = a
			}
		}
	}
	for _, name := range [...]string{"x-hmxmroriginalrecipient", "to"} {
		if a, _, _ := findAddress(m.original.get(name), 0); a != nil && r.Recipient == "" {
			r.Recipient = string(a)
		}
	}
	return []Report{r}
}
