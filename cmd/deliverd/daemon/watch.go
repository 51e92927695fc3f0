package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/queue"
)

// auditEvery is how often what was accepted is compared with what ended (law 2).
const auditEvery = time.Minute

// auditLoop raises the alarm when a message neither ended nor waits. It repeats it
// for as long as that is so: an alarm that is said once is missed once.
func (d *Daemon) auditLoop(ctx context.Context) {
	var told string // what the service log was told last: there, only what is new counts
	for sleep(ctx, auditEvery) {
		a, err := d.queue.Audit(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			d.log.Warn("could not compare what was accepted with what ended", "error", err)
			continue
		}
		d.metrics.audited(a)
		if len(a.Lost) > 0 {
			d.log.Error("accepted messages are in no store and have no end: restore from a replica or the backup, and tell the people concerned",
				"messages", a.Lost)
		}
		if len(a.Overdue) > 0 {
			d.log.Error("accepted messages are past their expiry and still open", "messages", a.Overdue)
		}
		if a.LogHoles > 0 {
			d.log.Error("events are missing from the middle of the log", "missing", a.LogHoles)
		}
		if now := unaccounted(&a); now != told {
			d.notice("alarm.unaccounted", "", cmp.Or(now, "every accepted message is accounted for again"))
			told = now
		}
	}
}

// unaccounted says what an audit found that law 2 forbids, "" for nothing.
func unaccounted(a *queue.Audit) string {
	if len(a.Lost) == 0 && len(a.Overdue) == 0 && a.LogHoles == 0 {
		return ""
	}
	const most = 10
	return fmt.Sprintf("in no store and without an end: %d %v; past their expiry and open: %d %v; events missing from the log: %d",
		len(a.Lost), a.Lost[:min(len(a.Lost), most)], len(a.Overdue), a.Overdue[:min(len(a.Overdue), most)], a.LogHoles)
}

const (
	healthEvery = 2 * time.Second
	// sickFor is how long the store may fail before the embedded server is restarted:
	// longer than a slow disk's worst moment.
	sickFor = 10 * time.Second
	// roomToRestart is the free space below which a restart would only meet the full
	// disk again.
	roomToRestart = 256 << 20
)

// watchStore notices a store that takes no writes. After a full disk a stream stays
// closed although there is space again, and only a restart of the server opens it;
// with the embedded one that is ours to do, and every acknowledged message is there
// afterwards.
func (d *Daemon) watchStore(ctx context.Context) {
	d.tendStore(ctx, healthEvery, sickFor, roomToRestart)
}

// tendStore looks after the store every so often, and restarts it when it has been
// sick for so long and there is room.
func (d *Daemon) tendStore(ctx context.Context, every, sick time.Duration, room uint64) {
	var sickSince time.Time
	for sleep(ctx, every) {
		err := d.queue.Healthy(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if !sickSince.IsZero() {
				d.notice("store.well", "", "it takes writes again, after "+time.Since(sickSince).Round(time.Second).String())
			}
			sickSince = time.Time{}
			continue
		}
		if sickSince.IsZero() {
			sickSince = time.Now()
			d.log.Error("the store takes no writes; new mail is refused until it does", "error", err)
			d.notice("store.trouble", "", "it takes no writes, and new mail is refused: "+err.Error())
		}
		if d.embedded == nil || time.Since(sickSince) < sick {
			continue
		}
		if free, err := freeBytes(d.config.Data); err == nil && free < room {
			d.log.Error("the disk is full; free some space and the store recovers by itself", "free_mib", free>>20, "data", d.config.Data)
			sickSince = time.Now() // say it again, not every two seconds
			continue
		}
		d.notice("store.restart", "", "the embedded store is restarted, which opens what a full disk closed")
		if err := d.embedded.restart(); err != nil {
			d.log.Error("the embedded store does not start", "error", err)
		}
		sickSince = time.Now()
	}
}

// sleep waits, and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// queueGauges describes what waits, at the moment of the scrape.
type queueGauges struct{ queue *queue.Queue }

var (
	waitingDesc  = prometheus.NewDesc("deliverd_waiting_messages", "Messages that wait or are being sent, by kind and state.", []string{"kind", "state"}, nil)
	oldestDesc   = prometheus.NewDesc("deliverd_oldest_waiting_seconds", "Age of the oldest message that has not ended, by kind.", []string{"kind"}, nil)
	windowDesc   = prometheus.NewDesc("deliverd_destination_window", "Attempts at once that a big provider is given, over all nodes.", []string{"destination"}, nil)
	towardsDesc  = prometheus.NewDesc("deliverd_destination_messages", "Messages of this node, waiting or being sent, by destination: the big providers, and all others together.", []string{"destination", "state"}, nil)
	statesDesc   = prometheus.NewDesc("deliverd_destinations", "Destinations that mail waits for or that are down, by state.", []string{"state"}, nil)
	expiringDesc = prometheus.NewDesc("deliverd_expiring_messages", "Waiting messages that expire within five minutes, by kind.", []string{"kind"}, nil)
)

// Describe implements prometheus.Collector.
func (g queueGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- waitingDesc
	ch <- oldestDesc
	ch <- expiringDesc
	ch <- windowDesc
	ch <- towardsDesc
	ch <- statesDesc
}

// Collect implements prometheus.Collector.
func (g queueGauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	now := time.Now()
	sum := g.queue.WaitingHere()
	g.destinations(sum.Destinations, gauge)
	for kind, n := range sum.Kinds {
		gauge(waitingDesc, float64(n.Queued), kind, "queued")
		gauge(waitingDesc, float64(n.Delayed), kind, "delayed")
		gauge(waitingDesc, float64(n.Sending), kind, "sending")
		gauge(expiringDesc, float64(n.Expiring), kind)
		if !n.Oldest.IsZero() {
			gauge(oldestDesc, positive(now.Sub(n.Oldest)), kind)
		}
	}
}

// otherDestinations is the label of all that have no name in deliver's catalogue: names
// of hosts would make it a metric without bound.
const otherDestinations = "other"

func (g queueGauges) destinations(all map[string]queue.Destination, gauge func(*prometheus.Desc, float64, ...string)) {
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
		gauge(towardsDesc, float64(d.Queued), name, "queued")
		gauge(towardsDesc, float64(d.Delayed), name, "delayed")
		gauge(towardsDesc, float64(d.Sending), name, "sending")
		if d.Window > 0 {
			gauge(windowDesc, float64(d.Window), name)
		}
	}
	for state, n := range states {
		gauge(statesDesc, float64(n), state)
	}
}
