package console

import (
	"cmp"
	"context"
	"database/sql"
	"regexp"
	"slices"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

const (
	// historyFor is how far back a report looks at our own mail, and historyMost how
	// many messages it counts at most, the newest first.
	historyFor  = 30 * 24 * time.Hour
	historyMost = 2000
	// historyRead of them are looked at closely, for TLS and replies.
	historyRead = 100
	// historyReplies different replies are shown.
	historyReplies = 3
)

// DomainHistory tells what happened to the tenants' mail, nil for everybody's, to a
// domain within the last 30 days: numbers, and what its servers said last, without
// the addresses in that. Nil without an error: there was none.
func (v *View) DomainHistory(ctx context.Context, domain string, tenants []string) (*dnscheck.History, error) {
	h := &dnscheck.History{Causes: map[string]int{}, TLS: map[string]int{}}
	if err := v.countHistory(ctx, h, domain, tenants); err != nil {
		return nil, err
	}
	if h.Since.IsZero() {
		return nil, nil
	}
	if err := v.readHistory(ctx, h, domain, tenants); err != nil {
		return nil, err
	}
	return h, nil
}

// domainOfAddress is the domain of a row of messages, which has an index.
const domainOfAddress = "substr(address, instr(address, '@') + 1)"

// lately chooses the newest messages to a domain.
func (v *View) lately(domain string, tenants []string, most int) (where string, args []any) {
	among, args := amongTenants(tenants)
	return domainOfAddress + " = ? AND queued_at >= ? AND " + among + " ORDER BY id DESC LIMIT ?",
		append(append([]any{domain, micros(v.now().Add(-historyFor))}, args...), most)
}

// countHistory counts messages by how they ended, and how long they took.
func (v *View) countHistory(ctx context.Context, h *dnscheck.History, domain string, tenants []string) error {
	var took []time.Duration
	where, args := v.lately(domain, tenants, historyMost)
	err := v.query(ctx, func(rows *sql.Rows) error {
		var state mail.State
		var cause string
		var queued, changed int64
		if err := rows.Scan(&state, &cause, &queued, &changed); err != nil {
			return err
		}
		if at := fromMicros(queued); h.Since.IsZero() || at.Before(h.Since) {
			h.Since = at
		}
		switch state {
		case mail.StateAccepted, mail.StateComplained:
			h.Accepted++
			if state == mail.StateAccepted {
				took = append(took, fromMicros(changed).Sub(fromMicros(queued)))
			}
			return nil
		case mail.StateRefused, mail.StateReturned:
			h.Refused++
		case mail.StateDelayed, mail.StateExpired:
			h.Delayed++
		default:
			return nil // no server of theirs had a say in it
		}
		if cause != "" {
			h.Causes[cause]++
		}
		return nil
	}, "SELECT state, cause, queued_at, changed_at FROM messages WHERE "+where, args...)
	slices.Sort(took)
	h.TypicalDelayMS, h.SlowDelayMS = quantile(took, 50), quantile(took, 90)
	return err
}

// quantile is the time that so many of a hundred took at most, in milliseconds.
func quantile(sorted []time.Duration, percent int) int64 {
	if len(sorted) == 0 {
		return 0
	}
	return max(sorted[(len(sorted)*percent+99)/100-1], 0).Milliseconds()
}

// readHistory reads the newest messages' evidence.
func (v *View) readHistory(ctx context.Context, h *dnscheck.History, domain string, tenants []string) error {
	where, args := v.lately(domain, tenants, historyRead)
	logged, err := v.events(ctx, "message IN (SELECT id FROM messages WHERE "+where+") AND state IN ('accepted', 'delayed', 'refused', 'returned') ORDER BY at DESC, seq DESC", args...)
	for _, e := range logged {
		if e.Evidence == nil {
			continue
		}
		if e.State == mail.StateAccepted {
			version := "none"
			if e.Evidence.TLS != nil {
				version = cmp.Or(e.Evidence.TLS.Version, version)
			}
			h.TLS[version]++
			continue
		}
		if e.Evidence.Reply == nil || len(h.LastReplies) == historyReplies {
			continue
		}
		if said := nameless(e.Evidence.Reply.String()); !slices.Contains(h.LastReplies, said) {
			h.LastReplies = append(h.LastReplies, said)
		}
	}
	return err
}

// addressLike is whatever may be somebody's address in a server's words.
var addressLike = regexp.MustCompile(`[^\s<>"'(),;:=\[\]]+@[^\s<>"'(),;:=\[\]]+`)

// nameless leaves the addresses out of what a server said.
func nameless(said string) string { return addressLike.ReplaceAllString(said, "…@…") }
