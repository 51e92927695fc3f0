package queue

import (
	"sync"

	"github.com/deliverd/deliverd/mail"
)

// troubles counts what went wrong by our own fault, in memory: a message that meets a
// healthy process starts afresh.
type troubles struct {
	troublesMu sync.Mutex
	panics     map[mail.ID]int // guarded by troublesMu
	locals     map[mail.ID]int // guarded by troublesMu: outcomes in a row that did not count
}

func (t *troubles) count(m map[mail.ID]int, id mail.ID) int {
	t.troublesMu.Lock()
	defer t.troublesMu.Unlock()
	m[id]++
	return m[id]
}

func (t *troubles) forget(id mail.ID) {
	t.troublesMu.Lock()
	defer t.troublesMu.Unlock()
	delete(t.panics, id)
	delete(t.locals, id)
}
