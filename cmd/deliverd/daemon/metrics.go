package daemon

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// metrics counts what happens. Labels are of bounded sets only: kinds are
// configured, providers, causes and states are catalogues. No label holds an
// address, a domain or a tenant.
type metrics struct {
	registry     *prometheus.Registry
	events       *prometheus.CounterVec
	attempts     *prometheus.CounterVec
	firstAttempt *prometheus.HistogramVec
	handedOver   *prometheus.HistogramVec
	attemptTime  *prometheus.HistogramVec
	requests     *prometheus.CounterVec
	unaccounted  *prometheus.GaugeVec
	returned     *prometheus.CounterVec
	tlsSessions  *prometheus.CounterVec
	downgrades   prometheus.Counter
	localFaults  *prometheus.CounterVec
}

// waits are the buckets for how long a person waits: from at once to the days that
// an invite may take.
var waits = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "deliverd_events_total", Help: "Facts recorded by this node, by kind and state."}, []string{"kind", "state"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "deliverd_attempts_total", Help: "Attempts that ended, by the receiving provider, the resulting state and its cause."}, []string{"provider", "state", "cause"}),
		firstAttempt: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "deliverd_enqueue_to_first_attempt_seconds", Help: "From the accept to the start of the first attempt.", Buckets: waits}, []string{"kind"}),
		handedOver: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "deliverd_enqueue_to_handed_over_seconds", Help: "From the accept to the next server's 250.", Buckets: waits}, []string{"kind"}),
		attemptTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "deliverd_attempt_seconds", Help: "How long an attempt took, by resulting state.", Buckets: waits[:15]}, []string{"state"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "deliverd_requests_total", Help: "Requests by door (http, nats), operation and status."}, []string{"door", "operation", "status"}),
	}
	m.unaccounted = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "deliverd_unaccounted_messages", Help: "Accepted messages past expiry and grace without an end, as the last audit found them: lost (in no store), overdue (still waiting). Alarm on anything but 0."}, []string{"how"})
	m.unaccounted.WithLabelValues("lost").Set(0)
	m.unaccounted.WithLabelValues("overdue").Set(0)
	m.returned = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "deliverd_returned_mails_total", Help: "Mails that came to the bounce listener, by what they were."}, []string{"kind"})
	m.tlsSessions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "deliverd_tls_sessions_total", Help: "Connections to mail servers by the policy that applied (tlsa, sts, no-policy-found) and how they met it: ok, or what failed."}, []string{"policy", "result"})
	m.downgrades = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "deliverd_tls_downgrades_total", Help: "Connections without TLS to mail servers that took it within the last month."})
	m.localFaults = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "deliverd_local_faults_total", Help: "Attempts that did not count because of our own side, by the stage: a relay that refuses our password (auth), a key (sign), a resolver (dns). The messages wait. Alarm where it rises."}, []string{"stage"})
	m.registry.MustRegister(m.localFaults, m.tlsSessions, m.downgrades, m.events, m.unaccounted, m.returned, m.attempts, m.firstAttempt, m.handedOver, m.attemptTime, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts one event that this node recorded.
func (m *metrics) observe(e mail.Event) {
	m.events.WithLabelValues(e.Kind, string(e.State)).Inc()
	ev := e.Evidence
	if ev == nil || ev.StartedAt.IsZero() {
		return
	}
	switch e.State {
	case mail.StateAccepted, mail.StateDelayed, mail.StateRefused, mail.StateExpired:
	default:
		return
	}
	provider := ev.Provider
	if provider == "" {
		provider = "other"
	}
	m.attempts.WithLabelValues(provider, string(e.State), string(e.Cause)).Inc()
	m.attemptTime.WithLabelValues(string(e.State)).Observe(ev.Took.Seconds())
	if e.Attempt == 1 {
		m.firstAttempt.WithLabelValues(e.Kind).Observe(positive(ev.StartedAt.Sub(e.QueuedAt)))
	}
	if e.State == mail.StateAccepted {
		m.handedOver.WithLabelValues(e.Kind).Observe(positive(e.At.Sub(e.QueuedAt)))
	}
}

// audited takes over the result of an audit.
func (m *metrics) audited(a queue.Audit) {
	m.unaccounted.WithLabelValues("lost").Set(float64(len(a.Lost)))
	m.unaccounted.WithLabelValues("overdue").Set(float64(len(a.Overdue)))
}

// positive keeps a clock that was set back out of the histograms.
func positive(d time.Duration) float64 { return max(d, 0).Seconds() }

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}
