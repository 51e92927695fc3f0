package queue

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// One tenant's 50,000 do not hold back another's few, neither in a destination nor
// across them.
func TestTenantsTakeTurns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		domain func(n uint64) string
	}{
		{"one destination", func(uint64) string { return "a" }},
		{"a thousand destinations", func(n uint64) string { return fmt.Sprint(n % 1000) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := testSched(Options{Concurrency: 100, PerDestination: 100})
			s.tracks.limits = func(string) Limits { return Limits{Initial: 100} }
			for n := range uint64(50_000) {
				s.addFor("big", n, "3", c.domain(n), 0, time.Hour)
			}
			for n := range uint64(1000) {
				s.proven(provisional(c.domain(n)))
			}
			var running []taken
			taken, small := 0, 0
			step := func() {
				for {
					h, _, ok := s.take(epoch)
					if !ok {
						break
					}
					taken++
					if binary.BigEndian.Uint64(h.id[8:]) >= 100_000 {
						small++
					}
					running = append(running, h)
				}
				s.done(running[0])
				running = running[1:]
			}
			for range 5000 {
				step()
			}
			for n := range uint64(20) { // less urgent, and later
				s.addFor("small", 100_000+n, "3", c.domain(n), 0, 2*time.Hour)
			}
			began := taken
			for small < 20 {
				step()
			}
			t.Logf("20 messages were begun among %d", taken-began)
			if taken-began > 20+4*turnRound {
				t.Errorf("the small tenant's 20 waited for %d of the big one's", taken-began-20)
			}
		})
	}
}

// An attempt finds out where a domain's mail goes; what is ready goes there with it,
// and shares that destination's limit.
func TestADomainsMailFollowsToItsDestination(t *testing.T) {
	t.Parallel()
	s := testSched(Options{Concurrency: 100, PerDestination: 10, Limits: func(name string) Limits {
		if name == "provider" {
			return Limits{Initial: 3, Most: 3}
		}
		return Limits{}
	}})
	const domains = 40
	for n := range uint64(400) {
		s.add(n, "3", fmt.Sprint(n%domains), 0, time.Hour)
	}
	var hands []taken
	for { // until every domain has been tried
		_, begun := s.order(0)
		if len(begun) == 0 {
			break
		}
		for _, h := range begun {
			if s.enter(h, "provider", epoch) {
				hands = append(hands, h)
			} else {
				s.again(h, epoch)
			}
		}
	}
	if len(hands) != 2 { // the third is lane 1's
		t.Errorf("%d attempts went on", len(hands))
	}
	for _, h := range hands {
		if !s.enter(h, "provider", epoch) {
			t.Error("one that is in was told to leave")
		}
	}
	if len(s.destIDs.byName) != 1 {
		t.Errorf("the destinations are %v", s.destIDs.byName)
	}
	s.add(1000, "1", "7", 0, time.Hour)
	if got, _ := s.order(0); fmt.Sprint(got) != "[1000]" {
		t.Errorf("a PIN to the busy provider: %v", got)
	}
	for n := 0; n < 400; n++ { // nothing was lost on the way
		if len(hands) == 0 {
			t.Fatalf("none is begun after %d", n)
		}
		s.done(hands[0])
		_, more := s.order(0)
		hands = append(hands[1:], more...)
	}
}

