package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/deliverd/deliverd/cmd/deliverd/sample"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/intake"
)

const (
	sampleFile = "sample.txt"
	sampleText = "What the event log here begins with was made up by `deliverd dev`, so that every page has something to show.\n" +
		"`deliverd dev --no-sample` with another directory begins empty.\n"
)

// fresh reports whether nothing was ever sent from this data directory.
func (d *Daemon) fresh(ctx context.Context) (bool, error) {
	last, err := d.queue.LastSeq(ctx)
	return err == nil && last == 0, err
}

// Sample fills a data directory that nothing was sent from yet with a day of made-up
// mail, and reports whether the directory holds one, from this start or an earlier
// one. Only `deliverd dev` calls it.
func (d *Daemon) Sample(ctx context.Context) (bool, error) {
	if d.catch == nil {
		return false, errors.New("sample data is for a daemon that catches its mail")
	}
	fresh, err := d.fresh(ctx)
	if err != nil {
		return false, err
	}
	file := d.config.dataFile(sampleFile)
	if !fresh {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		d.sample.Store(true)
		return true, d.sampleServers()
	}
	if err := writeFileSync(file, []byte(sampleText)); err != nil {
		return false, err
	}
	d.sample.Store(true)
	if err := d.sampleServers(); err != nil {
		return true, err
	}
	if err := d.samplePast(ctx, time.Now().UTC().Truncate(time.Second)); err != nil {
		return true, fmt.Errorf("sample data: %w", err)
	}
	if err := d.samplePresent(ctx); err != nil {
		return true, fmt.Errorf("sample data: %w", err)
	}
	return true, nil
}

// sampleServers tells the catching server how to treat mail to the people of the
// sample.
func (d *Daemon) sampleServers() error {
	rules, err := sample.Servers()
	for _, r := range rules {
		err = errors.Join(err, d.catch.Tell(r.Pattern, r.Behaviour))
	}
	return err
}

// samplePast records what happened before now.
func (d *Daemon) samplePast(ctx context.Context, now time.Time) error {
	for _, e := range sample.Past(now) {
		if err := d.queue.Record(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// samplePresent does what is under way now.
func (d *Daemon) samplePresent(ctx context.Context) error {
	for _, act := range sample.Present() {
		if err := d.sampleAct(ctx, act); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) sampleAct(ctx context.Context, act sample.Act) error {
	switch {
	case act.Suppress != nil:
		s := *act.Suppress
		s.Since = time.Now().UTC()
		d.serviceLog.Note(console.LogEntry{Act: "suppress", By: s.By, Via: console.ViaDev, Tenant: s.Tenant, On: string(s.Address), Reason: s.Reason})
		return d.queue.Suppress(ctx, s)
	case act.Pause != "":
		d.serviceLog.Note(console.LogEntry{Act: "pause", By: act.By, Via: console.ViaDev, On: act.Pause, Reason: act.Reason})
		return d.queue.Pause(ctx, act.Pause, act.By, act.Reason)
	}
	_, err := d.intake.Submit(ctx, intake.Caller{Source: "login", Tenants: []string{intake.AllTenants}}, *act.Send)
	return err
}
