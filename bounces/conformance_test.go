package bounces

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

// The conformance tests run against labelled replies and mails that are not part of
// this repository: DELIVERD_SHARED names the directory that has data/bounces. They
// are skipped without it, and fail without it under CI=true.

// sharedFile reads a file of data/bounces.
func sharedFile(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("DELIVERD_SHARED")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("DELIVERD_SHARED is not set: the labelled replies and mails are missing")
		}
		t.Skip("set DELIVERD_SHARED to the directory with data/bounces to run this")
	}
	b, err := os.ReadFile(filepath.Join(dir, "data", "bounces", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readJSONL decodes one T a line.
func readJSONL[T any](t *testing.T, b []byte) []T {
	t.Helper()
	var all []T
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// count is a fraction.
type count struct{ n, of int }

func (c *count) add(ok bool) {
	c.of++
	if ok {
		c.n++
	}
}

func (c count) percent() float64 { return 100 * float64(c.n) / float64(max(c.of, 1)) }

func (c count) String() string { return fmt.Sprintf("%d/%d = %.1f %%", c.n, c.of, c.percent()) }

// atLeast fails the test where a figure is under its aim.
func atLeast(t *testing.T, name string, c count, aim float64) {
	t.Helper()
	t.Logf("%-32s %s (aim %.0f %%)", name, c, aim)
	if c.percent() < aim {
		t.Errorf("%s: %s, under %.0f %%", name, c, aim)
	}
}

type labelledReply struct {
	Reply, Code, Class, Hardness, Decision, Source, Wording string
	Also                                                    []string
}

// about reports whether the label or one that is also acceptable is a cause on which
// an address may be suppressed.
func about(labels []string) bool {
	return slices.ContainsFunc(labels, func(l string) bool { return aboutAddress(mail.Cause(l)) })
}

func TestConformanceReplies(t *testing.T) {
	t.Parallel()
	var exact, acceptable, hardness, suppressed, unknown count
	byCause := map[string]*[2]count{}
	for _, l := range readJSONL[labelledReply](t, sharedFile(t, "replies.jsonl")) {
		reply, _ := ParseReply(l.Reply)
		v := Classify(Said{Reply: reply})
		labels := append([]string{l.Class}, l.Also...)
		same, fits := string(v.Cause) == l.Class, slices.Contains(labels, string(v.Cause))
		exact.add(same)
		acceptable.add(fits)
		unknown.add(v.Cause == mail.CauseUnknown)
		hardness.add(v.Hard == (l.Hardness == "hard"))
		if byCause[l.Class] == nil {
			byCause[l.Class] = &[2]count{}
		}
		byCause[l.Class][0].add(same)
		byCause[l.Class][1].add(fits)
		// Law 10 keeps 5.7.x out of what is due.
		if l.Decision == "suppress" && l.Code != "" && !strings.Contains(l.Reply, "5.7.") {
			suppressed.add(v.Suppress)
		}
		if v.Suppress && (!about(labels) || strings.HasPrefix(l.Code, "4")) {
			t.Errorf("wrongly suppressed by rule %s: %s", v.Rule, l.Reply)
		}
	}
	for _, cause := range slices.Sorted(maps.Keys(byCause)) {
		t.Logf("%-18s exact %-18s acceptable %s", cause, byCause[cause][0], byCause[cause][1])
	}
	atLeast(t, "cause exact", exact, 85)
	atLeast(t, "cause exact or acceptable", acceptable, 95)
	atLeast(t, "hardness", hardness, 95)
	atLeast(t, "suppressed when due", suppressed, 95)
	t.Logf("%-32s %s (aim: at most 5 %%)", "without a cause", unknown)
	if unknown.percent() > 5 {
		t.Errorf("without a cause: %s", unknown)
	}
}

type labelledMail struct {
	File       string
	Kind       string
	KindAlso   []string `json:"kind_also"`
	Class      string
	Classes    []string
	ClassAlso  []string `json:"class_also"`
	Recipients []struct{ Addr, Orig string }
	Source     string `json:"recipients_source"`
	Repository string `json:"source_repo"`
}

// kindLabel is a kind in the words of the labels.
func kindLabel(r Returned) string {
	switch {
	case r.Kind == KindNotABounce:
		return "ordinary"
	case r.Kind == KindReport && len(r.Reports) > 0:
		return "delivered"
	}
	return string(r.Kind)
}

// recipientsMatch reports whether the addresses found are the labelled ones, each in
// one of its forms.
func (l labelledMail) recipientsMatch(reports []Report) bool {
	found := map[string]bool{}
	for _, r := range reports {
		if r.Recipient != "" {
			found[strings.ToLower(r.Recipient)] = true
		}
	}
	labelled := map[string]bool{}
	for _, y := range l.Recipients {
		a, o := strings.ToLower(y.Addr), strings.ToLower(y.Orig)
		labelled[a], labelled[o] = true, true
		if !found[a] && !found[o] {
			return false
		}
	}
	for a := range found {
		if !labelled[a] {
			return false
		}
	}
	return len(found) > 0
}

// labelledRecipients are the sources of recipient labels that are sure.
var labelledRecipients = []string{"dsn", "construction", "x-failed-recipients", "peers-agree", "mailman-table"}

func TestConformanceMails(t *testing.T) {
	t.Parallel()
	var kind, detected, delays, exact, acceptable, recipients, suppressed count
	bySource := map[string]*count{}
	byCause := map[string]*[2]count{}
	for _, l := range readJSONL[labelledMail](t, sharedFile(t, "manifest.jsonl")) {
		r := Parse(sharedFile(t, l.File))
		got := kindLabel(r)
		right := got == l.Kind || slices.Contains(l.KindAlso, got)
		kind.add(right)
		if bySource[l.Repository] == nil {
			bySource[l.Repository] = &count{}
		}
		isBounce := l.Kind == "bounce" || l.Kind == "delay"
		if !isBounce {
			bySource[l.Repository].add(right)
			if r.Kind == KindBounce || r.Kind == KindDelay {
				t.Errorf("%s: %s taken for a %s", l.File, l.Kind, got)
			}
			for _, x := range r.Reports {
				if x.Verdict.Suppress {
					t.Errorf("%s: suppressed on %s", l.File, l.Kind)
				}
			}
			continue
		}
		detected.add(r.Kind == KindBounce || r.Kind == KindDelay)
		if l.Kind == "delay" {
			delays.add(r.Kind == KindDelay)
		}
		if byCause[l.Class] == nil {
			byCause[l.Class] = &[2]count{}
		}
		v := Verdict{Cause: mail.CauseUnknown}
		if len(r.Reports) > 0 {
			v = r.Reports[0].Verdict
		}
		labels := append([]string{l.Class}, l.ClassAlso...)
		if len(l.Classes) > 1 {
			labels = append(labels, l.Classes...)
		}
		same, fits := string(v.Cause) == l.Class, slices.Contains(labels, string(v.Cause))
		exact.add(same)
		acceptable.add(fits)
		bySource[l.Repository].add(right && fits)
		byCause[l.Class][0].add(same)
		byCause[l.Class][1].add(fits)
		if slices.Contains(labelledRecipients, l.Source) && len(l.Recipients) > 0 {
			recipients.add(l.recipientsMatch(r.Reports))
		}
		if len(l.Classes) != 1 {
			continue
		}
		if v.Suppress && (l.Kind == "delay" || !about(labels)) {
			t.Errorf("%s: wrongly suppressed by rule %s", l.File, v.Rule)
		}
		// Those with a 5.7.x, which law 10 forbids, count as missed.
		if l.Kind == "bounce" && (r.Kind == KindBounce || r.Kind == KindDelay) && onlyAbout(labels) {
			suppressed.add(v.Suppress)
		}
	}
	for _, cause := range slices.Sorted(maps.Keys(byCause)) {
		t.Logf("%-18s exact %-18s acceptable %s", cause, byCause[cause][0], byCause[cause][1])
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		t.Logf("%-36s kind and cause %s", source, bySource[source])
	}
	atLeast(t, "kind", kind, 99)
	atLeast(t, "bounce or delay detected", detected, 99)
	atLeast(t, "delay told from failure", delays, 99)
	atLeast(t, "cause exact", exact, 85)
	atLeast(t, "cause exact or acceptable", acceptable, 95)
	atLeast(t, "recipients exact", recipients, 99)
	atLeast(t, "suppressed when due", suppressed, 97)
}

// onlyAbout reports whether all labels are causes on which an address may be
// suppressed, an unknown one aside.
func onlyAbout(labels []string) bool {
	if !aboutAddress(mail.Cause(labels[0])) {
		return false
	}
	for _, l := range labels {
		if !aboutAddress(mail.Cause(l)) && l != string(mail.CauseUnknown) {
			return false
		}
	}
	return true
}

// BenchmarkConformanceMails reads all labelled mails in turn.
func BenchmarkConformanceMails(b *testing.B) {
	dir := os.Getenv("DELIVERD_SHARED")
	if dir == "" {
		b.Skip("set DELIVERD_SHARED to the directory with data/bounces to run this")
	}
	names, err := filepath.Glob(filepath.Join(dir, "data", "bounces", "mails", "*.eml"))
	if err != nil {
		b.Fatal(err)
	}
	var mails [][]byte
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		mails = append(mails, raw)
	}
	Parse(mails[0])
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		Parse(mails[n%len(mails)])
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "mails/s")
}
