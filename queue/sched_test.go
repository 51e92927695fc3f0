package queue

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// testSched is a scheduler whose kinds are named by their lanes.
func testSched(o Options) *sched {
	o.Kinds = map[string]mail.Kind{"1": {Lane: 1}, "2": {Lane: 2}, "3": {Lane: 3}}
	if o.Limits == nil {
		o.Limits = func(string) Limits { return Limits{Initial: o.PerDestination} }
	}
	o.setDefaults()
	return newSched(&o)
}

// proven makes known that destinations take mail.
func (s *sched) proven(destinations ...string) {
	for _, d := range destinations {
		s.tracks.of(d).Proven = true
	}
}

var epoch = time.UnixMilli(1_800_000_000_000)

func testID(n uint64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(epoch.UnixMilli())<<16)
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func (s *sched) add(n uint64, kind, domain string, due, exp time.Duration) {
	s.addFor("t", n, kind, domain, due, exp)
}

func (s *sched) addFor(tenant string, n uint64, kind, domain string, due, exp time.Duration) {
	s.put(testID(n), 0, n, index{state: mail.StateQueued, due: epoch.Add(due).UnixMilli(), exp: epoch.Add(exp).UnixMilli(),
		kind: kind, domain: domain, tenant: tenant})
}

// order takes everything that can be taken at a time and returns the ids' numbers.
func (s *sched) order(at time.Duration) (got []uint64, hands []taken) {
	for {
		t, _, ok := s.take(epoch.Add(at))
		if !ok {
			return got, hands
		}
		n := binary.BigEndian.Uint64(t.id[8:])
		if t.ending {
			n += 1000
		}
		got, hands = append(got, n), append(hands, t)
	}
}

func TestTheMostUrgentIsTakenFirst(t *testing.T) {
	t.Parallel()
	s := testSched(Options{})
	s.add(1, "3", "a", 0, time.Hour)
	s.add(2, "3", "b", 0, time.Minute)
	s.add(3, "1", "a", 0, time.Hour)
	s.add(4, "2", "c", 0, time.Hour)
	s.add(5, "1", "d", time.Second, time.Hour) // not due
	s.add(6, "1", "d", -time.Hour, -time.Second)
	got, hands := s.order(0)
	if fmt.Sprint(got) != "[1006 3 4 2 1]" {
		t.Errorf("taken %v", got)
	}
	if _, wait, ok := s.take(epoch); ok || wait != time.Second {
		t.Errorf("nothing is left, wait %v", wait)
	}
	for _, h := range hands {
		s.done(h)
	}
	if got, _ := s.order(2 * time.Second); fmt.Sprint(got) != "[5]" {
		t.Errorf("a second later %v", got)
	}
}

func TestSlotsAreReservedForLane1(t *testing.T) {
	t.Parallel()
	s := testSched(Options{Concurrency: 10, Reserved: 2, PerDestination: 100})
	for n := range uint64(20) {
		s.proven(provisional(fmt.Sprint(n)))
		s.add(n, "3", fmt.Sprint(n), 0, time.Hour)
	}
	got, _ := s.order(0)
	if len(got) != 8 {
		t.Errorf("%d invites under way, want 8 of 10", len(got))
	}
	for n := range uint64(5) {
		s.add(100+n, "1", "pin", 0, time.Hour)
	}
	if got, _ := s.order(0); len(got) != 2 || got[0] < 100 || got[1] < 100 {
		t.Errorf("then %v, want two PINs", got)
	}
}

func TestADestinationsLimitHoldsNobodyElseBack(t *testing.T) {
	t.Parallel()
	s := testSched(Options{PerDestination: 10, Destination: func(domain string) string {
		if domain == "a" || domain == "b" {
			return "same servers"
		}
		return domain
	}})
	for n := range uint64(40) {
		s.add(n, "3", []string{"a", "b"}[n%2], 0, time.Hour)
	}
	s.add(100, "3", "c", 0, 2*time.Hour)
	got, hands := s.order(0)
	if len(got) != 10 || got[9] != 100 {
		t.Errorf("taken %v, want 9 of one destination and 1 of another", got)
	}
	s.add(101, "1", "a", 0, time.Hour)
	if got, _ := s.order(0); fmt.Sprint(got) != "[101]" {
		t.Errorf("a PIN to the busy destination: %v", got)
	}
	s.done(hands[0])
	s.done(hands[1])
	if got, _ := s.order(0); len(got) != 1 {
		t.Errorf("%d taken after two of eleven ended, want 1", len(got))
	}
}

func TestADelayedItemComesBackWhenDue(t *testing.T) {
	t.Parallel()
	s := testSched(Options{})
	s.add(1, "3", "a", 0, time.Hour)
	_, hands := s.order(0)
	s.put(testID(1), 0, 5, index{due: epoch.UnixMilli(), exp: epoch.UnixMilli()}) // a foreign change: the worker will see
	s.back(hands[0], 2, index{state: mail.StateDelayed, due: epoch.Add(time.Minute).UnixMilli(), exp: epoch.Add(time.Hour).UnixMilli()})
	if got, _ := s.order(59 * time.Second); got != nil {
		t.Errorf("taken early: %v", got)
	}
	if got, _ := s.order(61 * time.Second); fmt.Sprint(got) != "[1]" {
		t.Errorf("taken %v", got)
	}
}

