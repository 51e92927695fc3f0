package daemon

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// backend is what the console acts through: the queue, in the console's words.
type backend struct{ d *Daemon }

func (b backend) LastSeq(ctx context.Context) (uint64, error) { return b.d.queue.LastSeq(ctx) }

func (b backend) Said(ctx context.Context, id mail.ID, ref mail.Ref) error {
	return b.d.queue.Said(ctx, id, ref)
}

func (b backend) Live(ctx context.Context, id mail.ID) (console.Live, error) {
	s, err := b.d.queue.Status(ctx, id)
	if errors.Is(err, queue.ErrNotFound) || err == nil && !s.State.Open() {
		return console.Live{}, nil
	}
	if err != nil {
		return console.Live{}, err
	}
	live := console.Live{Sending: s.State == mail.StateSending, Attempt: s.Attempts + 1, Held: s.Paused}
	if live.Held == "kind:"+s.Message.Kind {
		live.HeldUntil = b.d.heldUntil(s.Message.Kind)
	}
	if !live.Sending && live.Held == "" {
		live.NextAttempt = s.Next
		live.Schedule = b.d.queue.Ahead(s)
	}
	return live, nil
}

func (b backend) Cancel(ctx context.Context, id mail.ID, by, reason string) error {
	return b.d.cancel(ctx, id, by, reason)
}

// most is how many domains a picture of the queue shows.
const most = 50

func (b backend) Queue(ctx context.Context) (console.Queue, error) {
	s, err := b.d.queue.Waiting(ctx)
	if err != nil {
		return console.Queue{}, err
	}
	pauses, err := b.d.queue.Pauses(ctx)
	if err != nil {
		return console.Queue{}, err
	}
	q := console.Queue{
		At: time.Now().UTC(), Waiting: s.All.Total(), Sending: s.All.Sending, Delayed: s.All.Delayed,
		Expiring: s.All.Expiring, Oldest: s.All.Oldest,
		ByKind: ranked(s.Kinds, len(s.Kinds)), ByDomain: ranked(s.Domains, most), ByProvider: ranked(b.byProvider(s.Domains), most),
		ByDestination: destinations(s.Destinations), NodesMissing: s.Missing,
	}
	for _, p := range pauses {
		q.Pauses = append(q.Pauses, console.Pause{Selector: p.Selector, By: p.By, Reason: p.Reason, Since: p.Since})
	}
	if held := b.d.held.Load(); held != nil {
		for kind, o := range *held {
			q.Pauses = append(q.Pauses, console.Pause{
				Selector: "kind:" + kind, By: "maintenance", Reason: "until " + o.Until.UTC().Format(time.RFC3339), Since: o.From,
			})
		}
	}
	return q, nil
}

// destinations lists those with the most, and after them what else is down.
func destinations(of map[string]queue.Destination) []console.Destination {
	var all []console.Destination
	for name, d := range of {
		shown := console.Destination{
			Name: name, Domains: d.Domains, Waiting: d.Total(), Sending: d.Sending, Oldest: d.Oldest,
			State: d.State, Window: d.Window, Gap: d.Gap, Since: d.Since, Look: d.Look,
		}
		if !d.At.IsZero() {
			shown.Trouble = &console.Trouble{At: d.At, Cause: d.Cause, Host: d.Host, Said: d.Said}
		}
		all = append(all, shown)
	}
	slices.SortFunc(all, func(a, b console.Destination) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), strings.Compare(a.Name, b.Name))
	})
	listed := all[:min(most, len(all))]
	for _, d := range all[len(listed):] {
		if d.State == queue.DestinationDown && len(listed) < 2*most {
			listed = append(listed, d)
		}
	}
	return listed
}

// byProvider adds the domains of each provider together, as far as it is known.
func (b backend) byProvider(domains map[string]queue.Count) map[string]queue.Count {
	all := map[string]queue.Count{}
	for domain, n := range domains {
		provider := b.d.providers.of(domain)
		if provider == "" {
			continue
		}
		sum := all[provider]
		sum.Queued += n.Queued
		sum.Delayed += n.Delayed
		sum.Sending += n.Sending
		if sum.Oldest.IsZero() || !n.Oldest.IsZero() && n.Oldest.Before(sum.Oldest) {
			sum.Oldest = n.Oldest
		}
		all[provider] = sum
	}
	return all
}

// ranked lists the groups with the most, at most n of them.
func ranked(groups map[string]queue.Count, n int) []console.Waiting {
	var all []console.Waiting
	for name, c := range groups {
		all = append(all, console.Waiting{Name: name, Waiting: c.Total(), Delayed: c.Delayed, Oldest: c.Oldest})
	}
	slices.SortFunc(all, func(a, b console.Waiting) int {
		if a.Waiting != b.Waiting {
			return b.Waiting - a.Waiting
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all[:min(n, len(all))]
}

func (b backend) Pause(ctx context.Context, selector, by, reason string) error {
	return b.d.queue.Pause(ctx, selector, by, reason)
}

func (b backend) Resume(ctx context.Context, selector, _, _ string) error {
	return found(b.d.queue.Resume(ctx, selector))
}

func (b backend) RetryNow(ctx context.Context, selector, _, _ string) error {
	_, err := b.d.queue.RetryNow(ctx, selector)
	return err
}

func (b backend) Suppress(ctx context.Context, s mail.Suppression) error {
	return b.d.queue.Suppress(ctx, s)
}

func (b backend) Lift(ctx context.Context, tenant string, a mail.Address, by, reason string) error {
	return found(b.d.queue.Lift(ctx, tenant, a, by, reason))
}

func (b backend) Suppressions(ctx context.Context, tenant string) ([]mail.Suppression, error) {
	if tenant == "" {
		tenant = "*" // the queue's word for all
	}
	return b.d.queue.Suppressions(ctx, tenant)
}

// found turns the queue's word for what isn't there into the console's.
func found(err error) error {
	if errors.Is(err, queue.ErrNotFound) {
		return console.ErrNotFound
	}
	return err
}

// tokenStore keeps tokens where every node sees them.
type tokenStore struct{ *queue.Shared }

func (s tokenStore) Get(ctx context.Context, key string) ([]byte, bool, error) {
	value, err := s.Shared.Get(ctx, key)
	if errors.Is(err, queue.ErrNotFound) {
		return nil, false, nil
	}
	return value, err == nil, err
}

// caller tells intake who makes an HTTP request.
func (d *Daemon) caller(r *http.Request) (intake.Caller, bool) {
	p := console.PrincipalFrom(r.Context())
	if p == nil {
		return intake.Caller{}, false
	}
	return intake.Caller{Source: p.Source(), Tenants: p.Tenants}, true
}
