package console

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Held is what is held up at one domain for one cause.
type Held struct {
	Domain   string
	Provider string // id; "" where it is not known
	Cause    mail.Cause
	Waiting  int       // messages with a failed attempt behind them
	AtRisk   int       // of them, those that may come too late
	Since    time.Time // when the oldest of them was asked for
	Next     time.Time // when the next attempt of any is; zero if none is known
	// Typical is half of the time that mail to this domain took on the last day, from
	// the request to the hand-over; 0 where none was handed over.
	Typical time.Duration
}

const (
	heldRows = 100
	// typicalAmong the latest messages tell how long mail to a domain takes.
	typicalAmong = 200
	typicalDay   = 24 * time.Hour
)

// HeldUp returns what the tenants' mail, nil for everybody's, is held up by, the most
// of it first.
func (v *View) HeldUp(ctx context.Context, tenants []string) ([]Held, error) {
	among, args := amongTenants(tenants)
	var held []Held
	err := v.query(ctx, func(rows *sql.Rows) error {
		var h Held
		var since, next int64
		if err := rows.Scan(&h.Domain, &h.Provider, &h.Cause, &h.Waiting, &h.AtRisk, &since, &next); err != nil {
			return err
		}
		h.Since, h.Next = fromMicros(since), fromMicros(next)
		held = append(held, h)
		return nil
	}, `SELECT `+domainOfAddress+` AS domain, max(provider), cause, count(*), sum(at_risk), min(queued_at),
		coalesce(min(nullif(next_attempt, 0)), 0)
		FROM messages WHERE state = 'delayed' AND `+among+`
		GROUP BY domain, cause ORDER BY count(*) DESC, domain LIMIT ?`, append(args, heldRows)...)
	if err != nil {
		return nil, err
	}
	typical := map[string]time.Duration{}
	for i := range held {
		d := held[i].Domain
		if _, known := typical[d]; !known {
			if typical[d], err = v.typicalDelay(ctx, d, tenants); err != nil {
				return nil, err
			}
		}
		held[i].Typical = typical[d]
	}
	return held, nil
}

// typicalDelay is the median of what mail to a domain took lately.
func (v *View) typicalDelay(ctx context.Context, domain string, tenants []string) (time.Duration, error) {
	among, args := amongTenants(tenants)
	args = append(args, string(idBound(v.now().Add(-typicalDay))), domain, typicalAmong)
	var took []time.Duration
	err := v.query(ctx, func(rows *sql.Rows) error {
		var us int64
		err := rows.Scan(&us)
		took = append(took, time.Duration(us)*time.Microsecond)
		return err
	}, "SELECT changed_at - queued_at FROM messages WHERE "+among+
		" AND id >= ? AND "+domainOfAddress+" = ? AND state = 'accepted' ORDER BY id DESC LIMIT ?", args...)
	if err != nil || len(took) == 0 {
		return 0, err
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// Expiring returns the tenants' open messages that expire within d, the first to
// expire first, at most n.
func (v *View) Expiring(ctx context.Context, tenants []string, d time.Duration, n int) ([]Summary, error) {
	among, args := amongTenants(tenants)
	args = append(args, micros(v.now()), micros(v.now().Add(d)))
	found, err := v.summaries(ctx, among+" AND state IN ('queued', 'delayed') AND expires_at > ? AND expires_at <= ?", args, "ORDER BY expires_at", limit(n))
	slices.SortFunc(found, func(a, b Summary) int { return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), cmp.Compare(a.ID, b.ID)) })
	return found, err
}

// ToDomain returns the tenants' newest messages to a domain, at most n.
func (v *View) ToDomain(ctx context.Context, domain string, tenants []string, n int) ([]Summary, error) {
	among, args := amongTenants(tenants)
	return v.summaries(ctx, among+" AND "+domainOfAddress+" = ?", append(args, domain), "ORDER BY id DESC", limit(n))
}