// While a destination is down: one look at a time, and lane 1 whenever it is due.
func TestA01ADeadDestinationIsLookedAt(t *testing.T) {
	t.Parallel()
	s := testSched(Options{Limits: func(string) Limits { return Limits{} }})
	for n := range uint64(100) {
		s.add(n, "3", "a", 0, time.Hour)
	}
	fail := func(at time.Duration, hands []taken) {
		for _, h := range hands {
			s.feedback(h, &mail.Outcome{State: mail.StateDelayed, Contact: mail.ContactDown}, epoch.Add(at))
		}
		for _, h := range hands {
			s.again(h, epoch.Add(at+time.Second))
		}
	}
	got, hands := s.order(0)
	if len(got) != 4 {
		t.Fatalf("%d at first", len(got))
	}
	fail(0, hands)
	if got, _ := s.order(29 * time.Second); len(got) != 0 {
		t.Errorf("%d while it is left alone", len(got))
	}
	if _, wait, _ := s.take(epoch.Add(29 * time.Second)); wait != time.Second {
		t.Errorf("the look is %v away", wait)
	}
	s.add(200, "1", "a", 0, time.Hour)
	s.add(201, "1", "a", 0, time.Hour)
	pins, hands := s.order(29 * time.Second)
	if len(pins) != 1 || pins[0] < 200 {
		t.Errorf("a PIN meanwhile: %v", pins)
	}
	for _, h := range hands {
		s.done(h)
	}
	s.mark(testID(200), flagCancelled)
	s.mark(testID(201), flagCancelled)
	for _, h := range drain(s, 29*time.Second) {
		s.done(h)
	}
	got, hands = s.order(30 * time.Second)
	if len(got) != 1 {
		t.Errorf("%d look", len(got))
	}
	fail(31*time.Second, hands)
	if got, _ := s.order(90 * time.Second); len(got) != 0 {
		t.Errorf("%d before the second look", len(got))
	}
	s.add(300, "2", "a", 90*time.Second, 91*time.Second)
	if got, hands = s.order(90 * time.Second); fmt.Sprint(got) != "[300]" {
		t.Errorf("what has no later chance is not tried: %v", got)
	}
	s.feedback(hands[0], &mail.Outcome{State: mail.StateAccepted, Contact: mail.ContactOK}, epoch.Add(90*time.Second))
	s.done(hands[0])
	if got, _ := s.order(90 * time.Second); len(got) != 4 {
		t.Errorf("%d begin when it is back, want the initial window", len(got))
	}
}

func drain(s *sched, at time.Duration) []taken {
	_, hands := s.order(at)
	return hands
}

// A retry by hand does not wait for the look.
func TestARetryLooksAtOnce(t *testing.T) {
	t.Parallel()
	s := testSched(Options{Limits: func(string) Limits { return Limits{Initial: 1} }})
	s.add(1, "3", "a", 0, time.Hour)
	s.add(2, "3", "a", 0, time.Hour)
	_, hands := s.order(0)
	s.feedback(hands[0], &mail.Outcome{State: mail.StateDelayed, Contact: mail.ContactDown}, epoch)
	s.again(hands[0], epoch.Add(time.Minute))
	if got, _ := s.order(0); len(got) != 0 {
		t.Fatalf("taken %v", got)
	}
	if n := s.retryNow(selector{"domain", "a"}, epoch); n != 1 {
		t.Errorf("%d became due", n)
	}
	if got, _ := s.order(0); len(got) != 1 {
		t.Errorf("%v looks", got)
	}
}

// A pace holds for all but lane 1.
func TestAPaceIsKept(t *testing.T) {
	t.Parallel()
	s := testSched(Options{Limits: func(string) Limits { return Limits{Initial: 20, PerMinute: 30} }})
	for n := range uint64(10) {
		s.add(n, "3", "a", 0, time.Hour)
	}
	first, _ := s.order(0)
	if _, wait, _ := s.take(epoch); len(first) != 1 || wait <= 0 || wait > 2*time.Second {
		t.Errorf("%d at once, the next after %v", len(first), wait)
	}
	if got, _ := s.order(2 * time.Second); len(got) != 1 {
		t.Errorf("%d two seconds later", len(got))
	}
	s.add(100, "1", "a", 0, time.Hour)
	if got, _ := s.order(2 * time.Second); fmt.Sprint(got) != "[100]" {
		t.Errorf("a PIN: %v", got)
	}
}

