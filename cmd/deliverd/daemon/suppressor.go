package daemon

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// suppressor follows the event log and keeps the list of suppressed addresses by the
// one policy, so that a refusal at RCPT and a bounce a day later come to the same.
// Its place is saved with the list; after a crash it reads some events again, in
// their order, which ends in the same list: what a person lifted stays lifted.
type suppressor struct {
	d     *Daemon
	marks *queue.Shared
	saved time.Time
}

const (
	suppressorMark = "place"
	// suppressorSave is how often the place is saved.
	suppressorSave = 5 * time.Second
)

// suppressorStates are what the policy looks at.
var suppressorStates = []mail.State{mail.StateRefused, mail.StateReturned, mail.StateComplained, mail.EventLifted}

// suppressLoop runs until the daemon stops.
func (d *Daemon) suppressLoop(ctx context.Context) {
	marks, err := d.queue.Shared(ctx, "suppressor")
	if err != nil {
		d.log.Error("addresses that refuse mail are not suppressed", "error", err)
		return
	}
	s := &suppressor{d: d, marks: marks}
	for ctx.Err() == nil {
		if err := s.follow(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("following the event log for suppressions was interrupted", "error", err)
		}
		sleep(ctx, time.Second)
	}
}

func (s *suppressor) follow(ctx context.Context) error {
	place, err := s.place(ctx)
	if err != nil {
		return err
	}
	for e, err := range s.d.queue.Events(ctx, place, suppressorStates...) {
		switch {
		case err != nil && e.Seq == 0:
			return err
		case err != nil: // one that is none: read again it is none again
			s.d.log.Warn("an event that can't be read is left out of the suppressions", "error", err)
			continue
		}
		if err := s.apply(ctx, e.Event); err != nil {
			return err // from the saved place again
		}
		if time.Since(s.saved) < suppressorSave {
			continue
		}
		if err := s.marks.Put(ctx, suppressorMark, strconv.AppendUint(nil, e.Seq, 10)); err != nil {
			return err
		}
		s.saved = time.Now()
	}
	return nil
}

func (s *suppressor) place(ctx context.Context) (uint64, error) {
	text, err := s.marks.Get(ctx, suppressorMark)
	if errors.Is(err, queue.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(text), 10, 64)
}

// apply holds one event against the policy.
func (s *suppressor) apply(ctx context.Context, e mail.Event) error {
	if e.State == mail.EventLifted {
		now, err := s.d.queue.Suppressed(ctx, e.Tenant, e.To)
		if err != nil || now == nil || now.Since.After(e.At) {
			return err
		}
		return s.d.queue.Unsuppress(ctx, e.Tenant, e.To)
	}
	made, ok := bounces.Suppress(e)
	if !ok || !made.Until.IsZero() && !time.Now().Before(made.Until) {
		return nil
	}
	now, err := s.d.queue.Suppressed(ctx, made.Tenant, made.Address)
	if err != nil {
		return err
	}
	// What holds longer is not cut short by something smaller that came later.
	if now != nil && (!now.Since.Before(made.Since) || now.Until.IsZero()) {
		return nil
	}
	return s.d.queue.Suppress(ctx, made)
}
