package queue

import "cmp"

// item is all that a shard's owner holds of a waiting message: 72 bytes without a
// pointer, so that a million cost little and the garbage collector walks past them.
type item struct {
	id       [16]byte
	rev      uint64 // revision of the record in its bucket
	due, exp int64  // Unix milliseconds
	domain   uint32 // names.hold
	tenant   uint32
	dest     uint32 // in dests, while ready or sending
	flow     uint32 // in flows, while ready
	timer    int32  // place in the timer heap, -1: not there
	ready    int32  // place in its flow's heap, -1: not there
	kind     uint16 // names.hold
	attempts uint16
	shard    uint8
	lane     uint8
	place    place
	flags    flags
}

// place says which structure an item is in.
type place uint8

const (
	placeFree    place = iota // the slot is empty
	placeWaiting              // timer heap, by due
	placeReady                // its flow's heap; timer heap by expiry
	placeHeld                 // paused; timer heap by expiry
	placeEnding               // in the list of those to be ended without an attempt
	placeTaken                // with a worker
)

type flags uint8

const (
	flagDelayed    flags = 1 << iota // at least one attempt ended without a decision
	flagSuperseded                   // a newer message was accepted
	flagCancelled
	flagGone  // the shard was lost while a worker had it
	flagDoubt // the attempt under way counts in inDoubt
	flagKept  // of a record: it has ended, and its Data is kept to be sent again
)

// handle is an item's place in the slab.
type handle uint32

const slabChunk = 1 << 12

// slab holds items in chunks that never move.
type slab struct {
	chunks [][]item
	free   []handle
	used   int
}

func (s *slab) at(h handle) *item { return &s.chunks[h/slabChunk][h%slabChunk] }

func (s *slab) alloc() handle {
	if len(s.free) == 0 {
		base := handle(len(s.chunks) * slabChunk)
		s.chunks = append(s.chunks, make([]item, slabChunk))
		for i := handle(slabChunk); i > 0; i-- {
			s.free = append(s.free, base+i-1)
		}
	}
	h := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.used++
	return h
}

func (s *slab) release(h handle) {
	*s.at(h) = item{}
	s.free = append(s.free, h)
	s.used--
}

// wake is when an item in the timer heap must be looked at.
func (it *item) wake() int64 {
	if it.place == placeWaiting {
		return min(it.due, it.exp)
	}
	return it.exp
}

// before orders ready items: lane, then time left, then age.
func (it *item) before(o *item) bool {
	c := cmp.Compare(it.lane, o.lane)
	if c == 0 {
		c = cmp.Compare(it.exp, o.exp)
	}
	if c == 0 {
		c = cmp.Compare(madeAt(it.id), madeAt(o.id))
	}
	return c < 0
}

// heapOf is a binary heap of small integers whose order and places are kept by its
// owner. container/heap boxes every value that is pushed or popped.
type heapOf[T ~uint32] struct {
	list  []T
	less  func(a, b T) bool
	moved func(v T, to int32)
}

func (h *heapOf[T]) push(v T) {
	h.list = append(h.list, v)
	h.up(len(h.list) - 1)
}

// remove takes out what is at place i.
func (h *heapOf[T]) remove(i int32) {
	last := len(h.list) - 1
	v := h.list[i]
	if int(i) != last {
		h.list[i] = h.list[last]
	}
	h.list = h.list[:last]
	h.moved(v, -1)
	if int(i) != last {
		h.fix(i)
	}
}

// fix restores the order after what is at place i changed.
func (h *heapOf[T]) fix(i int32) {
	if !h.down(int(i)) {
		h.up(int(i))
	}
}

func (h *heapOf[T]) up(i int) {
	v := h.list[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(v, h.list[parent]) {
			break
		}
		h.set(i, h.list[parent])
		i = parent
	}
	h.set(i, v)
}

func (h *heapOf[T]) down(i int) bool {
	start, v := i, h.list[i]
	for {
		child := 2*i + 1
		if child >= len(h.list) {
			break
		}
		if r := child + 1; r < len(h.list) && h.less(h.list[r], h.list[child]) {
			child = r
		}
		if !h.less(h.list[child], v) {
			break
		}
		h.set(i, h.list[child])
		i = child
	}
	h.set(i, v)
	return i > start
}

func (h *heapOf[T]) set(i int, v T) {
	h.list[i] = v
	h.moved(v, int32(i))
}
