package queue

import (
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// sched decides which message is tried next. It holds every waiting message of this
// node's shards as an [item]:
//
//	timer heap        waiting, by due time; ready and held, by expiry
//	flows             ready, of one destination, tenant and lane: by time left, then age
//	destinations      their flows, by lane, then whose tenant's turn it is (dest.go)
//	open heaps        the destinations that have a ready message and a free slot, by
//	                  their first flow; those in doubt apart
//	looks heap        the destinations that time will open
//	ending list       what ends without an attempt: expired, superseded, cancelled
//
// Nothing that it does on the way of one message looks at more than a logarithm of
// the others. All its methods lock; none blocks.
type sched struct {
	lane      func(kind string) int
	provider  func(domain string) string
	reserved  int // of an attempt's slots, for lane 1
	slots     int
	perEnding int
	wakeup    chan struct{} // one token: take may find more than it did

	mu      sync.Mutex
	items   slab
	byID    map[[16]byte]handle
	domains names
	tenants names
	kinds   names
	timers  heapOf[handle]
	now     int64 // Unix milliseconds, as a caller with a clock last said
	ending  []handle
	ends    int // items of ending in workers' hands
	sending int
	pauses  []selector

	tracks    tracks
	dests     []*dest
	destIDs   names
	flows     []flow
	flowIDs   map[flowKey]uint32
	freeFlows []uint32
	open      heapOf[uint32] // of dests
	doubtful  heapOf[uint32] // of dests
	looks     heapOf[uint32] // of dests, by lookAt
	leavers   []uint32       // dests whose ready items move on
	inDoubt   int            // of sending, begun to a destination in doubt
	turns     []turns        // by tenant: the last turn given
	turn0     turns          // the turn of what was taken last

	itemLess  func(a, b handle) bool
	itemMoved func(h handle, to int32)
	flowLess  func(a, b uint32) bool
	flowMoved func(f uint32, to int32)
}

func newSched(o *Options) *sched {
	s := &sched{
		reserved: o.Reserved, slots: o.Concurrency, perEnding: o.Concurrency,
		provider: o.Provider, wakeup: make(chan struct{}, 1), byID: map[[16]byte]handle{}, flowIDs: map[flowKey]uint32{},
		lane: func(kind string) int { return o.kind(kind).Lane },
		tracks: tracks{named: o.Destination, limits: o.Limits, most: o.PerDestination,
			byName: map[string]*track{}, routes: map[string]string{}},
	}
	if !o.Alone {
		s.tracks.heard = map[string]*track{}
	}
	s.itemLess = func(a, b handle) bool { return s.items.at(a).before(s.items.at(b)) }
	s.itemMoved = func(h handle, to int32) { s.items.at(h).ready = to }
	s.flowLess = s.flowBefore
	s.flowMoved = func(f uint32, to int32) { s.flows[f].place = to }
	s.timers = heapOf[handle]{
		less:  func(a, b handle) bool { return s.items.at(a).wake() < s.items.at(b).wake() },
		moved: func(h handle, to int32) { s.items.at(h).timer = to },
	}
	s.open = heapOf[uint32]{
		less:  func(a, b uint32) bool { return s.flowBefore(s.dests[a].flows.list[0], s.dests[b].flows.list[0]) },
		moved: func(d uint32, to int32) { s.dests[d].open = to },
	}
	s.doubtful = s.open
	s.looks = heapOf[uint32]{
		less:  func(a, b uint32) bool { return s.dests[a].lookAt < s.dests[b].lookAt },
		moved: func(d uint32, to int32) { s.dests[d].look = to },
	}
	return s
}

func (s *sched) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// put adds a message, or brings it up to date with a newer revision of its record. A
// message that a worker has is left to the worker, which will find the revision
// changed.
func (s *sched) put(id [16]byte, shard int, rev uint64, x index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.byID[id]
	if ok {
		it := s.items.at(h)
		if rev <= it.rev && it.flags&flagGone == 0 {
			return
		}
		if it.place == placeTaken {
			it.flags |= x.wish
			return
		}
		s.detach(h)
	} else {
		h = s.items.alloc()
		s.byID[id] = h
		it := s.items.at(h)
		it.id, it.shard = id, uint8(shard)
		it.timer, it.ready = -1, -1
		it.domain, it.tenant = s.domains.hold(x.domain), s.tenants.hold(x.tenant)
		it.kind = uint16(s.kinds.hold(x.kind))
		it.lane = uint8(min(max(s.lane(x.kind), 1), 255))
	}
	s.schedule(h, rev, x)
}

// schedule places an item that is in no structure; mu must be held.
func (s *sched) schedule(h handle, rev uint64, x index) {
	it := s.items.at(h)
	it.rev, it.due, it.exp = rev, x.due, x.exp
	it.attempts = uint16(min(x.attempts, 1<<16-1))
	it.flags = it.flags&^flagDelayed | x.wish
	if x.state == mail.StateDelayed {
		it.flags |= flagDelayed
	}
	if it.flags&(flagSuperseded|flagCancelled) != 0 {
		s.end(h)
		return
	}
	it.place = placeWaiting
	s.timers.push(h)
	if it.timer == 0 {
		s.wake()
	}
}

// detach takes an item that no worker has out of every structure; mu must be held.
func (s *sched) detach(h handle) {
	it := s.items.at(h)
	if it.timer >= 0 {
		s.timers.remove(it.timer)
	}
	if it.ready >= 0 {
		d := it.dest
		s.dequeue(h)
		s.reopen(d)
		s.leave(d)
	}
	if it.place == placeEnding {
		for i, e := range s.ending {
			if e == h {
				s.ending = append(s.ending[:i], s.ending[i+1:]...)
				break
			}
		}
	}
}

// end puts an item that is in no structure on the list of those to be ended.
func (s *sched) end(h handle) {
	s.items.at(h).place = placeEnding
	s.ending = append(s.ending, h)
	s.wake()
}

// forget removes an item altogether; mu must be held and the item be detached.
func (s *sched) forget(h handle) {
	it := s.items.at(h)
	delete(s.byID, it.id)
	s.domains.drop(it.domain)
	if s.tenants.drop(it.tenant); s.tenants.list[it.tenant].uses == 0 && int(it.tenant) < len(s.turns) {
		s.turns[it.tenant] = turns{}
	}
	s.kinds.drop(uint32(it.kind))
	s.items.release(h)
}

// remove forgets a message whose record is gone, unless a worker has it.
func (s *sched) remove(id [16]byte, rev uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.byID[id]
	if !ok || s.items.at(h).rev > rev || s.items.at(h).place == placeTaken {
		return
	}
	s.detach(h)
	s.forget(h)
}

// mark flags a message, if it is here: it ends without another attempt, and one under
// way is told by its Proceed.
func (s *sched) mark(id [16]byte, f flags) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.byID[id]
	if !ok {
		return false
	}
	it := s.items.at(h)
	it.flags |= f
	if it.place != placeTaken && it.place != placeEnding {
		s.detach(h)
		s.end(h)
	}
	return true
}

