package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Doubt. A crash between the final dot and the record of its reply leaves a message
// that waits although it was handed over; the next attempt may be a duplicate, and
// law 6 wants that said. Writing each attempt's intention into the store first would
// cost every message a write for the sake of the few that a crash meets. So:
//
//   - A node that stops in order leaves a mark with each shard that it gives up: who
//     takes such a shard has no doubts but those that were there before.
//   - Without the mark, whatever was written and due before the shard was taken may
//     have been under way, whoever wrote it.
//   - Where one process has the store to itself, a journal makes that exact: a file
//     with the ids under way, written without fsync, which outlives a process that is
//     killed, though not the machine. It counts only within the boot in which it was
//     written.
//
// A doubt lasts, over any number of crashes, until the message's next revision.

// journal is the file of the attempts under way, one place each.
type journal struct {
	mu     sync.Mutex
	f      *os.File
	free   []int64 // guarded by mu: offsets of empty places
	size   int64   // guarded by mu
	failed bool    // guarded by mu: the next process won't believe it

	// left are the attempts that processes before were in, with what forgets them;
	// guarded by mu.
	left map[mail.ID]func()
	// general, in Unix milliseconds: what was due by then may have been under way, and
	// the journal of that time is lost.
	general int64
}

const (
	journalMagic = "deliverd journal 1"
	journalHead  = 128 // magic, boot id, general, newline, padding
	journalPlace = 40  // an id as text: a torn write is no id
)

// bootID tells one boot of the machine from another; "" where that can't be known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// openJournal reads what the processes before left, and begins anew.
func openJournal(path string, now time.Time) (*journal, error) {
	j := &journal{left: map[mail.ID]func(){}, general: now.UnixMilli(), size: journalHead}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal: %w", err)
	}
	boot := bootID()
	if head, _, ok := strings.Cut(string(old[:min(len(old), journalHead)]), "\n"); ok && boot != "" {
		if general, found := strings.CutPrefix(head, journalMagic+" "+boot+" "); found {
			if n, err := strconv.ParseInt(general, 10, 64); err == nil {
				j.general = n
			}
		}
	}
	// A new file, so that a crash now finds the old one or the new one.
	if j.f, err = os.CreateTemp(filepath.Dir(path), ".journal-*"); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	head := make([]byte, journalHead)
	copy(head, fmt.Sprintf("%s %s %d\n", journalMagic, boot, j.general))
	_, err = j.f.WriteAt(head, 0)
	for at := journalHead; at+journalPlace <= len(old) && err == nil; at += journalPlace {
		id := mail.ID(old[at : at+journalPlace])
		if _, bad := id.Bytes(); bad == nil {
			j.left[id] = j.begin(id)
		}
	}
	if err == nil && !j.failed {
		err = os.Rename(j.f.Name(), path)
	}
	if err != nil || j.failed {
		return nil, errors.Join(fmt.Errorf("journal: can't write %s: %w", path, err), j.f.Close(), os.Remove(j.f.Name()))
	}
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

// write needs mu. A disk that is full makes the journal useless, and nothing worse: it
// loses its head, and the next process has general doubt.
func (j *journal) write(b []byte, at int64) {
	if j.failed {
		return
	}
	if _, err := j.f.WriteAt(b, at); err != nil {
		j.failed = true
		_ = j.f.Truncate(0)
	}
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}

// doubts reports whether the message may have been under way when the process ended
// that had it before.
func (j *journal) doubts(id mail.ID, due int64) bool {
	return j == nil || due <= j.general || j.names(id)
}

// names reports whether the message was under way when a process ended.
func (j *journal) names(id mail.ID) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.left[id] != nil
}

// settled forgets a doubt: the message has a new revision.
func (j *journal) settled(id mail.ID) {
	if j == nil {
		return
	}
	j.mu.Lock()
	forget := j.left[id]
	delete(j.left, id)
	j.mu.Unlock()
	if forget != nil {
		forget()
	}
}

// doubtful reports whether whoever had the message before may have handed it over
// without having recorded that.
func (q *Queue) doubtful(h *hand) bool {
	due := h.r.Due.UnixMilli()
	if due > h.sh.doubt.Load() {
		return false
	}
	if q.journal.names(h.r.Message.ID) {
		return true
	}
	// A record that we wrote ourselves, since the shard is ours, nobody else has tried.
	// One from before an earlier owner may have, whoever wrote it.
	if ours := h.r.writer == "" || h.r.writer == q.session; ours && h.rev > h.sh.base.Load() {
		return false
	}
	return q.journal.doubts(h.r.Message.ID, due)
}

// cleanKey is where a node that gives a shard up in order says so.
func cleanKey(sh *shard) string { return "queue.clean." + strconv.Itoa(sh.n) }

// settleDoubt says how far the doubt about a shard reaches that was just taken, and
// removes the mark, before anything of it is tried.
func (q *Queue) settleDoubt(sh *shard) error {
	now, _ := q.clock.now()
	e, err := q.store.get(q.ctx, bucketShared, cleanKey(sh))
	if errors.Is(err, ErrNotFound) {
		sh.doubt.Store(now.UnixMilli())
		return nil
	}
	if err != nil {
		return err
	}
	before, err := strconv.ParseInt(string(e.data), 10, 64)
	if err != nil {
		before = now.UnixMilli()
	}
	sh.doubt.Store(before)
	return q.store.remove(q.ctx, bucketShared, cleanKey(sh), casNone)
}

// leaveInOrder leaves the mark, with the doubt that there was. Losing it only means
// more doubt than is due.
func (q *Queue) leaveInOrder(ctx context.Context, sh *shard) {
	before := strconv.AppendInt(nil, sh.doubt.Load(), 10)
	if _, err := q.store.put(ctx, bucketShared, cleanKey(sh), before, casNone); err != nil {
		q.o.Log.Warn("a shard was given up without its mark", "shard", sh.n, "err", err)
	}
}
