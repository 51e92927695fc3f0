package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Report is the document that RFC 8460 4 describes.
type Report struct {
	Organization string    `json:"organization-name"`
	Range        DateRange `json:"date-range"`
	Contact      string    `json:"contact-info"`
	ID           string    `json:"report-id"`
	Policies     []Result  `json:"policies"`
}

// DateRange is the day that a report is about.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// Result is one policy, and how sessions did under it.
type Result struct {
	Policy   ReportPolicy `json:"policy"`
	Summary  Summary      `json:"summary"`
	Failures []Details    `json:"failure-details,omitempty"`
}

// ReportPolicy quotes a policy.
type ReportPolicy struct {
	Type    string   `json:"policy-type"`
	Strings []string `json:"policy-string,omitempty"`
	Domain  string   `json:"policy-domain"`
	MX      []string `json:"mx-host,omitempty"`
}

// Summary counts sessions.
type Summary struct {
	Succeeded int `json:"total-successful-session-count"`
	Failed    int `json:"total-failure-session-count"`
}

// Details are failures of one sort at one server.
type Details struct {
	Type       string `json:"result-type"`
	MXHost     string `json:"receiving-mx-hostname,omitempty"`
	Address    string `json:"receiving-ip,omitempty"`
	Count      int    `json:"failed-session-count"`
	Additional string `json:"additional-information,omitempty"`
	Reason     string `json:"failure-reason-code,omitempty"`
}

// Merge makes the one tally of a day and domain of all nodes'.
func Merge(tallies []Tally) Tally {
	var whole Tally
	for i, t := range tallies {
		if i == 0 {
			whole.Day, whole.Domain = t.Day, t.Domain
		}
		for _, p := range t.Policies {
			into := whole.policy(PolicyTally{Type: p.Type, Strings: p.Strings, MX: p.MX})
			into.Succeeded += p.Succeeded
			into.Failed += p.Failed
			for _, f := range p.Failures {
				into.count(f)
			}
		}
	}
	return whole
}

// from makes the report of a day and domain.
func (r *Reporter) from(t Tally) (Report, error) {
	start, err := time.Parse(time.DateOnly, t.Day)
	if err != nil {
		return Report{}, err
	}
	report := Report{
		Organization: r.Organization, Contact: r.Contact, ID: fmt.Sprintf("%s.%s@%s", t.Day, t.Domain, r.Submitter),
		Range: DateRange{Start: start, End: start.Add(24*time.Hour - time.Second)}, Policies: []Result{},
	}
	for _, p := range t.Policies {
		result := Result{
			Policy:  ReportPolicy{Type: p.Type, Strings: p.Strings, Domain: t.Domain, MX: p.MX},
			Summary: Summary{p.Succeeded, p.Failed},
		}
		for _, f := range p.Failures {
			d := Details{Type: resultType(f.What), MXHost: f.Host, Address: f.Address, Count: f.Count, Additional: f.Reason}
			if d.Type != string(f.What) {
				d.Reason = string(f.What)
			}
			result.Failures = append(result.Failures, d)
		}
		report.Policies = append(report.Policies, result)
	}
	return report, nil
}

// resultType is what RFC 8460 4.3 calls a failure; for what it has no word for, the
// one that it has for that, and ours goes into the reason code.
func resultType(f mail.TLSFailure) string {
	switch f {
	case mail.TLSHandshake, mail.TLSAMismatch, mail.TLSMXMismatch:
		return string(mail.TLSInvalid)
	}
	return string(f)
}

// Compressed is the report as it is sent (RFC 8460 5.2): the same bytes for the same
// report.
func (r *Report) Compressed() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
