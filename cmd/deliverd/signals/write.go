package signals

import (
	"fmt"
	"strings"
)

// runbook is where each alert's cure stands.
const runbook = "https://github.com/deliverd/deliverd/blob/main/docs/operate.md"

// Rules are the alerts as a file for Prometheus (rule_files).
func Rules() []byte {
	var b strings.Builder
	b.WriteString("# Written by `make dashboards` from cmd/deliverd/signals. The job is called \"deliverd\".\ngroups:\n  - name: deliverd\n    rules:\n")
	for _, a := range Alerts() {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: %s\n", a.Name, quoted(a.Expr))
		if a.For != "" {
			fmt.Fprintf(&b, "        for: %s\n", a.For)
		}
		fmt.Fprintf(&b, "        labels:\n          severity: %s\n        annotations:\n", a.Severity)
		fmt.Fprintf(&b, "          summary: %s\n          cure: %s\n          runbook_url: %s#%s\n",
			quoted(a.Summary), quoted(a.Cure), runbook, strings.ToLower(a.Name))
	}
	return []byte(b.String())
}

// quoted is a YAML scalar in single quotes, in which nothing but a quote is special.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Reference is docs/metrics.md.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Written by ` + "`make dashboards`" + ` from cmd/deliverd/signals. -->

At ` + "`/metrics`" + `: to requests from the machine itself, and to everybody at ` + "`listen.metrics`" + `. Each node has its own: add
counters and messages up, take the greatest of ages and windows. No label holds an address, a recipient's domain or a tenant. Go's
and the process's own metrics (` + "`go_…`, `process_…`" + `) come with them. What to be woken by is in [operate.md](operate.md#alerts).

| metric | type | labels | what it is |
|---|---|---|---|
`)
	for _, m := range Metrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, strings.Join(m.Labels, ", "), m.Help)
	}
	return []byte(b.String())
}

// Cures are the alerts as a part of docs/operate.md.
func Cures() string {
	var b strings.Builder
	for _, a := range Alerts() {
		fmt.Fprintf(&b, "\n### %s\n\n", a.Name)
		when := "at once"
		if a.For != "" {
			when = "after " + a.For
		}
		fmt.Fprintf(&b, "%s (%s): `%s`\n\n%s\n", a.Severity, when, a.Expr, a.Cure)
	}
	return b.String()
}
