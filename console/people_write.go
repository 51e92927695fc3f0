package console

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// knownRows are rows that are written, by their digests. It is a cache and may be
// empty at any time.
type knownRows map[int64]struct{}

// knownMost bounds the cache: at some 20 bytes a row, a few megabytes. Past it, it
// begins anew.
const knownMost = 200_000

func (k knownRows) add(rows []int64) {
	if len(k)+len(rows) > knownMost {
		clear(k)
	}
	for _, r := range rows {
		k[r] = struct{}{}
	}
}

// newcomers writes the people and tenants of events that are not known yet.
//
// The rows are the set of what single facts say: a person once for each address and
// name that some fact has. So neither the order of facts nor their number matters,
// a changed name is found by the old and by the new one, and nothing is ever
// updated.
type newcomers struct {
	tx      *sql.Tx
	known   knownRows
	written []int64 // in this transaction
	seen    map[int64]struct{}

	person, personText, tenant, tenantText *sql.Stmt
}

// writeNewcomers returns the digests of the rows that are there now, to be
// remembered once the transaction is.
func writeNewcomers(ctx context.Context, tx *sql.Tx, known knownRows, batch []mail.LoggedEvent) ([]int64, error) {
	n := newcomers{tx: tx, known: known, seen: map[int64]struct{}{}}
	for _, e := range batch {
		if e.State == "" || e.To == "" || e.Message == "" {
			continue
		}
		w := writtenTo{e.Tenant, e.PersonID, e.To.Key(), e.ToName}
		if err := n.meetPerson(ctx, w); err != nil {
			return nil, fmt.Errorf("person of event at %d: %w", e.Seq, err)
		}
		if err := n.meetTenant(ctx, e.Tenant, e.TenantName); err != nil {
			return nil, fmt.Errorf("tenant of event at %d: %w", e.Seq, err)
		}
	}
	return n.written, nil
}

// met reports whether the row needs no writing, and notes it.
func (n *newcomers) met(row int64) bool {
	if _, ok := n.known[row]; ok {
		return true
	}
	if _, ok := n.seen[row]; ok {
		return true
	}
	n.seen[row] = struct{}{}
	n.written = append(n.written, row)
	return false
}

func (n *newcomers) meetPerson(ctx context.Context, w writtenTo) error {
	who := w.who()
	if n.met(who) {
		return nil
	}
	folded := foldText(w.name)
	row, added, err := n.insert(ctx, &n.person, `INSERT INTO people (who, tenant, person_id, address, name, folded)
		VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`, who, w.tenant, w.personID, w.address, w.name, folded)
	if err != nil || !added {
		return err
	}
	_, _, err = n.insert(ctx, &n.personText, "INSERT INTO people_text (rowid, text) VALUES (?, ?)", row, w.text(folded))
	return err
}

func (n *newcomers) meetTenant(ctx context.Context, tenant, name string) error {
	if tenant == "" || n.met(digest("tenant name", tenant, name)) {
		return nil
	}
	row, added, err := n.insert(ctx, &n.tenant, "INSERT INTO tenants (tenant, name) VALUES (?, ?) ON CONFLICT DO NOTHING", tenant, name)
	if err != nil || !added {
		return err
	}
	_, _, err = n.insert(ctx, &n.tenantText, "INSERT INTO tenants_text (rowid, text) VALUES (?, ?)",
		row, "\n"+foldText(tenant)+"\n"+foldText(name)+"\n")
	return err
}

// insert runs a statement, which is prepared when it is first needed: most batches
// hold nobody new.
func (n *newcomers) insert(ctx context.Context, stmt **sql.Stmt, query string, args ...any) (row int64, added bool, err error) {
	if *stmt == nil {
		if *stmt, err = n.tx.PrepareContext(ctx, query); err != nil {
			return 0, false, err
		}
	}
	r, err := (*stmt).ExecContext(ctx, args...)
	if err != nil {
		return 0, false, err
	}
	changed, err := r.RowsAffected()
	if err != nil {
		return 0, false, err
	}
	row, err = r.LastInsertId()
	return row, changed > 0, err
}

// forgetMessages drops messages whose last event is older than cutoff, and the people
// and tenants who have none left. It returns how many messages it dropped, at most
// pruneStep.
func (v *View) forgetMessages(ctx context.Context, cutoff time.Time) (int, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	tx, err := v.store.write.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("prune the view: %w", err)
	}
	defer tx.Rollback()
	old, err := forgotten(ctx, tx, cutoff)
	if err != nil || len(old) == 0 {
		return 0, err
	}
	for w := range old {
		if err := forgetPerson(ctx, tx, w); err != nil {
			return 0, fmt.Errorf("prune the view: %w", err)
		}
	}
	// There are as many tenants as there are customers: few.
	if err := forgetRows(ctx, tx, "tenants", `NOT EXISTS (SELECT 1 FROM messages m WHERE m.tenant = tenants.tenant)`); err != nil {
		return 0, fmt.Errorf("prune the view: %w", err)
	}
	n := 0
	for _, messages := range old {
		n += messages
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("prune the view: %w", err)
	}
	clear(v.store.known)
	return n, nil
}

// forgotten deletes old messages and returns whom they were to, with how many.
func forgotten(ctx context.Context, tx *sql.Tx, cutoff time.Time) (map[writtenTo]int, error) {
	// An id begins with the time it was made, which no event of it precedes.
	rows, err := tx.QueryContext(ctx, `DELETE FROM messages WHERE id IN
		(SELECT id FROM messages WHERE id < ?1 AND last_at < ?2 ORDER BY id LIMIT ?3)
		RETURNING tenant, person_id, address, to_name`, string(idBound(cutoff)), micros(cutoff), pruneStep)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	old := map[writtenTo]int{}
	for rows.Next() {
		var w writtenTo
		if err := rows.Scan(&w.tenant, &w.personID, &w.address, &w.name); err != nil {
			return nil, err
		}
		old[w]++
	}
	return old, rows.Err()
}

// forgetPerson drops one row of people, unless there is another message like those
// that were dropped.
func forgetPerson(ctx context.Context, tx *sql.Tx, w writtenTo) error {
	return forgetRows(ctx, tx, "people", `who = ? AND NOT EXISTS
		(SELECT 1 FROM messages m WHERE m.person = ? AND m.address = ? AND m.to_name = ?)`,
		w.who(), PersonKey(w.tenant, w.personID, mail.Address(w.address)), w.address, w.name)
}

// forgetRows drops rows of a table and of its trigram index.
func forgetRows(ctx context.Context, tx *sql.Tx, table, where string, args ...any) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM "+table+"_text WHERE rowid IN (SELECT row FROM "+table+" WHERE "+where+")", args...)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE "+where, args...)
	return err
}
