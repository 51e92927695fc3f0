package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

// One flipped bit, wherever it is: verify tells, and restore refuses. In a tar's padding,
// and in the blank behind a header's own checksum, a bit changes nothing that is read.
func TestF14FlippedBitInABackup(t *testing.T) {
	t.Parallel()
	_, s, _ := store(t, 3, 3)
	path := take(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(whole)-1024; at += 1 + len(whole)/199 {
		b := append([]byte(nil), whole...)
		b[at] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyFile(path)
		if err == nil && r.OK() && entries(b) != entries(whole) {
			t.Fatalf("a flipped bit at %d of %d goes unnoticed: %q", at, len(b), whole[max(0, at-20):at+20])
		}
	}
	if err := os.WriteFile(path, append([]byte(nil), whole[:len(whole)*2/3]...), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyFile(path)
	if err != nil || len(r.Damage) == 0 {
		t.Errorf("a file that broke off: %v, %+v", err, r)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(path, dir, false); !errors.Is(err, ErrDamaged) {
		t.Errorf("restoring it: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused restore left something: %v", err)
	}
	if err := os.WriteFile(path, []byte("PK\x03\x04 something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyFile(path); err == nil {
		t.Error("anything passes for a backup")
	}
}

// entries is what a tar holds: names, kinds and contents, with a sum for each.
func entries(b []byte) string {
	var all strings.Builder
	for t := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := t.Next()
		if err != nil {
			fmt.Fprintln(&all, err)
			return all.String()
		}
		body, err := io.ReadAll(t)
		fmt.Fprintf(&all, "%q %c %x %v\n", h.Name, h.Typeflag, sha256.Sum256(body), err)
	}
}

// A flipped bit in the store's files hides a message from the server, which says that
// all is well: verify tells.
func TestF14FlippedBitInTheStore(t *testing.T) {
	t.Parallel()
	dir, s, all := store(t, 2, 6)
	s.Stop()
	files, err := filepath.Glob(filepath.Join(streamsDir(dir), "*DELIVERD_*", "msgs", "*.blk"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(whole) == 0 || strings.Contains(path, "DELIVERD_LEASES") {
			continue
		}
		for at := 0; at < len(whole); at += 1 + len(whole)/13 {
			b := append([]byte(nil), whole...)
			b[at] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if r, err := VerifyDir(dir); err != nil || r.OK() {
				t.Errorf("a flipped bit at %d of %s goes unnoticed: %v", at, path, err)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := VerifyDir(dir); err != nil || !r.OK() {
		t.Fatalf("whole again: %v %+v", err, r)
	}

	// A shard's file that is gone takes its messages with it: they are named.
	missing := map[mail.ID]bool{}
	for _, path := range files {
		if strings.Contains(path, "DELIVERD_Q") {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := VerifyDir(dir)
	if err != nil || len(r.Missing) != 6 {
		t.Fatalf("%v %+v", err, r)
	}
	for _, id := range r.Missing {
		missing[id] = true
	}
	for _, id := range all[2:] {
		if !missing[id] {
			t.Errorf("%s is lost and not named", id)
		}
	}
	if err := os.RemoveAll(filepath.Join(streamsDir(dir), "DELIVERD_EVENTS")); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyDir(dir); err != nil || len(r.Streams) != 1 {
		t.Errorf("the log is gone: %v %+v", err, r)
	}
}

// What can be read of a damaged backup is restored where somebody insists.
func TestRestoreOfADamagedFileWhenAskedTo(t *testing.T) {
	t.Parallel()
	_, s, _ := store(t, 2, 4)
	path := take(t, s)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-1536], 0o600); err != nil { // the manifest's end
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	r, err := Restore(path, dir, true)
	if err != nil || len(r.Damage) == 0 {
		t.Fatalf("%v %+v", err, r)
	}
	if r, err := VerifyDir(dir); err != nil || !r.OK() || r.Waiting != 4 {
		t.Errorf("%v %+v", err, r)
	}
}

// A record that waits although the log knows its end is not restored.
func TestRestoreLeavesOutWhatHasEnded(t *testing.T) {
	t.Parallel()
	_, s, all := store(t, 0, 3)
	q := open(t, s)
	// The log hears of an end that the record does not: what a crash, or the moment of a
	// copy, leaves.
	err := q.Record(t.Context(), mail.Event{Message: all[1], State: mail.StateAccepted, Attempt: 1, Kind: "invite"})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	path := take(t, s)
	s.Stop()
	dir := filepath.Join(t.TempDir(), "data")
	r, err := Restore(path, dir, false)
	if err != nil || len(r.Ended) != 1 || r.Ended[0] != all[1] || r.Waiting != 2 {
		t.Fatalf("%v %+v", err, r)
	}
	if r, err = VerifyDir(dir); err != nil || len(r.Ended) != 0 || r.Waiting != 2 || !r.OK() {
		t.Errorf("restored: %v %+v", err, r)
	}
}

// The log may hold an event twice, and an acceptance after the end: neither makes a
// message missing.
func TestLedgerBelievesTheWholeLog(t *testing.T) {
	t.Parallel()
	_, s, all := store(t, 1, 0)
	q := open(t, s)
	for _, e := range []mail.Event{
		{ID: "again", Message: all[0], State: mail.StateQueued},
		{ID: "late end", Message: "msg_01890000-0000-7000-8000-000000000001", State: mail.StateAccepted},
		{ID: "late beginning", Message: "msg_01890000-0000-7000-8000-000000000001", State: mail.StateQueued},
	} {
		if err := q.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := VerifyFile(take(t, s)); err != nil || !r.OK() {
		t.Errorf("%v %+v", err, r)
	}
	if err := q.Record(t.Context(), mail.Event{Message: "msg_01890000-0000-7000-8000-000000000002", State: mail.StateQueued}); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyFile(take(t, s)); err != nil || len(r.Missing) != 1 {
		t.Errorf("%v %+v", err, r)
	}
}
