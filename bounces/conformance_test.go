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