// What nodes learn in the same second comes to the same on both, and to what is safe.
func TestNodesAgree(t *testing.T) {
	t.Parallel()
	nodes := [2]*sched{testSched(Options{}), testSched(Options{})}
	share := func(at time.Duration) {
		said := [2][]lesson{nodes[0].lessons(epoch.Add(at)), nodes[1].lessons(epoch.Add(at))}
		for i, s := range nodes {
			for _, l := range said[1-i] {
				s.hear(fmt.Sprint(1-i), &l, epoch.Add(at))
			}
		}
	}
	begin := func(s *sched, n uint64) taken {
		s.add(n, "3", "a", 0, time.Hour)
		h, _, ok := s.take(epoch)
		if !ok {
			t.Fatal("nothing to take")
		}
		return h
	}
	name := provisional("a")
	for i, s := range nodes {
		s.tracks.of(name).Size = 10
		begin(s, uint64(i))
	}
	share(0)
	for i, s := range nodes {
		if got := s.tracks.of(name).slots(epoch.UnixMilli()); got != 5 {
			t.Errorf("node %d has %d of the 10", i, got)
		}
	}
	if got := nodes[0].tracks.of(name).slots(epoch.Add(time.Minute).UnixMilli()); got != 10 {
		t.Errorf("%d of 10, when nothing was heard of the other for a minute", got)
	}
	h := begin(nodes[0], 2)
	busy := &mail.Outcome{State: mail.StateDelayed, Contact: mail.ContactBusy, Cause: mail.CauseRateLimited,
		Evidence: mail.Evidence{Host: "mx.a", Reply: &mail.Reply{Code: 421, Text: "too many"}}}
	nodes[0].feedback(h, busy, epoch)
	share(time.Second)
	for i, s := range nodes {
		if tr := s.tracks.of(name); tr.Size != 9 || tr.Ceiling != 9 || tr.trouble.Said != "421 too many" {
			t.Errorf("node %d: %+v, %+v", i, tr.window, tr.trouble)
		}
	}
	for _, contact := range []mail.Contact{mail.ContactDown, mail.ContactOK} { // one is down for node 0, well for node 1
		nodes[0].feedback(h, &mail.Outcome{State: mail.StateDelayed, Contact: contact}, epoch)
	}
	other := begin(nodes[1], 3)
	for range 20 {
		nodes[1].feedback(other, &mail.Outcome{State: mail.StateDelayed, Contact: mail.ContactDown}, epoch)
	}
	if !nodes[1].tracks.of(name).down() {
		t.Fatal("20 failures did not bring it down")
	}
	share(time.Second)
	for i, s := range nodes {
		if s.tracks.of(name).down() {
			t.Errorf("node %d holds it for down, which answered the other", i)
		}
	}
}

// What comes over the network can't open a window beyond its limits, or close it for
// longer than a server could ask for.
func TestLessonsAreBounded(t *testing.T) {
	t.Parallel()
	l := lesson{window: window{Size: 1 << 30, Looks: -1, Gap: time.Hour, Look: epoch.Add(1e6 * time.Hour), CeilingUntil: epoch.Add(1e6 * time.Hour), Cohorts: 9}}
	l.bound(Limits{Most: 20}, epoch)
	if l.Size != 20 || l.Looks != 0 || l.Gap > lastGap || l.Look.After(epoch.Add(lookHint)) || l.CeilingUntil.After(epoch.Add(ceilingFor)) || l.Cohorts > cohortLimit {
		t.Errorf("believed: %+v", l.window)
	}
}

// Whoever asks when a message is tried next hears of the look that it waits for.
func TestStandingKnowsTheLook(t *testing.T) {
	t.Parallel()
	s := testSched(Options{Limits: func(string) Limits { return Limits{Initial: 1} }})
	s.add(1, "3", "a", 0, time.Hour)
	s.add(2, "3", "a", 0, time.Hour)
	s.add(3, "1", "a", 0, time.Hour)
	if _, _, look := s.standing(testID(2)); !look.IsZero() {
		t.Errorf("a look at %v, and nothing is down", look)
	}
	_, hands := s.order(0)
	s.feedback(hands[0], &mail.Outcome{State: mail.StateDelayed, Contact: mail.ContactDown}, epoch)
	for id, want := range map[uint64]time.Time{2: epoch.Add(firstLook), 3: {}} {
		if _, _, look := s.standing(testID(id)); !look.Equal(want) {
			t.Errorf("message %d: the look is at %v, want %v", id, look, want)
		}
	}
}

// TestDestinationsKeepCount plays random moves over few domains and destinations that
// fail and recover, and checks that every count and place is what the items say.
func TestDestinationsKeepCount(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		playDestinations(t, rand.New(rand.NewPCG(seed, 7)))
	}
}

