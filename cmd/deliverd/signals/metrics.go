package signals

import "fmt"

// Type is how a metric behaves.
type Type string

// The types.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Metric is one metric family.
type Metric struct {
	Name   string
	Type   Type
	Help   string
	Labels []string
	// Buckets are the upper bounds of a histogram's, in its unit.
	Buckets []float64
}

// waits are the buckets for how long a person waits, in seconds: from at once to the
// days that an invite may take.
var waits = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}

// attemptWaits end where an attempt does: no stage of one may take longer.
const attemptWaits = 15

// Metrics are all metrics of the daemon's own, in the order in which they are told.
// Labels are of bounded sets only: kinds are configured, providers, causes and states
// are catalogues. No label holds an address, a recipient's domain or a tenant.
func Metrics() []Metric {
	return []Metric{
		{Name: "deliverd_build_info", Type: Gauge, Labels: []string{"version"}, Help: "Always 1; the label says which version runs."},

		{Name: "deliverd_requests_total", Type: Counter, Labels: []string{"door", "operation", "status"}, Help: "Requests by door (http, nats), operation and status."},
		{Name: "deliverd_events_total", Type: Counter, Labels: []string{"kind", "state"}, Help: "Facts recorded by this node, by kind and state."},
		{Name: "deliverd_attempts_total", Type: Counter, Labels: []string{"provider", "state", "cause"}, Help: "Attempts that ended, by the receiving provider, the resulting state and its cause."},
		{Name: "deliverd_attempt_seconds", Type: Histogram, Labels: []string{"state"}, Buckets: waits[:attemptWaits], Help: "How long an attempt took, by resulting state."},
		{Name: "deliverd_enqueue_to_first_attempt_seconds", Type: Histogram, Labels: []string{"kind"}, Buckets: waits[:], Help: "From the accept to the start of the first attempt."},
		{Name: "deliverd_enqueue_to_handed_over_seconds", Type: Histogram, Labels: []string{"kind"}, Buckets: waits[:], Help: "From the accept to the next server's 250."},
		{Name: "deliverd_local_faults_total", Type: Counter, Labels: []string{"stage"}, Help: "Attempts that did not count because of our own side, by the stage: a relay that refuses our password (auth), a key (sign), a resolver (dns). The messages wait."},

		{Name: "deliverd_waiting_messages", Type: Gauge, Labels: []string{"kind", "state"}, Help: "Messages that wait or are being sent, by kind and state."},
		{Name: "deliverd_oldest_waiting_seconds", Type: Gauge, Labels: []string{"kind"}, Help: "Age of the oldest message that has not ended, by kind."},
		{Name: "deliverd_expiring_messages", Type: Gauge, Labels: []string{"kind"}, Help: "Waiting messages that expire within five minutes, by kind."},
		{Name: "deliverd_unaccounted_messages", Type: Gauge, Labels: []string{"how"}, Help: "Accepted messages past expiry and grace without an end, as the last audit found them: lost (in no store), overdue (still waiting). Alarm on anything but 0."},

		{Name: "deliverd_destinations", Type: Gauge, Labels: []string{"state"}, Help: "Destinations that mail waits for or that are down, by state (open, limited, down)."},
		{Name: "deliverd_destination_messages", Type: Gauge, Labels: []string{"destination", "state"}, Help: "Messages of this node, waiting or being sent, by destination: the big providers, and all others together."},
		{Name: "deliverd_destination_window", Type: Gauge, Labels: []string{"destination"}, Help: "Attempts at once that a big provider is given, over all nodes."},
		{Name: "deliverd_destination_down_seconds", Type: Gauge, Labels: []string{"destination"}, Help: "For how long a big provider has taken no connection; it is not there while it does."},

		{Name: "deliverd_tls_sessions_total", Type: Counter, Labels: []string{"policy", "result"}, Help: "Connections to mail servers by the policy that applied (tlsa, sts, no-policy-found) and how they met it: ok, or what failed."},
		{Name: "deliverd_tls_downgrades_total", Type: Counter, Help: "Connections without TLS to mail servers that took it within the last month."},

		{Name: "deliverd_store_writable", Type: Gauge, Help: "1 while the store takes writes, 0 while it does not and new mail is refused."},
		{Name: "deliverd_data_free_bytes", Type: Gauge, Help: "Free space where the data directory is, as far as deliverd may use it."},
		{Name: "deliverd_data_size_bytes", Type: Gauge, Help: "Size of the file system where the data directory is."},
		{Name: "deliverd_view_behind_events", Type: Gauge, Help: "Events that the log has and the read model not yet: by so many are pages and stories out of date."},

		{Name: "deliverd_returned_mails_total", Type: Counter, Labels: []string{"kind"}, Help: "Mails that came to the bounce listener, by what they were; failed ones could not be recorded and wait at their senders."},
		{Name: "deliverd_bounce_listener_up", Type: Gauge, Help: "1 while the bounce listener takes mail, 0 after it failed; it is not there where none is configured."},
		{Name: "deliverd_postmaster_mails", Type: Gauge, Labels: []string{"state"}, Help: "Mails to postmaster and abuse that lie in the data directory: waiting to be passed on or read, sent and not handed over yet, undelivered."},
		{Name: "deliverd_postmaster_oldest_seconds", Type: Gauge, Help: "Age of the oldest mail to postmaster or abuse that waits to be passed on; 0 for none, or where nobody is named to pass it on to."},

		{Name: "deliverd_dkim_generation_seconds", Type: Gauge, Labels: []string{"phase"}, Help: "Age of the oldest generation of DKIM keys in a phase (next, active, old, revoke): since it was made, signs, or ceased to. Only of keys that deliverd keeps itself."},
		{Name: "deliverd_dkim_held_domains", Type: Gauge, Help: "Domains of ours without a key that signs: their mail is held."},
		{Name: "deliverd_certificate_expiry_timestamp_seconds", Type: Gauge, Help: "When the bounce listener's certificate ends, as seconds since 1970."},
	}
}

// Find returns the metric of a name. It panics for one that is not in the list: a
// daemon that counts what nobody is told of is wrong from the first line on.
func Find(name string) Metric {
	for _, m := range Metrics() {
		if m.Name == name {
			return m
		}
	}
	panic(fmt.Sprintf("metric %q is not in the list", name))
}
