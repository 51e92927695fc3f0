package console

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// ErrNotFound means that the view knows no such message or person, or that it
// belongs to a tenant that the caller may not see: the two are never told apart.
var ErrNotFound = errors.New("not found")

// Facts are what a story is told from: where a message stands and every event about
// it, in the order of their time.
type Facts struct {
	Summary
	Events []mail.Event
}

// Filter chooses messages of a list. Empty fields choose all.
type Filter struct {
	Tenants []string // any of these; nil: every tenant; empty but not nil: none
	State   mail.State
	To      mail.Address // exactly, but for upper and lower case
	Person  string       // a [PersonKey]
	People  []string     // any of these; empty: everybody
	Before  mail.ID      // only messages older than this one: the cursor
	Limit   int          // at most MaxLimit, which 0 also means
}

// MaxLimit is the greatest number of rows that one reading returns.
const MaxLimit = 500

// summaryColumns are what scanSummary scans.
const summaryColumns = `id, ref, state, kind, tenant, tenant_name, person, person_id, recipient, to_name, locale,
	template, source, resend_of, queued_at, expires_at, changed_at, attempts, cause, provider, next_attempt,
	possible_duplicate`

type scanner interface{ Scan(...any) error }

// scanSummary scans summaryColumns into s and the columns after them into more.
func scanSummary(row scanner, s *Summary, more ...any) error {
	var queued, expires, changed, next int64
	err := row.Scan(append([]any{&s.ID, &s.Ref, &s.State, &s.Kind, &s.Tenant, &s.TenantName, &s.Person, &s.PersonID,
		&s.To, &s.ToName, &s.Locale, &s.Template, &s.Source, &s.ResendOf, &queued, &expires, &changed, &s.Attempts,
		&s.Cause, &s.Provider, &next, &s.PossibleDuplicate}, more...)...)
	s.QueuedAt, s.ExpiresAt = fromMicros(queued), fromMicros(expires)
	s.ChangedAt, s.NextAttempt = fromMicros(changed), fromMicros(next)
	return err
}

// Summary returns where one message stands, or ErrNotFound.
func (v *View) Summary(ctx context.Context, id mail.ID) (Summary, error) {
	found, err := v.summaries(ctx, "id = ?", []any{string(id)}, "", 1)
	if err == nil && len(found) == 0 {
		return Summary{}, ErrNotFound
	}
	if err != nil {
		return Summary{}, err
	}
	return found[0], nil
}

// ByRef returns the messages with this reference, the newest first: nearly always
// one.
func (v *View) ByRef(ctx context.Context, ref mail.Ref) ([]Summary, error) {
	return v.summaries(ctx, "ref = ?", []any{string(ref)}, "ORDER BY id DESC", MaxLimit)
}

// Facts returns what the story of one message is told from, or ErrNotFound.
func (v *View) Facts(ctx context.Context, id mail.ID) (Facts, error) {
	s, err := v.Summary(ctx, id)
	if err != nil {
		return Facts{}, err
	}
	logged, err := v.events(ctx, "message = ? ORDER BY at, seq", string(id))
	if err != nil {
		return Facts{}, err
	}
	f := Facts{Summary: s, Events: make([]mail.Event, len(logged))}
	for i, e := range logged {
		f.Events[i] = e.Event
	}
	return f, nil
}

// List returns the messages that f chooses, the newest first. The id of the last one
// is the cursor of the next page, if there are as many as the limit.
func (v *View) List(ctx context.Context, f Filter) ([]Summary, error) {
	among, args := amongTenants(f.Tenants)
	where := []string{among}
	also := func(condition string, value any) {
		where, args = append(where, condition), append(args, value)
	}
	if f.State != "" {
		also("state = ?", string(f.State))
	}
	if f.To != "" {
		also("address = ?", f.To.Key())
	}
	if f.Person != "" {
		also("person = ?", f.Person)
	}
	if len(f.People) > 0 {
		where = append(where, "person IN ("+strings.TrimSuffix(strings.Repeat("?,", len(f.People)), ",")+")")
		for _, key := range f.People {
			args = append(args, key)
		}
	}
	if f.Before != "" {
		also("id < ?", string(f.Before))
	}
	return v.summaries(ctx, strings.Join(where, " AND "), args, "ORDER BY id DESC", limit(f.Limit))
}

