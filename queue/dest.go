package queue

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// dest is one destination: what has mail ready for it, or under way.
type dest struct {
	track    *track
	flows    heapOf[uint32] // of sched.flows: those with ready items
	inflight int
	open     int32 // place in the heap of open destinations, -1: not there
	doubtful bool  // and that heap is sched.doubtful
	look     int32 // place in the looks heap, -1: not there
	lookAt   int64 // when time opens it, in Unix milliseconds
	leaving  bool  // its mail goes on to the destination that became known
}

// flow is one tenant's ready items of one lane in one destination.
type flow struct {
	dest, tenant uint32
	round        uint32 // of its first item's turn, see turn
	place        int32  // in the destination's heap, -1: the slot is free
	lane         uint8
	ready        heapOf[handle]
}

type flowKey struct {
	dest, tenant uint32
	lane         uint8
}

// Turns are how tenants share (start-time fair queueing): the first item of each flow
// has a number, one more than its tenant's last or than that of the item taken last,
// whichever is larger. So a tenant with mail for a thousand destinations is a thousand
// turns ahead of one that comes with a single message, whose turn is next. Within
// turnRound of each other's turns, urgency decides.
const turnRound = 32

// turnLanes: lanes from here on share their turns' count, not their order.
const turnLanes = 4

type turns [turnLanes]uint64

func turnLane(lane uint8) int { return min(int(lane), turnLanes) - 1 }

// turn gives the first item of a flow its turn.
func (s *sched) turn(f *flow) {
	for int(f.tenant) >= len(s.turns) {
		s.turns = append(s.turns, turns{})
	}
	lane := turnLane(f.lane)
	n := max(s.turn0[lane], s.turns[f.tenant][lane]) + 1
	s.turns[f.tenant][lane] = n
	f.round = uint32(n / turnRound)
}

// flowBefore orders flows: lane, then turn, then their first items.
func (s *sched) flowBefore(a, b uint32) bool {
	f, g := &s.flows[a], &s.flows[b]
	if f.lane != g.lane {
		return f.lane < g.lane
	}
	if f.round != g.round {
		return f.round < g.round
	}
	return s.items.at(f.ready.list[0]).before(s.items.at(g.ready.list[0]))
}

// enqueue puts an item into its destination.
func (s *sched) enqueue(h handle, name string) {
	it := s.items.at(h)
	it.dest = s.enterDest(name)
	key := flowKey{it.dest, it.tenant, it.lane}
	id, ok := s.flowIDs[key]
	if !ok {
		id = s.newFlow(key)
	}
	f := &s.flows[id]
	it.flow = id
	f.ready.push(h)
	d := s.dests[it.dest]
	if ok {
		d.flows.fix(f.place)
	} else {
		s.turn(f)
		d.flows.push(id)
	}
	s.reopen(it.dest)
}

func (s *sched) newFlow(key flowKey) uint32 {
	var id uint32
	if last := len(s.freeFlows) - 1; last >= 0 {
		id = s.freeFlows[last]
		s.freeFlows = s.freeFlows[:last]
	} else {
		id = uint32(len(s.flows))
		s.flows = append(s.flows, flow{})
	}
	list := s.flows[id].ready.list
	s.flows[id] = flow{dest: key.dest, tenant: key.tenant, lane: key.lane, place: -1,
		ready: heapOf[handle]{list: list, less: s.itemLess, moved: s.itemMoved}}
	s.flowIDs[key] = id
	return id
}

// dequeue takes an item out of its flow. The destination still counts it.
func (s *sched) dequeue(h handle) {
	it := s.items.at(h)
	f := &s.flows[it.flow]
	d := s.dests[f.dest]
	first := it.ready == 0
	f.ready.remove(it.ready)
	switch {
	case len(f.ready.list) == 0:
		d.flows.remove(f.place)
		delete(s.flowIDs, flowKey{f.dest, f.tenant, f.lane})
		if cap(f.ready.list) > keptFlow {
			f.ready.list = nil
		}
		s.freeFlows = append(s.freeFlows, it.flow)
	case first:
		d.flows.fix(f.place)
	}
}

// keptFlow is the largest list that is kept with a free flow.
const keptFlow = 8

