package daemon

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/deliverd/deliverd/cmd/deliverd/signals"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// metrics counts what happens, under the names of the list in package signals.
type metrics struct {
	registry *prometheus.Registry
	made     map[string]prometheus.Collector // by name

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
	writable     prometheus.Gauge
	// listening and certificate are there once a bounce listener is.
	listening, certificate *prometheus.GaugeVec
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), made: make(map[string]prometheus.Collector)}
	m.events = m.counter("deliverd_events_total")
	m.attempts = m.counter("deliverd_attempts_total")
	m.firstAttempt = m.histogram("deliverd_enqueue_to_first_attempt_seconds")
	m.handedOver = m.histogram("deliverd_enqueue_to_handed_over_seconds")
	m.attemptTime = m.histogram("deliverd_attempt_seconds")
	m.requests = m.counter("deliverd_requests_total")
	m.unaccounted = m.gauge("deliverd_unaccounted_messages")
	m.audited(queue.Audit{})
	m.returned = m.counter("deliverd_returned_mails_total")
	m.tlsSessions = m.counter("deliverd_tls_sessions_total")
	m.downgrades = m.counter("deliverd_tls_downgrades_total").WithLabelValues()
	m.localFaults = m.counter("deliverd_local_faults_total")
	m.writable = m.gauge("deliverd_store_writable").WithLabelValues()
	m.writable.Set(1)
	m.listening = m.gauge("deliverd_bounce_listener_up")
	m.certificate = m.gauge("deliverd_certificate_expiry_timestamp_seconds")
	m.gauge("deliverd_build_info").WithLabelValues(version).Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) counter(name string) *prometheus.CounterVec {
	s := signals.Find(name)
	return register(m, s, prometheus.NewCounterVec(prometheus.CounterOpts{Name: s.Name, Help: s.Help}, s.Labels))
}

func (m *metrics) gauge(name string) *prometheus.GaugeVec {
	s := signals.Find(name)
	return register(m, s, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: s.Name, Help: s.Help}, s.Labels))
}

func (m *metrics) histogram(name string) *prometheus.HistogramVec {
	s := signals.Find(name)
	return register(m, s, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: s.Name, Help: s.Help, Buckets: s.Buckets}, s.Labels))
}

// register makes a metric part of what is scraped.
func register[C prometheus.Collector](m *metrics, s signals.Metric, c C) C {
	m.registry.MustRegister(c)
	m.made[s.Name] = c
	return c
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