// unmark takes marks off a taken item that turned out to be wrong.
func (s *sched) unmark(t taken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items.at(t.h).flags &^= flagSuperseded | flagCancelled
}

// taken counts a shard's items in workers' hands.
func (s *sched) taken(shard int) int {
	n := 0
	s.each(func(_ handle, it *item) {
		if int(it.shard) == shard && it.place == placeTaken {
			n++
		}
	})
	return n
}

// flagsOf returns a message's flags, flagGone if it is not here.
func (s *sched) flagsOf(id [16]byte) flags {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.byID[id]; ok {
		return s.items.at(h).flags
	}
	return flagGone
}

// taken is a message in a worker's hands.
type taken struct {
	h      handle
	id     [16]byte
	rev    uint64
	shard  int
	ending bool // no attempt: it expired, or is flagged
	flags  flags
}

// take returns the most urgent message for which there is a slot. Without one it
// returns how long to wait at most before asking again; a token on wakeup comes
// earlier.
func (s *sched) take(now time.Time) (t taken, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now.UnixMilli()
	s.advance(s.now)
	if len(s.ending) > 0 && s.ends < s.perEnding {
		h := s.ending[0]
		s.ending = s.ending[1:]
		if len(s.ending) == 0 {
			s.ending = nil
		}
		s.ends++
		return s.hand(h, true), 0, true
	}
	if h, found := s.pick(); found {
		return s.hand(h, false), 0, true
	}
	wait = time.Hour
	if len(s.timers.list) > 0 {
		next := s.items.at(s.timers.list[0]).wake()
		wait = min(wait, max(time.Duration(next-s.now)*time.Millisecond, 0))
	}
	if len(s.looks.list) > 0 {
		wait = min(wait, time.Duration(s.dests[s.looks.list[0]].lookAt-s.now)*time.Millisecond)
	}
	return taken{}, wait, false
}