func TestAMarkEndsWhatWaitsAndTellsWhatRuns(t *testing.T) {
	t.Parallel()
	s := testSched(Options{})
	s.add(1, "3", "a", time.Hour, 2*time.Hour)
	if !s.mark(testID(1), flagSuperseded) || s.mark(testID(2), flagSuperseded) {
		t.Error("mark does not know what is here")
	}
	got, hands := s.order(0)
	if fmt.Sprint(got) != "[1001]" {
		t.Errorf("taken %v", got)
	}
	s.unmark(hands[0])
	s.again(hands[0], epoch)
	got, hands = s.order(0)
	if fmt.Sprint(got) != "[1]" {
		t.Errorf("after the mark was taken back %v", got)
	}
	s.mark(testID(1), flagCancelled)
	if s.flagsOf(testID(1))&flagCancelled == 0 {
		t.Error("the running attempt is not told")
	}
	s.again(hands[0], epoch.Add(time.Hour))
	if got, _ := s.order(0); fmt.Sprint(got) != "[1001]" {
		t.Errorf("taken %v", got)
	}
}

func TestALostShardIsForgotten(t *testing.T) {
	t.Parallel()
	s := testSched(Options{})
	for n := range uint64(10) {
		s.add(n, "3", fmt.Sprint(n%3), time.Duration(n%2)*time.Hour, 2*time.Hour)
	}
	_, hands := s.order(0)
	s.drop(0)
	if got, _ := s.order(2 * time.Hour); got != nil {
		t.Errorf("taken of a lost shard: %v", got)
	}
	for _, h := range hands {
		if s.flagsOf(h.id)&flagGone == 0 {
			t.Error("a running attempt does not know that its shard is lost")
		}
		s.again(h, epoch)
	}
	if s.items.used != 0 || len(s.byID) != 0 || s.sending != 0 || len(s.domains.byName) != 0 || len(s.destIDs.byName) != 0 {
		t.Errorf("left: %d items, %d sending, %d domains, %d destinations", s.items.used, s.sending, len(s.domains.byName), len(s.destIDs.byName))
	}
}

func TestTheClocksShiftMovesDueTimes(t *testing.T) {
	t.Parallel()
	s := testSched(Options{})
	s.add(1, "3", "a", time.Hour, 3*time.Hour)
	s.add(2, "3", "b", 2*time.Hour, 3*time.Hour)
	s.shift(-time.Hour)
	if got, _ := s.order(0); fmt.Sprint(got) != "[1]" {
		t.Errorf("taken %v", got)
	}
}

// TestSchedAgainstAModel plays random moves and checks after each that what is taken
// is what a plain search would have taken, and that no count drifts.
func TestSchedAgainstAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		playSched(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

type modelItem struct {
	n               uint64
	lane            int
	domain          string
	due, exp        time.Duration
	sending, marked bool
	ending          bool // with a worker, to be ended
}

func playSched(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	s := testSched(Options{Concurrency: 6, Reserved: 2, PerDestination: 3})
	model := map[uint64]*modelItem{}
	hands := map[uint64]taken{}
	now := time.Duration(0)
	for move := range uint64(400) {
		switch rnd.IntN(6) {
		case 0, 1:
			it := &modelItem{n: move, lane: 1 + rnd.IntN(3), domain: fmt.Sprint(rnd.IntN(3)),
				due: now + time.Duration(rnd.IntN(20))*time.Second, exp: now + time.Duration(5+rnd.IntN(60))*time.Second}
			model[it.n] = it
			s.add(it.n, fmt.Sprint(it.lane), it.domain, it.due, it.exp)
		case 2:
			now += time.Duration(rnd.IntN(8)) * time.Second
		case 3:
			for n, it := range model {
				if !it.sending {
					s.mark(testID(n), flagSuperseded)
					it.marked = true
				}
				break
			}
		case 4:
			for n, h := range hands {
				delete(hands, n)
				if rnd.IntN(2) == 0 || h.ending {
					s.done(h)
					delete(model, n)
					break
				}
				model[n].sending, model[n].due = false, now+time.Duration(rnd.IntN(9))*time.Second
				s.again(h, epoch.Add(model[n].due))
				break
			}
		default:
			got, _, ok := s.take(epoch.Add(now))
			checkTaken(t, model, now, got, ok)
			if ok {
				n := binary.BigEndian.Uint64(got.id[8:])
				model[n].sending, model[n].ending, hands[n] = true, got.ending, got
			}
		}
		if s.items.used != len(model) {
			t.Fatalf("%d items, the model has %d", s.items.used, len(model))
		}
	}
}

func checkTaken(t *testing.T, model map[uint64]*modelItem, now time.Duration, got taken, ok bool) {
	t.Helper()
	perDest, ended, ending := map[string]int{}, false, 0
	for _, it := range model {
		if it.sending && !it.ending {
			perDest[it.domain]++
		}
		if it.ending {
			ending++
		}
		ended = ended || !it.sending && (it.marked || it.exp <= now)
	}
	if ok && got.ending {
		it := model[binary.BigEndian.Uint64(got.id[8:])]
		if it == nil || !it.marked && it.exp > now {
			t.Fatalf("ended too early: %+v at %v", it, now)
		}
		return
	}
	if ended && ending < 6 {
		t.Fatal("something has ended and was not taken first")
	}
	if !ok {
		return
	}
	it := model[binary.BigEndian.Uint64(got.id[8:])]
	if it == nil || it.sending || it.due > now || it.exp <= now {
		t.Fatalf("taken though not due: %+v at %v", it, now)
	}
	for _, o := range model {
		if !o.sending && !o.marked && o.exp > now && o.due <= now && o.domain == it.domain && (o.lane < it.lane || o.lane == it.lane && o.exp < it.exp) {
			t.Fatalf("%+v was taken before %+v", it, o)
		}
	}
	if perDest[it.domain] >= 3 {
		t.Fatalf("%d under way to %s", perDest[it.domain]+1, it.domain)
	}
}