// head is the item that a destination would send first.
func (s *sched) head(d *dest) *item {
	return s.items.at(s.flows[d.flows.list[0]].ready.list[0])
}

// enterDest returns the destination of a name and counts one more item in it.
func (s *sched) enterDest(name string) uint32 {
	id := s.destIDs.hold(name)
	for int(id) >= len(s.dests) {
		s.dests = append(s.dests, nil)
	}
	if s.dests[id] == nil {
		s.dests[id] = &dest{open: -1, look: -1, track: s.tracks.of(name),
			flows: heapOf[uint32]{less: s.flowLess, moved: s.flowMoved}}
	}
	return id
}

// leave counts one item less in a destination, which goes with its last. What was
// learned of it stays.
func (s *sched) leave(id uint32) {
	s.destIDs.drop(id)
	if s.destIDs.list[id].uses > 0 {
		return
	}
	d := s.dests[id]
	s.shut(d)
	if d.look >= 0 {
		s.looks.remove(d.look)
	}
	s.dests[id] = nil
}

// shut takes a destination out of the heap of those that may send.
func (s *sched) shut(d *dest) {
	if d.open >= 0 {
		s.openHeap(d).remove(d.open)
	}
}

func (s *sched) openHeap(d *dest) *heapOf[uint32] {
	if d.doubtful {
		return &s.doubtful
	}
	return &s.open
}

// reopen brings a destination's places in the heaps up to date.
func (s *sched) reopen(id uint32) {
	d := s.dests[id]
	open, at := false, int64(0)
	if len(d.flows.list) > 0 && !d.leaving {
		open, at = s.room(d, s.head(d))
	}
	if doubtful := d.track.doubtful(); doubtful != d.doubtful {
		s.shut(d)
		d.doubtful = doubtful
	}
	switch {
	case open && d.open < 0:
		s.openHeap(d).push(id)
	case open:
		s.openHeap(d).fix(d.open)
	default:
		s.shut(d)
	}
	switch {
	case at == 0 && d.look >= 0:
		s.looks.remove(d.look)
	case at != 0 && d.look < 0:
		d.lookAt = at
		s.looks.push(id)
	case at != 0 && at != d.lookAt:
		d.lookAt = at
		s.looks.fix(d.look)
	}
}

// room says whether a destination may begin another attempt, of an item, and if it is
// time alone that keeps it from that, until when. A tenth of its slots, at least one,
// is lane 1's; where there is only one, lane 1 may have a second. A destination that is
// down is looked at by one item at a time, when it is time to or when the item has no
// later chance, and by lane 1 whenever one is due: its retries are its own.
func (s *sched) room(d *dest, it *item) (ok bool, until int64) {
	t := d.track
	if t.down() {
		if d.inflight > 0 {
			return false, 0
		}
		look := t.Look.UnixMilli()
		if it.lane <= 1 || s.now >= look || it.exp <= look {
			return true, 0
		}
		return false, look
	}
	limit := t.slots(s.now)
	if it.lane <= 1 {
		return d.inflight < max(limit, 2), 0
	}
	if limit > 1 {
		limit -= max(limit/10, 1)
	}
	if d.inflight >= limit {
		return false, 0
	}
	if t.next > s.now {
		return false, t.next
	}
	return true, 0
}

// pick finds the first ready item that has a slot; mu must be held.
func (s *sched) pick() (handle, bool) {
	for s.sending < s.slots {
		id, found := s.nextOpen()
		if !found {
			return 0, false
		}
		d := s.dests[id]
		f := &s.flows[d.flows.list[0]]
		h := f.ready.list[0]
		it := s.items.at(h)
		if it.lane > 1 && s.sending >= s.slots-s.reserved {
			return 0, false // what is left is lane 1's
		}
		lane := turnLane(it.lane)
		s.turn0[lane] = max(s.turn0[lane], uint64(f.round)*turnRound)
		flow := it.flow
		s.dequeue(h)
		if f := &s.flows[flow]; len(f.ready.list) > 0 {
			s.turn(f)
			d.flows.fix(f.place)
		}
		if s.pausedBy(it) != "" {
			it.place = placeHeld // it stays in the timer heap for its expiry
			s.reopen(id)
			s.leave(id)
			continue
		}
		s.begin(it, d)
		s.reopen(id)
		return h, true
	}
	return 0, false
}

