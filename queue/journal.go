package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/deliverd/deliverd/mail"
)

// Doubt. A crash between the final dot and the record of its reply leaves a message
// that waits although it was handed over; the next attempt may be a duplicate, and
// law 6 wants that said. Writing each attempt's intention into the store first would
// cost every message a write for the sake of the few that a crash meets. So:
//
//   - A node that stops in order leaves a mark with each shard that it gives up: who
//     takes such a shard has no doubts.
//   - Without the mark, whatever another session wrote and was due before the shard
//     was taken may have been under way.
//   - A journal makes that exact for a process that was killed: a file with the ids
//     under way, written without fsync, which outlives the process though not the
//     machine. It counts only within the boot in which it was written.

// journal is the file of the attempts under way, one place each.
type journal struct {
	mu     sync.Mutex
	f      *os.File
	free   []int64 // guarded by mu: offsets of empty places
	size   int64   // guarded by mu
	failed bool    // guarded by mu: doubt is general from then on

	// left are the attempts that the process before was in; exact says that these were
	// all.
	left  map[mail.ID]bool
	exact bool
}

const (
	journalMagic = "deliverd journal 1 "
	journalHead  = 64 // magic, boot id, newline, padding
	journalPlace = 40 // an id as text: a torn write is no id
)

// bootID tells one boot of the machine from another; "" where that can't be known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// openJournal reads what the process before left, and begins anew.
func openJournal(path string) (*journal, error) {
	boot := bootID()
	j := &journal{left: map[mail.ID]bool{}}
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("journal: %w", err)
	default:
		j.exact = boot != "" && len(old) >= journalHead && strings.HasPrefix(string(old), journalMagic+boot+"\n")
		for at := journalHead; at+journalPlace <= len(old); at += journalPlace {
			if id := mail.ID(old[at : at+journalPlace]); id != "" {
				if _, err := id.Bytes(); err == nil {
					j.left[id] = true
				}
			}
		}
	}
	if j.f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	head := make([]byte, journalHead)
	copy(head, journalMagic+boot+"\n")
	if _, err := j.f.WriteAt(head, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), j.f.Close())
	}
	j.size = journalHead
	return j, nil
}

// begin notes that an attempt is under way, and returns what to call at its end.
func (j *journal) begin(id mail.ID) (end func()) {
	if j == nil || len(id) != journalPlace {
		return func() {}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.size
	if n := len(j.free); n > 0 {
		at, j.free = j.free[n-1], j.free[:n-1]
	} else {
		j.size += journalPlace
	}
	j.write([]byte(id), at)
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.write(make([]byte, journalPlace), at)
		j.free = append(j.free, at)
	}
}

// write needs mu. A disk that is full makes the journal useless, and nothing worse:
// its head says so to the next process.
func (j *journal) write(b []byte, at int64) {
	if j.failed {
		return
	}
	if _, err := j.f.WriteAt(b, at); err != nil {
		j.failed = true
		_ = j.f.Truncate(0) // without a head it is not exact
	}
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}

// doubtful reports whether the process before may have been handing the message over
// when it died.
func (q *Queue) doubtful(h *hand) bool {
	before := h.sh.doubt.Load()
	if before == 0 || h.r.writer == q.session || h.r.Due.UnixMilli() > before {
		return false
	}
	return q.journal == nil || !q.journal.exact || q.journal.left[h.r.Message.ID]
}

// cleanKey is where a node that gives a shard up in order says so.
func cleanKey(sh *shard) string { return "queue.clean." + strconv.Itoa(sh.n) }

// settleDoubt says whether there is doubt about a shard that was just taken, and
// removes the mark, before anything of it is tried.
func (q *Queue) settleDoubt(sh *shard) error {
	_, err := q.store.get(q.ctx, bucketShared, cleanKey(sh))
	if errors.Is(err, ErrNotFound) {
		now, _ := q.clock.now()
		sh.doubt.Store(now.UnixMilli())
		return nil
	}
	if err != nil {
		return err
	}
	sh.doubt.Store(0)
	return q.store.remove(q.ctx, bucketShared, cleanKey(sh), casNone)
}

// leaveInOrder leaves the mark. Losing it only means more doubt than is due.
func (q *Queue) leaveInOrder(ctx context.Context, sh *shard) {
	if _, err := q.store.put(ctx, bucketShared, cleanKey(sh), []byte(q.o.Node), casNone); err != nil {
		q.o.Log.Warn("a shard was given up without its mark", "shard", sh.n, "err", err)
	}
}