func (s *sched) hand(h handle, ending bool) taken {
	it := s.items.at(h)
	if it.timer >= 0 {
		s.timers.remove(it.timer)
	}
	it.place = placeTaken
	return taken{h: h, id: it.id, rev: it.rev, shard: int(it.shard), ending: ending, flags: it.flags}
}

// advanceMost bounds how many timers one call looks at, so that the lock is free again
// soon when a hundred thousand fall due together.
const advanceMost = 2000

// advance moves what has fallen due or expired; mu must be held.
func (s *sched) advance(now int64) {
	for len(s.looks.list) > 0 && s.dests[s.looks.list[0]].lookAt <= now {
		s.reopen(s.looks.list[0])
	}
	for range advanceMost - s.moveOn(advanceMost) {
		if len(s.timers.list) == 0 {
			return
		}
		h := s.timers.list[0]
		it := s.items.at(h)
		if it.wake() > now {
			return
		}
		s.detach(h)
		if it.exp <= now {
			s.end(h)
			continue
		}
		s.makeReady(h)
	}
	s.wake() // there may be more
}

// makeReady puts a due item that is in no structure where it can be picked.
func (s *sched) makeReady(h handle) {
	it := s.items.at(h)
	if s.pausedBy(it) != "" {
		it.place = placeHeld
		s.timers.push(h)
		return
	}
	it.place = placeReady
	s.timers.push(h)
	s.enqueue(h, s.destOf(it))
}

// freed gives a taken item's slots back; mu must be held.
func (s *sched) freed(t taken) {
	if t.ending {
		s.ends--
	} else {
		it := s.items.at(t.h)
		d := it.dest
		s.ended(it, s.dests[d])
		s.reopen(d)
		s.leave(d)
	}
	s.wake()
}

// back returns a taken item to wait for its next attempt. False: its shard was lost
// meanwhile, and the item is forgotten.
func (s *sched) back(t taken, rev uint64, x index) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed(t)
	if s.items.at(t.h).flags&flagGone != 0 {
		s.forget(t.h)
		return false
	}
	s.schedule(t.h, rev, x)
	return true
}

// again returns a taken item as it was, to be due at the given time. False: its shard
// was lost meanwhile, and the item is forgotten.
func (s *sched) again(t taken, due time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed(t)
	it := s.items.at(t.h)
	if it.flags&flagGone != 0 {
		s.forget(t.h)
		return false
	}
	it.due = due.UnixMilli()
	if it.flags&(flagSuperseded|flagCancelled) != 0 {
		s.end(t.h)
		return true
	}
	it.place = placeWaiting
	s.timers.push(t.h)
	return true
}

// done forgets a taken item: its record is settled, or another's.
func (s *sched) done(t taken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed(t)
	s.forget(t.h)
}

// slabWalk is how many items one hold of the lock looks at in a walk over all.
const slabWalk = slabChunk

// each calls f for every item, a chunk at a time under the lock. f may take the item
// out of its structures.
func (s *sched) each(f func(h handle, it *item)) {
	for c := 0; ; c++ {
		s.mu.Lock()
		if c >= len(s.items.chunks) {
			s.mu.Unlock()
			return
		}
		for i := range s.items.chunks[c] {
			if it := &s.items.chunks[c][i]; it.place != placeFree {
				f(handle(c*slabWalk+i), it)
			}
		}
		s.mu.Unlock()
	}
}

// drop forgets all items of a shard that is another node's now. A worker that has one
// is told by its Proceed, and by the store when it writes.
func (s *sched) drop(shard int) {
	s.each(func(h handle, it *item) {
		if int(it.shard) != shard {
			return
		}
		if it.place == placeTaken {
			it.flags |= flagGone
			return
		}
		s.detach(h)
		s.forget(h)
	})
}

// shift moves every due time, after the clock was found to be wrong by that much.
func (s *sched) shift(by time.Duration) {
	s.each(func(h handle, it *item) {
		it.due += by.Milliseconds()
		if it.timer >= 0 {
			s.timers.fix(it.timer)
		}
	})
	s.wake()
}