// nextOpen returns the destination that is to send next. Those in doubt have half of
// the slots, lane 1 apart: a black hole's attempts take minutes, and all that is known
// to take mail must not wait behind a hundred of them.
func (s *sched) nextOpen() (uint32, bool) {
	sound, doubtful := s.open.list, s.doubtful.list
	if len(doubtful) > 0 && s.inDoubt >= max((s.slots-s.reserved)/2, 1) && s.head(s.dests[doubtful[0]]).lane > 1 {
		doubtful = nil
	}
	switch {
	case len(sound) == 0 && len(doubtful) == 0:
		return 0, false
	case len(doubtful) == 0, len(sound) > 0 && s.flowBefore(s.dests[sound[0]].flows.list[0], s.dests[doubtful[0]].flows.list[0]):
		return sound[0], true
	}
	return doubtful[0], true
}

// begin counts an item's attempt as under way.
func (s *sched) begin(it *item, d *dest) {
	d.inflight++
	s.sending++
	if d.track.doubtful() {
		s.inDoubt++
		it.flags |= flagDoubt
	}
	d.track.began(s.now)
}

// ended counts it out.
func (s *sched) ended(it *item, d *dest) {
	d.inflight--
	s.sending--
	if it.flags&flagDoubt != 0 {
		s.inDoubt--
		it.flags &^= flagDoubt
	}
}

// provisional is the destination of a domain of which nothing is known. No server's
// name begins so.
func provisional(domain string) string { return "@" + domain }

// enter is told where a taken item's mail goes, and says whether there is room. Mail of
// its domain that is ready follows.
func (s *sched) enter(t taken, name string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now.UnixMilli()
	it := s.items.at(t.h)
	domain := s.domains.text(it.domain)
	s.tracks.route(domain, name)
	from := it.dest
	if s.destIDs.text(from) == name {
		return true
	}
	if s.destIDs.text(from) == provisional(domain) {
		s.follow(from)
	}
	to := s.enterDest(name)
	d := s.dests[to]
	if ok, _ := s.room(d, it); !ok {
		s.leave(to)
		return false
	}
	s.ended(it, s.dests[from])
	s.reopen(from)
	s.leave(from)
	it.dest = to
	s.begin(it, d)
	s.reopen(to)
	return true
}

// follow lets what is ready in a provisional destination go where its domain's mail
// goes; advance moves it, some at a time.
func (s *sched) follow(id uint32) {
	if d := s.dests[id]; !d.leaving && len(d.flows.list) > 0 {
		d.leaving = true
		s.leavers = append(s.leavers, s.destIDs.hold(s.destIDs.text(id)))
		s.reopen(id)
		s.wake()
	}
}

// moveOn moves up to n items of destinations that are being left, and returns how many
// those were.
func (s *sched) moveOn(n int) (moved int) {
	for len(s.leavers) > 0 {
		id := s.leavers[0]
		d := s.dests[id]
		for len(d.flows.list) > 0 {
			if moved == n {
				return moved
			}
			moved++
			h := s.flows[d.flows.list[0]].ready.list[0]
			s.dequeue(h)
			s.leave(id)
			s.enqueue(h, s.destOf(s.items.at(h)))
		}
		d.leaving = false
		s.leavers = s.leavers[1:]
		s.leave(id)
	}
	s.leavers = nil
	return moved
}

// destOf names an item's destination.
func (s *sched) destOf(it *item) string { return s.tracks.destination(s.domains.text(it.domain)) }

// feedback tells a taken item's destination how the contact with it went.
func (s *sched) feedback(t taken, o *mail.Outcome, now time.Time) {
	if o.Contact == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now.UnixMilli()
	id := s.items.at(t.h).dest
	d := s.dests[id]
	if o.Evidence.Stage == mail.StageDNS && s.destIDs.text(id) != provisional(s.domains.text(s.items.at(t.h).domain)) {
		return // one domain's zone, not the servers that it shares with others
	}
	d.track.learn(o, d.inflight, now)
	if s.tracks.heard != nil {
		s.tracks.heard[s.destIDs.text(id)] = d.track
	}
	s.reopen(id)
	s.wake()
}
