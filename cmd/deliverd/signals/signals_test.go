package signals

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files anew")

// beginCures and endCures are around what Cures writes in docs/operate.md.
const (
	beginCures = "<!-- alerts: written by `make dashboards` from cmd/deliverd/signals -->\n"
	endCures   = "\n<!-- end of alerts -->\n"
)

// TestFiles holds the files of the repository against the list that they are made of.
func TestFiles(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	operate, err := os.ReadFile(filepath.Join(root, "docs", "operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(operate, []byte(beginCures))
	_, after, ok2 := bytes.Cut(rest, []byte(endCures))
	if !ok || !ok2 {
		t.Fatalf("docs/operate.md has no place for the alerts, between %q and %q", beginCures, endCures)
	}
	for path, want := range map[string][]byte{
		"deploy/monitoring/alerts.yml":     Rules(),
		"deploy/monitoring/dashboard.json": Dashboard(),
		"docs/metrics.md":                  Reference(),
		"docs/operate.md":                  slices.Concat(before, []byte(beginCures+Cures()+endCures), after),
	} {
		path := filepath.Join(root, filepath.FromSlash(path))
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the list makes (%v): `make dashboards` writes it anew", path, err)
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b(?:deliverd|process|go)_[a-z_]+\b|\bup\b`)
	selector   = regexp.MustCompile(`\b(deliverd_[a-z_]+)\{([^}]*)\}`)
	aggregate  = regexp.MustCompile(`\bby \(([a-z, ]*)\) \(([^()]*|[^()]*\([^()]*\))\)`)
	labelName  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
)

// foreign are what others measure: the process, and Prometheus itself.
var foreign = [...]string{"up", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}

// queries are all expressions, by where they stand.
func queries() map[string][]string {
	q := map[string][]string{}
	for _, a := range Alerts() {
		q[a.Name] = append(q[a.Name], a.Expr)
	}
	for _, r := range rows() {
		for _, p := range r.panels {
			for _, l := range p.lines {
				q[p.title] = append(q[p.title], l.expr)
			}
		}
	}
	return q
}

// family is the metric that a name in an expression belongs to.
func family(name string) (Metric, bool) {
	for _, m := range Metrics() {
		if m.Name == name && m.Type != Histogram {
			return m, true
		}
		if m.Type == Histogram && slices.Contains([]string{m.Name + "_bucket", m.Name + "_sum", m.Name + "_count"}, name) {
			return m, true
		}
	}
	return Metric{}, false
}

// TestQueries: alerts and panels name metrics and labels that exist, and every metric
// is read by one of them.
func TestQueries(t *testing.T) {
	read := map[string]bool{}
	// Prometheus itself adds what it scraped; le is a histogram's.
	has := func(m Metric, label string) bool {
		return slices.Contains(m.Labels, label) || label == "instance" || label == "job" || label == "le" && m.Type == Histogram
	}
	for where, exprs := range queries() {
		for _, expr := range exprs {
			for _, name := range metricName.FindAllString(expr, -1) {
				m, ok := family(name)
				if !ok && !slices.Contains(foreign[:], name) {
					t.Errorf("%s: there is no metric %s", where, name)
				}
				read[m.Name] = true
			}
			for _, s := range selector.FindAllStringSubmatch(expr, -1) {
				m, _ := family(s[1])
				for _, l := range labelName.FindAllStringSubmatch(s[2], -1) {
					if !has(m, l[1]) {
						t.Errorf("%s: %s has no label %s", where, s[1], l[1])
					}
				}
			}
			for _, s := range aggregate.FindAllStringSubmatch(expr, -1) {
				m, ok := family(metricName.FindString(s[2]))
				for label := range strings.SplitSeq(s[1], ", ") {
					if ok && !has(m, label) {
						t.Errorf("%s: %s has no label %s", where, m.Name, label)
					}
				}
			}
		}
	}
	for _, m := range Metrics() {
		if !read[m.Name] {
			t.Errorf("no alert and no panel reads %s", m.Name)
		}
	}
}

// TestDescribed: whoever meets a metric or an alert finds out what it is and what to do.
func TestDescribed(t *testing.T) {
	seen := map[string]bool{}
	name := regexp.MustCompile(`^deliverd_[a-z]+(_[a-z]+)*$`)
	for _, m := range Metrics() {
		if !name.MatchString(m.Name) || seen[m.Name] || !strings.HasSuffix(m.Help, ".") || strings.Contains(m.Help, "|") {
			t.Errorf("%+v: a name of its own and a sentence are needed", m)
		}
		if (m.Type == Counter) != strings.HasSuffix(m.Name, "_total") || (m.Type == Histogram) != (m.Buckets != nil) {
			t.Errorf("%s is not named or made as a %s", m.Name, m.Type)
		}
		seen[m.Name] = true
	}
	for _, a := range Alerts() {
		if seen[a.Name] || a.Summary == "" || !strings.HasSuffix(a.Cure, ".") || a.Severity != Page && a.Severity != Ticket {
			t.Errorf("%s needs a name of its own, a summary, a severity and a cure", a.Name)
		}
		seen[a.Name] = true
	}
	if !json.Valid(Dashboard()) {
		t.Error("the dashboard is no JSON")
	}
}

// TestPromtool lets Prometheus' own tool judge the rules, and whether they would ring:
// testdata/rings.yml has series for some.
func TestPromtool(t *testing.T) {
	tool := promtool(t)
	for _, args := range [][]string{
		{"check", "rules", filepath.Join("..", "..", "..", "deploy", "monitoring", "alerts.yml")},
		{"test", "rules", filepath.Join("testdata", "rings.yml")},
	} {
		if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func promtool(t *testing.T) string {
	t.Helper()
	unpacked, err := filepath.Abs(filepath.Join("..", "..", "..", "bin", "promtool"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(unpacked); err == nil {
		return unpacked
	}
	tool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("this needs promtool: make deps")
		}
		t.Skip("for this: make deps, which unpacks promtool into bin/")
	}
	return tool
}
