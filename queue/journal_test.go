package queue

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestJournalKeepsWhatWasUnderWay(t *testing.T) {
	t.Parallel()
	if bootID() == "" {
		t.Skip("this system does not tell its boots apart: the journal is never exact here")
	}
	path := filepath.Join(t.TempDir(), "journal")
	began := time.UnixMilli(1_000_000)
	later := began.Add(time.Hour)
	reopen := func(now time.Time) *journal {
		t.Helper()
		j, err := openJournal(path, now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.close() })
		return j
	}
	j := reopen(began)
	ended, open, late, never := mail.NewID(began), mail.NewID(began), mail.NewID(began), mail.NewID(began)
	if !j.doubts(never, began.UnixMilli()) {
		t.Error("a journal that was never written claims to know what was due before it")
	}
	end := j.begin(ended)
	j.begin(open)
	end()
	j.begin(late) // takes the place that became free
	if size := j.size; size != journalHead+2*journalPlace {
		t.Errorf("two attempts at once take %d bytes", size)
	}
	due := began.Add(time.Minute).UnixMilli()
	for crash := range 3 { // each process is killed: nothing is closed, and nothing was settled
		j = reopen(later)
		for id, want := range map[mail.ID]bool{ended: false, open: true, late: true, never: false} {
			if got := j.doubts(id, due); got != want {
				t.Errorf("after crash %d: doubt about %s: %v", crash+1, id, got)
			}
		}
		if !j.doubts(never, began.UnixMilli()) {
			t.Error("the doubt about what was due before the first journal was forgotten")
		}
	}
	j.settled(open)
	if j = reopen(later); j.doubts(open, due) || !j.doubts(late, due) {
		t.Error("one doubt was settled, and the other was not")
	}
}

// A journal of another boot lost what the machine had not written; one that is torn
// or foreign says nothing either. Each leaves the doubt general.
func TestJournalOfAnotherBootIsNotExact(t *testing.T) {
	t.Parallel()
	now := time.Now()
	id := mail.NewID(now)
	head := func(boot string) string {
		b := make([]byte, journalHead)
		copy(b, journalMagic+" "+boot+" 0\n")
		return string(b)
	}
	for name, content := range map[string]string{
		"another boot": head("00000000-0000-0000-0000-000000000000") + string(id),
		"empty":        "",
		"foreign":      "this is no journal, but long enough to be taken for one if nobody looked at it",
		"torn head":    head(bootID())[:10],
		"no number":    journalMagic + " " + bootID() + " x\n",
	} {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(path, now)
		if err != nil {
			t.Fatal(err)
		}
		if !j.doubts(mail.NewID(now), now.UnixMilli()) {
			t.Errorf("%s: claims to know what was under way", name)
		}
		j.close()
	}
}
