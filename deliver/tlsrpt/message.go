package tlsrpt

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Kind is the kind of messages that reports are. No request can ask for it.
const Kind = "tls-report"

// life is how long a report is tried to be sent (RFC 8460 5.5).
const life = 24 * time.Hour

// Rules are the kind's: urgent to nobody, and sent despite whatever it reports (RFC
// 8460 3).
func Rules() mail.Kind {
	return mail.Kind{Name: Kind, Lane: 5, ValidFor: life, TLS: mail.TLSFloorIgnored,
		Retries: []time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour}}
}

// message makes the mail with a report for our own queue.
func (r *Reporter) message(to mail.Address, report *Report, domain string, packed []byte, now time.Time) *mail.Message {
	id := mail.NewID(now)
	return &mail.Message{
		ID: id, Ref: id.Ref(), Kind: Kind, To: to, Locale: "en", Template: Kind, From: r.From, Source: "deliverd",
		QueuedAt: now, ExpiresAt: now.Add(life), IdempotencyKey: Kind + " " + report.ID + " " + string(to),
		Data: map[string]any{
			"domain": domain, "submitter": r.Submitter, "report_id": report.ID, "contact": report.Contact,
			"start": report.Range.Start.Format(time.RFC3339), "end": report.Range.End.Format(time.RFC3339),
			"summary": summary(report), "report": base64.StdEncoding.EncodeToString(packed),
		},
	}
}

// summary is the report for those who open the mail.
func summary(r *Report) string {
	var b strings.Builder
	for _, p := range r.Policies {
		fmt.Fprintf(&b, "%s: %d sessions succeeded, %d failed\r\n", ascii(p.Policy.Type), p.Summary.Succeeded, p.Summary.Failed)
		for _, f := range p.Failures {
			fmt.Fprintf(&b, "  %s at %s: %d\r\n", ascii(f.Type), ascii(f.MXHost), f.Count)
		}
	}
	return b.String()
}

// Render makes the mail's bytes (RFC 8460 5.3), always the same for one message.
func Render(m *mail.Message) ([]byte, error) {
	value := func(name string) string { s, _ := m.Data[name].(string); return ascii(s) }
	_, from, err := mail.ParseMailbox(m.From)
	if err != nil {
		return nil, err
	}
	id, err := m.ID.Bytes()
	if err != nil {
		return nil, err
	}
	report, _ := m.Data["report"].(string)
	text, _ := m.Data["summary"].(string)
	if report == "" {
		return nil, errors.New("the report is missing")
	}
	start, err := time.Parse(time.RFC3339, value("start"))
	if err != nil {
		return nil, err
	}
	end, err := time.Parse(time.RFC3339, value("end"))
	if err != nil {
		return nil, err
	}
	boundary := "=_" + hex.EncodeToString(id[:]) // "=_" is in no base64, and in no line of ours
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("Date: %s", m.QueuedAt.UTC().Format(time.RFC1123Z))
	line("From: <%s>", from)
	line("To: <%s>", m.To)
	line("Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>", value("domain"), value("submitter"), value("report_id"))
	line("Message-ID: <%s@%s>", m.ID, from.Domain())
	line("TLS-Report-Domain: %s", value("domain"))
	line("TLS-Report-Submitter: %s", value("submitter"))
	line("TLS-Required: No") // RFC 8689 5
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"%s\"", boundary)
	line("")
	line("This is an aggregate TLS report (RFC 8460).")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=us-ascii")
	line("")
	line("How TLS went from %s to the mail servers", value("submitter"))
	line("of %s between %s and %s.", value("domain"), value("start"), value("end"))
	line("The attachment has the details (RFC 8460). Questions: %s", value("contact"))
	line("")
	for l := range strings.Lines(text) {
		line("%s", ascii(strings.TrimRight(l, "\r\n")))
	}
	line("--%s", boundary)
	name := fmt.Sprintf("%s!%s!%d!%d.json.gz", value("submitter"), value("domain"), start.Unix(), end.Unix())
	line("Content-Type: application/tlsrpt+gzip")
	line("Content-Transfer-Encoding: base64")
	line("Content-Disposition: attachment;\r\n filename=\"%s\"", name)
	line("")
	for len(report) > 76 {
		line("%s", report[:76])
		report = report[76:]
	}
	line("%s", report)
	line("--%s--", boundary)
	return b.Bytes(), nil
}

// maxValue bounds a value in a line: the longest are two domain names and a date.
const maxValue = 600

// ascii keeps whatever could end a header or steer a terminal out of a line.
func ascii(s string) string {
	s = s[:min(len(s), maxValue)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' {
			return '_'
		}
		return r
	}, s)
}
