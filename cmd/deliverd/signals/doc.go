// Package signals is what deliverd tells its operator's monitoring: one list of
// metrics, the alerts and the dashboard that read them, and how both become files.
//
//	Metrics ──▶ daemon     registers exactly these, see [Find]
//	        ──▶ docs       docs/metrics.md
//	Alerts  ──▶ Prometheus deploy/monitoring/alerts.yml; with its cure in docs/operate.md
//	panels  ──▶ Grafana    deploy/monitoring/dashboard.json
//
// `make dashboards` writes the files anew, and a test holds them against this list: no
// alert and no panel can name a metric or a label that the daemon does not have, and
// none of the daemon's is without a reader.
//
// It imports nothing of ours and nothing of Prometheus.
package signals
