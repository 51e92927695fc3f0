package console

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// schemaVersion is raised with every change of the schema or of what is stored in
// it. A view of another version is built anew from the log.
const schemaVersion = 4

// schema: times are microseconds since 1970, 0 for none. The id of a message sorts
// by the time it was made, so "newest first" is by id.
//
// A row of people is one way in which somebody was written to: a person with two
// addresses has two. Rows are the set of what the facts say, so that their order
// doesn't matter; see [newcomers]. The trigram indexes hold no text, only where each
// three characters occur: a match is held against the row.
const schema = `
CREATE TABLE place (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
INSERT INTO place VALUES (1, 0);

CREATE TABLE events (
	seq     INTEGER PRIMARY KEY,
	id      TEXT NOT NULL UNIQUE,
	at      INTEGER NOT NULL,
	message TEXT NOT NULL,
	tenant  TEXT NOT NULL,
	state   TEXT NOT NULL,
	domain  TEXT NOT NULL, provider TEXT NOT NULL, cause TEXT NOT NULL,
	fact    BLOB NOT NULL
);
CREATE INDEX events_message ON events (message);
CREATE INDEX events_attempts ON events (at) WHERE state IN ('accepted', 'delayed', 'refused');

CREATE TABLE messages (
	id TEXT PRIMARY KEY,
	ref TEXT NOT NULL, kind TEXT NOT NULL,
	tenant TEXT NOT NULL, tenant_name TEXT NOT NULL,
	person TEXT NOT NULL, person_id TEXT NOT NULL,
	recipient TEXT NOT NULL, address TEXT NOT NULL, to_name TEXT NOT NULL,
	locale TEXT NOT NULL, template TEXT NOT NULL, source TEXT NOT NULL, resend_of TEXT NOT NULL,
	queued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
	state TEXT NOT NULL, changed_at INTEGER NOT NULL, cause TEXT NOT NULL, provider TEXT NOT NULL,
	next_attempt INTEGER NOT NULL, attempts INTEGER NOT NULL,
	at_risk INTEGER NOT NULL, possible_duplicate INTEGER NOT NULL,
	rank INTEGER NOT NULL, attempt INTEGER NOT NULL, seq INTEGER NOT NULL, last_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX messages_ref ON messages (ref);
CREATE INDEX messages_tenant ON messages (tenant, id);
CREATE INDEX messages_tenant_state ON messages (tenant, state, id);
CREATE INDEX messages_state ON messages (state, id);
CREATE INDEX messages_address ON messages (address, id);
CREATE INDEX messages_domain ON messages (substr(address, instr(address, '@') + 1), id);
CREATE INDEX messages_person ON messages (person, id);

CREATE TABLE people (
	row INTEGER PRIMARY KEY,
	who INTEGER NOT NULL UNIQUE,
	tenant TEXT NOT NULL, person_id TEXT NOT NULL, address TEXT NOT NULL, name TEXT NOT NULL,
	folded TEXT NOT NULL
);
CREATE INDEX people_address ON people (address, tenant);
CREATE INDEX people_folded ON people (folded);
CREATE INDEX people_person_id ON people (person_id, tenant) WHERE person_id <> '';
CREATE VIRTUAL TABLE people_text USING fts5 (
	text, content = '', contentless_delete = 1, detail = none, tokenize = 'trigram case_sensitive 1'
);

CREATE TABLE tenants (
	row INTEGER PRIMARY KEY,
	tenant TEXT NOT NULL, name TEXT NOT NULL,
	UNIQUE (tenant, name)
);
CREATE VIRTUAL TABLE tenants_text USING fts5 (
	text, content = '', contentless_delete = 1, detail = none, tokenize = 'trigram case_sensitive 1'
);
`

// store is the open database: one connection writes, others read.
type store struct {
	write *sql.DB
	read  *sql.DB
	// known are rows of people and tenants that are written: who comes again costs
	// nothing. Only apply and prune use it, one at a time.
	known knownRows
	// tallies are what incidents are found by.
	tallies tallies
}

// openStore opens the database at path, or one in memory for "". A file that is no
// database, is damaged or has another schema is replaced by an empty one.
func openStore(ctx context.Context, path string) (*store, error) {
	s, err := tryOpenStore(ctx, path)
	if err == nil || path == "" || !errors.Is(err, errOtherSchema) && !damaged(err) {
		return s, err
	}
	if err := removeStore(path); err != nil {
		return nil, err
	}
	return tryOpenStore(ctx, path)
}

var errOtherSchema = errors.New("the view has another schema")

func tryOpenStore(ctx context.Context, path string) (*store, error) {
	write, err := sql.Open("sqlite", dsn(path, "immediate")+writeCache)
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	s := &store{write: write, read: write, known: knownRows{}} // a database in memory belongs to its one connection
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, err
	}
	if path == "" {
		return s, nil
	}
	if s.read, err = sql.Open("sqlite", dsn(path, "deferred")+"&_pragma=query_only(1)"); err != nil {
		s.read = write
		s.Close()
		return nil, err
	}
	s.read.SetMaxOpenConns(4)
	return s, nil
}

// writeCache is 32 MiB instead of 2: new rows go everywhere in the indexes by
// reference, address and name.
const writeCache = "&_pragma=cache_size(-32768)"

// dsn: WAL lets readers go on while a batch is written. synchronous=NORMAL may lose
// the last batches in a power failure but not the order of them, and what is lost
// is read from the log again.
func dsn(path, lock string) string {
	name := ":memory:"
	if path != "" {
		name = "file:" + (&url.URL{Path: path}).EscapedPath()
	}
	return name + "?_txlock=" + lock +
		"&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)"
}

func (s *store) prepare(ctx context.Context) error {
	var version, tables int
	if err := s.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("open the view: %w", err)
	}
	if err := s.write.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return fmt.Errorf("open the view: %w", err)
	}
	switch {
	case version == schemaVersion:
		var seq int64
		if err := s.write.QueryRowContext(ctx, "SELECT seq FROM place").Scan(&seq); err != nil {
			return errOtherSchema
		}
		return nil
	case version != 0 || tables != 0:
		return errOtherSchema
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return fmt.Errorf("make the view: %w", err)
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return fmt.Errorf("make the view: %w", err)
	}
	return tx.Commit()
}

// Close closes both handles.
func (s *store) Close() error {
	err := s.write.Close()
	if s.read != s.write {
		err = errors.Join(s.read.Close(), err)
	}
	return err
}

func removeStore(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the damaged view: %w", err)
		}
	}
	return nil
}

// damaged reports whether err says that the file itself can't be trusted.
func damaged(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff { // the primary result code
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_FORMAT:
		return true
	}
	return false
}
