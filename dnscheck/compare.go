package dnscheck

// Change is how one thing differs from an earlier report.
type Change struct {
	What   string `json:"what"` // "verdict", "provider", "behind", "appeared" or "gone"
	Code   string `json:"code,omitempty"`
	About  string `json:"subject,omitempty"`
	Before string `json:"before,omitempty"`
	Now    string `json:"now,omitempty"`
}

// Changes tells what is new since an earlier report on the same domain. What
// could not be learned in one of the two is not called gone or new.
func (report *Report) Changes(before *Report) []Change {
	var out []Change
	differ := func(what, old, now string) {
		if old != now {
			out = append(out, Change{What: what, Before: old, Now: now})
		}
	}
	name := func(p *Product) string {
		if p == nil {
			return ""
		}
		return p.Name
	}
	differ("verdict", string(before.Verdict), string(report.Verdict))
	if before.Verdict != Unknown && report.Verdict != Unknown {
		differ("provider", name(before.Provider), name(report.Provider))
		differ("behind", name(before.Behind), name(report.Behind))
	}
	out = append(out, only("appeared", report, before)...)
	return append(out, only("gone", before, report)...)
}

// only lists the findings of one report that the other doesn't have, if the other
// was able to have them.
func only(what string, one, other *Report) []Change {
	type key struct{ code, subject string }
	have := map[key]bool{}
	blind := false
	for _, f := range other.Findings {
		have[key{f.Code, f.Subject}] = true
		blind = blind || f.State == StateUnknown
	}
	var out []Change
	for _, f := range one.Findings {
		if !have[key{f.Code, f.Subject}] && (!blind || f.State == StateUnknown) {
			out = append(out, Change{What: what, Code: f.Code, About: f.Subject})
		}
	}
	return out
}