func playDestinations(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	s := testSched(Options{Concurrency: 12, Reserved: 2, PerDestination: 6, Limits: func(name string) Limits {
		if name == "paced" {
			return Limits{PerMinute: 600}
		}
		return Limits{Initial: 1 + len(name)%5}
	}})
	names := []string{"shared", "paced", "other"}
	contacts := []mail.Contact{mail.ContactOK, mail.ContactOK, mail.ContactBusy, mail.ContactDown, ""}
	var hands []taken
	now := time.Duration(0)
	at := func() time.Time { return epoch.Add(now) }
	for move := range uint64(600) {
		switch rnd.IntN(8) {
		case 0, 1:
			s.addFor(fmt.Sprint(rnd.IntN(4)), move, fmt.Sprint(1+rnd.IntN(3)), fmt.Sprint(rnd.IntN(6)),
				now+time.Duration(rnd.IntN(20))*time.Second, now+time.Duration(30+rnd.IntN(900))*time.Second)
		case 2:
			now += time.Duration(rnd.IntN(20_000)) * time.Millisecond
		case 3:
			s.mark(testID(uint64(rnd.IntN(int(move)+1))), flagCancelled)
		case 4:
			s.retryNow(selector{"domain", fmt.Sprint(rnd.IntN(6))}, at())
		case 5:
			if len(hands) == 0 {
				break
			}
			h := hands[0]
			hands = hands[1:]
			o := mail.Outcome{State: mail.StateDelayed, Contact: contacts[rnd.IntN(len(contacts))]}
			if !h.ending {
				s.feedback(h, &o, at())
			}
			if rnd.IntN(2) == 0 || h.ending {
				s.done(h)
			} else {
				s.again(h, at().Add(time.Duration(rnd.IntN(60))*time.Second))
			}
		default:
			h, _, ok := s.take(at())
			if !ok {
				break
			}
			if !h.ending && rnd.IntN(3) > 0 && !s.enter(h, names[rnd.IntN(len(names))], at()) {
				s.again(h, at())
				break
			}
			hands = append(hands, h)
		}
		s.check(t, hands)
	}
}

// check compares all that the scheduler counts with its items.
func (s *sched) check(t *testing.T, hands []taken) {
	t.Helper()
	ending := map[handle]bool{}
	for _, h := range hands {
		ending[h.h] = h.ending
	}
	inflight, ready, uses := map[uint32]int{}, map[uint32]int{}, map[uint32]int{}
	sending, inDoubt := 0, 0
	s.each(func(h handle, it *item) {
		switch {
		case it.place == placeReady:
			ready[it.flow]++
			uses[it.dest]++
			if f := s.flows[it.flow]; f.dest != it.dest || f.tenant != it.tenant || f.lane != it.lane {
				t.Fatalf("an item of %d/%d/%d is in the flow of %d/%d/%d", it.dest, it.tenant, it.lane, f.dest, f.tenant, f.lane)
			}
		case it.place == placeTaken && !ending[h]:
			inflight[it.dest]++
			uses[it.dest]++
			sending++
			if it.flags&flagDoubt != 0 {
				inDoubt++
			}
		}
	})
	if sending != s.sending || inDoubt != s.inDoubt {
		t.Fatalf("%d under way, %d in doubt; the items say %d and %d", s.sending, s.inDoubt, sending, inDoubt)
	}
	for _, id := range s.leavers {
		uses[id]++
	}
	for id, d := range s.dests {
		n := uint32(id)
		if d == nil {
			if uses[n] > 0 {
				t.Fatalf("destination %d is gone with %d items", id, uses[n])
			}
			continue
		}
		if d.inflight != inflight[n] || s.destIDs.list[id].uses != uses[n] {
			t.Fatalf("%s: %d under way, %d uses; the items say %d and %d", s.destIDs.text(n), d.inflight, s.destIDs.list[id].uses, inflight[n], uses[n])
		}
		for place, f := range d.flows.list {
			if int(s.flows[f].place) != place || len(s.flows[f].ready.list) != ready[f] || ready[f] == 0 {
				t.Fatalf("%s: flow %d is misplaced or has %d of %d items", s.destIDs.text(n), f, len(s.flows[f].ready.list), ready[f])
			}
		}
	}
	if len(s.flowIDs)+len(s.freeFlows) != len(s.flows) {
		t.Fatalf("%d flows in use and %d free of %d", len(s.flowIDs), len(s.freeFlows), len(s.flows))
	}
}
