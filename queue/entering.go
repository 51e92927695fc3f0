package queue

import (
	"context"
	"sync"

	"github.com/deliverd/deliverd/mail"
)

// entering knows the messages that Enqueue has in hand. The feed leaves them alone.
type entering struct {
	mu   sync.Mutex
	byID map[mail.ID]*enterState
}

type enterState struct{ superseded bool }

func (e *entering) begin(id mail.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byID[id] = &enterState{}
}

func (e *entering) has(id mail.ID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.byID[id] != nil
}

// end hands the message on, told whether a newer one came meanwhile. Whoever brings a
// newer one finds the message here before hand, or after it where hand put it; hand
// must not block.
func (e *entering) end(id mail.ID, hand func(superseded bool)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.byID[id]
	delete(e.byID, id)
	hand(st != nil && st.superseded)
}

// forget is end for a message that is handed on to nobody.
func (e *entering) forget(id mail.ID) { e.end(id, func(bool) {}) }

// supersede tells the Enqueue that has the message, if one has.
func (e *entering) supersede(id mail.ID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.byID[id]
	if st != nil {
		st.superseded = true
	}
	return st != nil
}

// keyLocks lets one request at a time work on an idempotency key in this process.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

func (k *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		ch := k.held[key]
		if ch == nil {
			ch = make(chan struct{})
			k.held[key] = ch
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, key)
				k.mu.Unlock()
				close(ch)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hotRecords keeps the newest accepted records in memory until they are taken, which
// for most is at once, so that they need not be read back.
type hotRecords struct {
	mu    sync.Mutex
	byID  map[mail.ID]hotRecord
	order []mail.ID // oldest first, with gaps
	size  int
}

type hotRecord struct {
	r   *record
	rev uint64
}

// hotMost bounds what hotRecords holds, in bytes of sealed data; what is around it is
// of the same order.
const hotMost = 16 << 20

func (h *hotRecords) put(r *record, rev uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := r.Message.ID
	h.byID[id] = hotRecord{r, rev}
	h.order = append(h.order, id)
	h.size += hotSize(r)
	for h.size > hotMost || len(h.order) > 2*len(h.byID)+64 {
		h.drop(h.order[0])
		h.order = h.order[1:]
	}
}

func hotSize(r *record) int { return len(r.sealed) + 512 }

func (h *hotRecords) drop(id mail.ID) {
	if e, ok := h.byID[id]; ok {
		h.size -= hotSize(e.r)
		delete(h.byID, id)
	}
}

// take returns and forgets a record, if it is here in that revision.
func (h *hotRecords) take(id mail.ID, rev uint64) *record {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.byID[id]
	if !ok {
		return nil
	}
	h.drop(id)
	if e.rev != rev {
		return nil
	}
	return e.r
}
