package daemon

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/deliverd/deliverd/cmd/deliverd/signals"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/queue"
)

// gauges are what is looked up at the moment of the scrape.
type gauges struct {
	d     *Daemon
	descs map[string]*prometheus.Desc // by name
}

// sayGauge reports one value, with its labels' values in the order of the list.
type sayGauge func(name string, v float64, labels ...string)

// placeTime bounds a scrape's question for the log's end.
const placeTime = 2 * time.Second

// watchGauges makes them part of what is scraped.
func (d *Daemon) watchGauges() {
	g := gauges{d, make(map[string]*prometheus.Desc)}
	for _, name := range []string{
		"deliverd_waiting_messages", "deliverd_oldest_waiting_seconds", "deliverd_expiring_messages",
		"deliverd_destinations", "deliverd_destination_messages", "deliverd_destination_window", "deliverd_destination_down_seconds",
		"deliverd_data_free_bytes", "deliverd_data_size_bytes", "deliverd_view_behind_events",
		"deliverd_postmaster_mails", "deliverd_postmaster_oldest_seconds",
		"deliverd_dkim_generation_seconds", "deliverd_dkim_held_domains",
	} {
		s := signals.Find(name)
		g.descs[name] = prometheus.NewDesc(s.Name, s.Help, s.Labels, nil)
		d.metrics.made[name] = g
	}
	d.metrics.registry.MustRegister(g)
}

// Describe implements prometheus.Collector.
func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range g.descs {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	say := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(g.descs[name], prometheus.GaugeValue, v, labels...)
	}
	now := time.Now()
	g.waiting(now, say)
	g.disk(say)
	g.behind(say)
	g.postmaster(now, say)
	g.dkim(now, say)
}

func (g gauges) waiting(now time.Time, say sayGauge) {
	sum := g.d.queue.WaitingHere()
	towards(sum.Destinations, now, say)
	for kind, n := range sum.Kinds {
		say("deliverd_waiting_messages", float64(n.Queued), kind, "queued")
		say("deliverd_waiting_messages", float64(n.Delayed), kind, "delayed")
		say("deliverd_waiting_messages", float64(n.Sending), kind, "sending")
		say("deliverd_expiring_messages", float64(n.Expiring), kind)
		if !n.Oldest.IsZero() {
			say("deliverd_oldest_waiting_seconds", positive(now.Sub(n.Oldest)), kind)
		}
	}
}

func (g gauges) disk(say sayGauge) {
	if free, size, err := diskSpace(g.d.config.Data); err == nil {
		say("deliverd_data_free_bytes", float64(free))
		say("deliverd_data_size_bytes", float64(size))
	}
}

// behind is silent where the store does not answer: deliverd_store_writable tells of that.
func (g gauges) behind(say sayGauge) {
	ctx, cancel := context.WithTimeout(context.Background(), placeTime)
	defer cancel()
	place := g.d.view.Place() // before the log's end, which may grow in between
	if last, err := g.d.queue.LastSeq(ctx); err == nil {
		say("deliverd_view_behind_events", float64(last-min(place, last)))
	}
}

// postmaster counts what lies on the desk. Where nobody is named to pass it on to,
// everything waits for somebody to read it, and no age is an alarm.
func (g gauges) postmaster(now time.Time, say sayGauge) {
	files, err := os.ReadDir(g.d.config.dataFile(postmasterKind))
	if err != nil {
		return
	}
	var waiting, sent, undelivered int
	oldest := now
	for _, f := range files { // by name, so the oldest first
		name, ok := strings.CutSuffix(f.Name(), ".eml")
		if !ok {
			continue
		}
		switch _, mark, marked := cutMark(name); {
		case marked && strings.HasPrefix(mark, "msg_"):
			sent++
		case marked:
			undelivered++
		default:
			if at, _, ok := strings.Cut(name, "-"); ok && waiting == 0 {
				if t, err := time.Parse(deskTime, at); err == nil {
					oldest = t
				}
			}
			waiting++
		}
	}
	say("deliverd_postmaster_mails", float64(waiting), "waiting")
	say("deliverd_postmaster_mails", float64(sent), "sent")
	say("deliverd_postmaster_mails", float64(undelivered), "undelivered")
	if g.d.config.Bounces.Postmaster == "" {
		oldest = now
	}
	say("deliverd_postmaster_oldest_seconds", positive(now.Sub(oldest)))
}

// dkim tells of the keys that deliverd keeps itself; what is configured key by key has
// no age that it knows.
func (g gauges) dkim(now time.Time, say sayGauge) {
	settings := g.d.settings.Load()
	if settings == nil {
		return // not open yet
	}
	rotations, err := settings.config.Rotations()
	if err != nil {
		return // tendDKIM says so
	}
	held, oldest := 0, make(map[deliver.Phase]time.Duration)
	for _, r := range rotations {
		if r.Active() == nil {
			held++
		}
		for i := range r.Generations {
			generation := &r.Generations[i]
			if since := since(generation); !since.IsZero() {
				oldest[generation.Phase] = max(oldest[generation.Phase], now.Sub(since))
			}
		}
	}
	say("deliverd_dkim_held_domains", float64(held))
	for phase, age := range oldest {
		say("deliverd_dkim_generation_seconds", positive(age), string(phase))
	}
}

// since is when a generation came into its phase, zero where nobody knows.
func since(g *deliver.Generation) time.Time {
	switch g.Phase {
	case deliver.PhaseNext:
		return g.MadeAt
	case deliver.PhaseActive:
		return g.UsedAt
	}
	return g.UnusedAt
}

// otherDestinations is the label of all that have no name in deliver's catalogue: names
// of hosts would make it a metric without bound.
const otherDestinations = "other"

func towards(all map[string]queue.Destination, now time.Time, say sayGauge) {
	states := map[string]int{queue.DestinationOpen: 0, queue.DestinationLimited: 0, queue.DestinationDown: 0}
	var other queue.Destination
	known := deliver.Destinations()
	for name, d := range all {
		states[d.State]++
		if !slices.Contains(known, name) {
			other.Queued, other.Delayed, other.Sending = other.Queued+d.Queued, other.Delayed+d.Delayed, other.Sending+d.Sending
		}
	}
	all = maps.Clone(all)
	all[otherDestinations] = other
	for _, name := range append(known, otherDestinations) {
		d, waits := all[name]
		if !waits {
			continue
		}
		say("deliverd_destination_messages", float64(d.Queued), name, "queued")
		say("deliverd_destination_messages", float64(d.Delayed), name, "delayed")
		say("deliverd_destination_messages", float64(d.Sending), name, "sending")
		if d.Window > 0 {
			say("deliverd_destination_window", float64(d.Window), name)
		}
		if d.State == queue.DestinationDown {
			say("deliverd_destination_down_seconds", positive(now.Sub(d.Since)), name)
		}
	}
	for state, n := range states {
		say("deliverd_destinations", float64(n), state)
	}
}
