package daemon

import (
	"cmp"
	"context"
	"fmt"
	"time"

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
				d.metrics.writable.Set(1)
				d.notice("store.well", "", "it takes writes again, after "+time.Since(sickSince).Round(time.Second).String())
			}
			sickSince = time.Time{}
			continue
		}
		if sickSince.IsZero() {
			sickSince = time.Now()
			d.metrics.writable.Set(0)
			d.log.Error("the store takes no writes; new mail is refused until it does", "error", err)
			d.notice("store.trouble", "", "it takes no writes, and new mail is refused: "+err.Error())
		}
		if d.embedded == nil || time.Since(sickSince) < sick {
			continue
		}
		if free, _, err := diskSpace(d.config.Data); err == nil && free < room {
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
