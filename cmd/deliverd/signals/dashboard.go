package signals

import "encoding/json"

// panel is one graph of the dashboard.
type panel struct {
	title string
	unit  string // Grafana's
	lines []line
}

// line is one query of a panel.
type line struct{ expr, legend string }

// row is panels that answer one question.
type row struct {
	title  string
	panels []panel
}

// rows are the dashboard, the operator's first question first.
func rows() []row {
	one := func(title, unit, expr, legend string) panel { return panel{title, unit, []line{{expr, legend}}} }
	return []row{
		{"Is anything lost, or about to be?", []panel{
			one("Accepted, and without an end", "short", `max by (how) (deliverd_unaccounted_messages)`, "{{how}}"),
			one("The store takes writes", "bool", `min by (instance) (deliverd_store_writable)`, "{{instance}}"),
			{"Disk", "bytes", []line{{`deliverd_data_free_bytes`, "free, {{instance}}"}, {`deliverd_data_size_bytes`, "size, {{instance}}"}}},
			one("Our own faults", "ops", `sum by (stage) (rate(deliverd_local_faults_total[5m]))`, "{{stage}}"),
		}},
		{"Does mail arrive in time?", []panel{
			{"From the accept to the first attempt, a PIN", "s", []line{
				{`histogram_quantile(0.5, sum by (le) (rate(deliverd_enqueue_to_first_attempt_seconds_bucket{kind="pin"}[5m])))`, "half"},
				{`histogram_quantile(0.99, sum by (le) (rate(deliverd_enqueue_to_first_attempt_seconds_bucket{kind="pin"}[5m])))`, "99 %"}}},
			one("From the accept to the handing over, 9 of 10", "s", `histogram_quantile(0.9, sum by (kind, le) (rate(deliverd_enqueue_to_handed_over_seconds_bucket[15m])))`, "{{kind}}"),
			one("What happens, by state", "ops", `sum by (state) (rate(deliverd_events_total[5m]))`, "{{state}}"),
			one("An attempt takes, 9 of 10", "s", `histogram_quantile(0.9, sum by (state, le) (rate(deliverd_attempt_seconds_bucket[5m])))`, "{{state}}"),
		}},
		{"What waits, and for whom?", []panel{
			one("Waiting, by kind", "short", `sum by (kind) (deliverd_waiting_messages)`, "{{kind}}"),
			one("The oldest, by kind", "s", `max by (kind) (deliverd_oldest_waiting_seconds)`, "{{kind}}"),
			one("Expiring within five minutes", "short", `sum by (kind) (deliverd_expiring_messages)`, "{{kind}}"),
			one("Waiting, by destination", "short", `sum by (destination) (deliverd_destination_messages)`, "{{destination}}"),
			one("Destinations, by state", "short", `sum by (state) (deliverd_destinations)`, "{{state}}"),
			{"Windows, and for how long one is down", "short", []line{
				{`max by (destination) (deliverd_destination_window)`, "{{destination}}"},
				{`max by (destination) (deliverd_destination_down_seconds)`, "{{destination}}, seconds down"}}},
		}},
		{"What do the receivers say?", []panel{
			one("Attempts, by provider and state", "ops", `sum by (provider, state) (rate(deliverd_attempts_total[5m]))`, "{{provider}} {{state}}"),
			one("What keeps mail back, by cause", "ops", `sum by (cause) (rate(deliverd_attempts_total{state!="accepted"}[5m]))`, "{{cause}}"),
			one("Connections, by TLS policy and result", "ops", `sum by (policy, result) (rate(deliverd_tls_sessions_total[15m]))`, "{{policy}} {{result}}"),
			one("Without TLS where there was some", "ops", `sum(rate(deliverd_tls_downgrades_total[15m]))`, "downgrades"),
		}},
		{"What comes back?", []panel{
			one("Returned mail, by kind", "ops", `sum by (kind) (rate(deliverd_returned_mails_total[15m]))`, "{{kind}}"),
			one("The listener takes mail", "bool", `min by (instance) (deliverd_bounce_listener_up)`, "{{instance}}"),
			one("Mail to postmaster", "short", `sum by (state) (deliverd_postmaster_mails)`, "{{state}}"),
			one("… and how long it has waited", "s", `max(deliverd_postmaster_oldest_seconds)`, "oldest"),
		}},
		{"Keys", []panel{
			one("DKIM keys that deliverd keeps, by phase", "s", `max by (phase) (deliverd_dkim_generation_seconds)`, "{{phase}}"),
			one("Domains whose mail is held", "short", `max(deliverd_dkim_held_domains)`, "held"),
			one("The certificate ends in", "s", `min(deliverd_certificate_expiry_timestamp_seconds - time())`, "bounce listener"),
		}},
		{"The program", []panel{
			one("Requests, by door and status", "ops", `sum by (door, operation, status) (rate(deliverd_requests_total[5m]))`, "{{door}} {{operation}} {{status}}"),
			one("Versions", "short", `sum by (version) (deliverd_build_info)`, "{{version}}"),
			one("Events that pages don't have yet", "short", `max by (instance) (deliverd_view_behind_events)`, "{{instance}}"),
			one("Processor", "percentunit", `rate(process_cpu_seconds_total{job="deliverd"}[5m])`, "{{instance}}"),
			one("Memory", "bytes", `process_resident_memory_bytes{job="deliverd"}`, "{{instance}}"),
			one("Open files", "short", `process_open_fds{job="deliverd"}`, "{{instance}}"),
		}},
	}
}

// The dashboard's grid, in Grafana's units: 24 make a line.
const (
	panelWidth  = 8
	panelHeight = 7
	lineWidth   = 24
)

// Dashboard is the dashboard as a file that Grafana imports.
func Dashboard() []byte {
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${source}"}
	var panels []object
	id, y := 0, 0
	place := func(x, w, h int) object { return object{"x": x, "y": y, "w": w, "h": h} }
	for _, r := range rows() {
		id++
		panels = append(panels, object{"id": id, "type": "row", "title": r.title, "collapsed": false, "panels": []object{}, "gridPos": place(0, lineWidth, 1)})
		y++
		x := 0
		for _, p := range r.panels {
			if x+panelWidth > lineWidth {
				x, y = 0, y+panelHeight
			}
			id++
			var targets []object
			for i, l := range p.lines {
				targets = append(targets, object{"refId": string(rune('A' + i)), "expr": l.expr, "legendFormat": l.legend, "datasource": source})
			}
			panels = append(panels, object{
				"id": id, "type": "timeseries", "title": p.title, "datasource": source, "targets": targets, "gridPos": place(x, panelWidth, panelHeight),
				"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0}, "overrides": []object{}},
			})
			x += panelWidth
		}
		y += panelHeight
	}
	text, err := json.MarshalIndent(object{
		"uid": "deliverd", "title": "deliverd", "tags": []string{"deliverd", "mail"}, "timezone": "utc", "schemaVersion": 39, "refresh": "30s",
		"time": object{"from": "now-6h", "to": "now"},
		"templating": object{"list": []object{{
			"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus",
		}}},
		"panels": panels,
	}, "", "  ")
	if err != nil {
		panic("the dashboard can't be written: " + err.Error()) // strings and numbers only
	}
	return append(text, '\n')
}
