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
	reopen := func() *journal {
		t.Helper()
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.close() })
		return j
	}
	if j := reopen(); j.exact {
		t.Error("a journal that was never written claims to know")
	}
	j := reopen()
	ended, open, late := mail.NewID(time.Now()), mail.NewID(time.Now()), mail.NewID(time.Now())
	end := j.begin(ended)
	j.begin(open)
	end()
	j.begin(late) // takes the place that became free
	if size := j.size; size != journalHead+2*journalPlace {
		t.Errorf("two attempts at once take %d bytes", size)
	}
	// The process is killed here: nothing is closed.
	j = reopen()
	if !j.exact || len(j.left) != 2 || !j.left[open] || !j.left[late] {
		t.Errorf("exact %v, left %v; want %s and %s", j.exact, j.left, open, late)
	}
	if j = reopen(); !j.exact || len(j.left) != 0 {
		t.Errorf("a process that tried nothing left %v", j.left)
	}
}

// A journal of another boot lost what the machine had not written; one that is torn
// or foreign says nothing either. Each leaves the doubt general.
func TestJournalOfAnotherBootIsNotExact(t *testing.T) {
	t.Parallel()
	id := string(mail.NewID(time.Now()))
	head := func(boot string) string {
		b := make([]byte, journalHead)
		copy(b, journalMagic+boot+"\n")
		return string(b)
	}
	for name, content := range map[string]string{
		"another boot": head("00000000-0000-0000-0000-000000000000") + id,
		"empty":        "",
		"foreign":      "this is no journal, but long enough to be taken for one if nobody looked at it",
		"torn head":    head(bootID())[:10],
	} {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		if j.exact {
			t.Errorf("%s: claims to know what was under way", name)
		}
		j.close()
	}
}
