package backup

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/deliverd/deliverd/queue"
)

// Report is what is known of a backup, or of a data directory.
type Report struct {
	Began   time.Time `json:"began,omitzero"`    // of a backup
	Version string    `json:"version,omitempty"` // that made it
	queue.Reckoning
	// Damage says what is not as it was written, in sentences.
	Damage []string `json:"damage,omitempty"`
}

// OK reports whether all is as it was written, and nobody's message is missing.
func (r *Report) OK() bool { return len(r.Damage) == 0 && r.Reckoning.OK() }

// VerifyFile reads a backup to its end and holds it against its checksums and against
// its own event log.
func VerifyFile(path string) (Report, error) {
	r, _, _, err := examine(path)
	return r, err
}

// examine is VerifyFile, and returns what a restore needs.
func examine(path string) (Report, *queue.Ledger, contents, error) {
	l := queue.NewLedger()
	c, err := readFile(path, visitor{message: func(stream string, m *queue.Stored) error {
		l.Add(stream, m)
		return nil
	}})
	if err == nil && l.Suspects() {
		_, err = readFile(path, visitor{message: func(stream string, m *queue.Stored) error {
			if queue.EventLog(stream) {
				l.Confirm(m)
			}
			return nil
		}})
	}
	return Report{Began: c.head.Began, Version: c.head.Version, Reckoning: l.Reckon(c.head.Began, c.streams), Damage: c.damage}, l, c, err
}

func readFile(path string, v visitor) (contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return contents{}, err
	}
	defer f.Close()
	return read(f, v)
}

// VerifyDir reads the store in a data directory that no daemon uses, and changes
// nothing in it.
func VerifyDir(dir string) (r Report, err error) {
	streams, err := storedStreams(dir)
	if err != nil {
		return r, err
	}
	l := queue.NewLedger()
	for _, name := range streams {
		err := readBlocks(dir, name, func(m *queue.Stored) { l.Add(name, m) }, func(format string, args ...any) {
			r.Damage = append(r.Damage, fmt.Sprintf(format, args...))
		})
		if err != nil {
			return r, err
		}
	}
	for _, name := range streams {
		if !queue.EventLog(name) || !l.Suspects() {
			continue
		}
		if err := readBlocks(dir, name, l.Confirm, func(string, ...any) {}); err != nil {
			return r, err
		}
	}
	r.Reckoning = l.Reckon(time.Time{}, streams)
	return r, nil
}

// ErrDamaged is what Restore returns for a file that is not whole.
var ErrDamaged = errors.New("the backup is damaged")
