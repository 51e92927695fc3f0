package console

import (
	"sync"

	"github.com/deliverd/deliverd/mail"
)

// hub tells those who wait that the view has moved. It carries no events: whoever
// is woken reads the view, so a slow reader holds nobody up and misses nothing.
type hub struct {
	mu       sync.Mutex
	at       uint64        // the view's place
	movedC   chan struct{} // closed when at changes; nil while nobody waits
	watchers map[mail.ID]map[chan struct{}]struct{}
	// wanted holds one value after somebody began to wait.
	wanted chan struct{}
}

func newHub() hub { return hub{wanted: make(chan struct{}, 1)} }

// idle reports whether nobody waits for anything.
func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.movedC == nil && len(h.watchers) == 0
}

// want wakes whoever gathers events at leisure.
func (h *hub) want() {
	select {
	case h.wanted <- struct{}{}:
	default:
	}
}

func (h *hub) place() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

// moved returns a channel that is closed when the place changes next.
func (h *hub) moved() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.movedC == nil {
		h.movedC = make(chan struct{})
		h.want()
	}
	return h.movedC
}

// watch returns a channel that holds one value after every batch that touched the
// message, and the function that ends it.
func (h *hub) watch(id mail.ID) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = map[mail.ID]map[chan struct{}]struct{}{}
	}
	if h.watchers[id] == nil {
		h.watchers[id] = map[chan struct{}]struct{}{}
	}
	h.watchers[id][c] = struct{}{}
	h.want()
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers[id], c)
		if len(h.watchers[id]) == 0 {
			delete(h.watchers, id)
		}
	}
}

// moveTo sets the place and wakes everyone who waits for that or for one of the
// messages.
func (h *hub) moveTo(place uint64, messages ...mail.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = place
	if h.movedC != nil {
		close(h.movedC)
		h.movedC = nil
	}
	if len(h.watchers) == 0 {
		return
	}
	for _, id := range messages {
		for c := range h.watchers[id] {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}
