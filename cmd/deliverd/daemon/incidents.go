package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/queue"
)

const (
	// incidentEvery is how often is looked for incidents that have opened or closed.
	incidentEvery = time.Minute
	// incidentOld is the age from which an incident is not new any more: one that is older
	// than a day is counted as begun a day ago, and would look new again and again.
	incidentOld = 23 * time.Hour
	// incidentNoted is how long is remembered that one was noted: longer than it is listed.
	incidentNoted = 48 * time.Hour
)

// followIncidents writes into the service log which incidents open and close. All nodes
// find the same ones; the first to claim one notes it. A crash between the two loses
// that note.
func (d *Daemon) followIncidents(ctx context.Context) {
	noted, err := d.queue.Shared(ctx, "incidents")
	for ; err != nil; noted, err = d.queue.Shared(ctx, "incidents") {
		d.log.Warn("incidents are not noted in the service log yet", "error", err)
		if !sleep(ctx, incidentEvery) {
			return
		}
	}
	for sleep(ctx, incidentEvery) {
		list, err := d.view.Incidents(ctx)
		if err == nil {
			err = d.noteIncidents(ctx, noted, list, time.Now())
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("incidents could not be noted in the service log; it is tried again", "error", err)
		}
	}
}

func (d *Daemon) noteIncidents(ctx context.Context, noted *queue.Shared, list []console.Incident, now time.Time) error {
	for _, i := range list {
		where := string(i.Scope)
		if i.Name != "" {
			where += " " + i.Name
		}
		if now.Sub(i.Since) < incidentOld {
			first, err := claim(ctx, noted, "open", i.ID)
			if err != nil {
				return err
			}
			if first {
				d.notice("incident.open", where, fmt.Sprintf("%s, since %s: %d messages at %d domains in ten minutes", i.Cause, i.Since.UTC().Format(time.RFC3339), i.Failures, i.Domains))
			}
		}
		if i.Open {
			continue
		}
		// Its end stays the same however long ago it began.
		first, err := claim(ctx, noted, "close", where, string(i.Cause), i.Until.UTC().Format(time.RFC3339))
		if err != nil {
			return err
		}
		if first {
			d.notice("incident.close", where, fmt.Sprintf("%s, until %s", i.Cause, i.Until.UTC().Format(time.RFC3339)))
		}
	}
	return nil
}

// claim reports whether this node is the first of all to claim a thing.
func claim(ctx context.Context, noted *queue.Shared, thing ...string) (first bool, err error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", thing))
	err = noted.CreateFor(ctx, hex.EncodeToString(sum[:]), []byte("noted"), incidentNoted)
	if errors.Is(err, queue.ErrExists) {
		return false, nil
	}
	return err == nil, err
}