// amongTenants is the condition that a row is one of these tenants', as in Filter.
func amongTenants(tenants []string) (where string, args []any) {
	if tenants == nil {
		return "1", nil
	}
	for _, t := range tenants {
		args = append(args, t)
	}
	return "tenant IN (" + strings.TrimSuffix(strings.Repeat("?,", len(tenants)), ",") + ")", args
}

func limit(n int) int {
	if n <= 0 || n > MaxLimit {
		return MaxLimit
	}
	return n
}

func (v *View) summaries(ctx context.Context, where string, args []any, order string, limit int) ([]Summary, error) {
	query := "SELECT " + summaryColumns + ", at_risk FROM messages WHERE " + where + " " + order + " LIMIT ?"
	found := []Summary{}
	err := v.query(ctx, func(rows *sql.Rows) error {
		var s Summary
		var atRisk bool
		if err := scanSummary(rows, &s, &atRisk); err != nil {
			return err
		}
		s.AtRisk = atRisk && s.State.Open()
		found = append(found, s)
		return nil
	}, query, append(args, limit)...)
	return found, err
}

// EventFilter chooses events of the live feed. Empty fields choose all.
type EventFilter struct {
	Tenants []string // as in Filter
	State   mail.State
}

// eventWindow is how many places one reading of the feed searches at most, so that
// a filter that matches little can't make it long.
const eventWindow = 10_000

// EventsAfter returns the events after a place that f chooses, in the order of their
// places, at most n of them, and the place up to which the view was searched: where
// to go on.
func (v *View) EventsAfter(ctx context.Context, after uint64, f EventFilter, n int) ([]mail.LoggedEvent, uint64, error) {
	until := min(v.hub.place(), after+eventWindow)
	if after >= until {
		return nil, after, nil
	}
	where, args := amongTenants(f.Tenants)
	where = "seq > ? AND seq <= ? AND " + where
	args = append([]any{int64(after), int64(until)}, args...)
	if f.State != "" {
		where, args = where+" AND state = ?", append(args, string(f.State))
	}
	found, err := v.events(ctx, where+" ORDER BY seq LIMIT ?", append(args, limit(n))...)
	if err != nil {
		return nil, after, err
	}
	if len(found) == limit(n) {
		until = found[len(found)-1].Seq
	}
	return found, until, nil
}

func (v *View) events(ctx context.Context, where string, args ...any) ([]mail.LoggedEvent, error) {
	var found []mail.LoggedEvent
	err := v.query(ctx, func(rows *sql.Rows) error {
		var seq int64
		var fact []byte
		if err := rows.Scan(&seq, &fact); err != nil {
			return err
		}
		e := mail.LoggedEvent{Seq: uint64(seq)}
		if err := json.Unmarshal(fact, &e.Event); err != nil {
			return fmt.Errorf("event at %d: %w", seq, err)
		}
		found = append(found, e)
		return nil
	}, "SELECT seq, fact FROM events WHERE "+where, args...)
	return found, err
}

// query runs one reading. A damaged file is reported to Follow, which rebuilds it.
func (v *View) query(ctx context.Context, each func(*sql.Rows) error, query string, args ...any) error {
	err := v.queryStore(ctx, each, query, args)
	if damaged(err) {
		select {
		case v.damage <- struct{}{}:
		default:
		}
	}
	return err
}

func (v *View) queryStore(ctx context.Context, each func(*sql.Rows) error, query string, args []any) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	rows, err := v.store.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
