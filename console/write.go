package console

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// apply folds a batch of events into the view, in one transaction.
func (v *View) apply(ctx context.Context, batch []mail.LoggedEvent) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	tx, err := v.store.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()

	touched, err := foldBatch(ctx, tx, batch)
	if err != nil {
		return err
	}
	if err := writeStandings(ctx, tx, touched); err != nil {
		return err
	}
	who, err := writeNewcomers(ctx, tx, v.store.known, batch)
	if err != nil {
		return err
	}
	place := v.hub.place()
	for _, e := range batch {
		place = max(place, e.Seq)
	}
	if _, err := tx.ExecContext(ctx, "UPDATE place SET seq = ?", int64(place)); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write the view: %w", err)
	}
	v.store.known.add(who)
	v.store.tallies.changed(batch)
	v.hub.moveTo(place, slices.Collect(maps.Keys(touched))...)
	return nil
}

// foldBatch keeps the events and returns how the messages that they are about stand
// now.
func foldBatch(ctx context.Context, tx *sql.Tx, batch []mail.LoggedEvent) (map[mail.ID]*standing, error) {
	insert, err := tx.PrepareContext(ctx, insertEvent)
	if err != nil {
		return nil, err
	}
	defer insert.Close()
	read, err := tx.PrepareContext(ctx, "SELECT "+standingColumns+" FROM messages WHERE id = ?")
	if err != nil {
		return nil, err
	}
	defer read.Close()

	touched := map[mail.ID]*standing{}
	for _, e := range batch {
		if e.State == "" {
			continue // no fact, see pump
		}
		e.ID = factID(e)
		if err := keepEvent(ctx, insert, e); err != nil {
			return nil, err
		}
		if e.Message == "" {
			continue
		}
		s := touched[e.Message]
		if s == nil {
			if s, err = readStanding(ctx, read, e.Message); err != nil {
				return nil, err
			}
			touched[e.Message] = s
		}
		s.fold(e)
	}
	return touched, nil
}

// factID is the identity of a fact. One that was recorded without any is itself
// alone.
func factID(e mail.LoggedEvent) string {
	if e.ID == "" {
		return "place." + strconv.FormatUint(e.Seq, 10)
	}
	return e.ID
}

// insertEvent: of a fact recorded twice the one at the lower place is kept,
// whichever comes first.
const insertEvent = `INSERT INTO events (seq, id, at, message, tenant, state, domain, provider, cause, fact)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (seq) DO NOTHING
	ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, at = excluded.at, message = excluded.message,
		tenant = excluded.tenant, state = excluded.state, domain = excluded.domain, provider = excluded.provider,
		cause = excluded.cause, fact = excluded.fact
		WHERE excluded.seq < seq`

func keepEvent(ctx context.Context, insert *sql.Stmt, e mail.LoggedEvent) error {
	fact, err := json.Marshal(e.Event)
	if err != nil {
		return fmt.Errorf("event at %d: %w", e.Seq, err)
	}
	provider := ""
	if e.Evidence != nil {
		provider = e.Evidence.Provider
	}
	_, err = insert.ExecContext(ctx, int64(e.Seq), e.ID, micros(e.At), string(e.Message), e.Tenant, string(e.State),
		e.To.Domain(), provider, string(e.Cause), fact)
	return err
}

const standingColumns = summaryColumns + `, rank, attempt, seq, last_at, at_risk`

func readStanding(ctx context.Context, read *sql.Stmt, id mail.ID) (*standing, error) {
	var s standing
	var seq, lastAt int64
	err := scanSummary(read.QueryRowContext(ctx, string(id)), &s.Summary, &s.rank, &s.attempt, &seq, &lastAt, &s.atRisk)
	if errors.Is(err, sql.ErrNoRows) {
		return &standing{}, nil
	}
	s.seq, s.lastAt = uint64(seq), fromMicros(lastAt)
	return &s, err
}

const replaceMessage = `INSERT OR REPLACE INTO messages (id, ref, kind, tenant, tenant_name, person, person_id,
	recipient, address, to_name, locale, template, source, resend_of, queued_at, expires_at,
	state, changed_at, cause, provider, next_attempt, attempts, at_risk, possible_duplicate,
	rank, attempt, seq, last_at)
	VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`

func writeStandings(ctx context.Context, tx *sql.Tx, touched map[mail.ID]*standing) error {
	stmt, err := tx.PrepareContext(ctx, replaceMessage)
	if err != nil {
		return err
	}
	defer stmt.Close()
	for _, s := range touched {
		_, err := stmt.ExecContext(ctx, string(s.ID), string(s.Ref), s.Kind, s.Tenant, s.TenantName, s.Person, s.PersonID,
			string(s.To), s.To.Key(), s.ToName, s.Locale, s.Template, s.Source, string(s.ResendOf),
			micros(s.QueuedAt), micros(s.ExpiresAt),
			string(s.State), micros(s.ChangedAt), string(s.Cause), s.Provider, micros(s.NextAttempt), s.Attempts,
			s.atRisk, s.PossibleDuplicate,
			s.rank, s.attempt, int64(s.seq), micros(s.lastAt))
		if err != nil {
			return err
		}
	}
	return nil
}

// pruneStep bounds one deletion, so that readers and the log never wait long.
const pruneStep = 1000

// prune drops the events older than keep, and the messages whose last event is.
func (v *View) prune(ctx context.Context) error {
	cutoff := v.now().Add(-v.keep)
	// Places grow with time, near enough: so the oldest places are looked at only.
	for {
		n, err := v.forgetEvents(ctx, cutoff)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	for {
		n, err := v.forgetMessages(ctx, cutoff)
		if err != nil || n == 0 {
			return err
		}
	}
}

func (v *View) forgetEvents(ctx context.Context, cutoff time.Time) (int64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	r, err := v.store.write.ExecContext(ctx, `DELETE FROM events WHERE at < ?
		AND seq IN (SELECT seq FROM events ORDER BY seq LIMIT ?)`, micros(cutoff), pruneStep)
	if err != nil {
		return 0, fmt.Errorf("prune the view: %w", err)
	}
	return r.RowsAffected()
}

// idBound is less than the id of every message made at t or later.
func idBound(t time.Time) mail.ID {
	ms := uint64(max(t.UnixMilli(), 0))
	return mail.IDFromBytes([16]byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms)})
}

func (s *store) place(ctx context.Context) (uint64, error) {
	var seq int64
	err := s.write.QueryRowContext(ctx, "SELECT seq FROM place").Scan(&seq)
	return uint64(seq), err
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
