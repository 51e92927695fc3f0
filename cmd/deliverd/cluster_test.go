package main

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// TestCluster runs three NATS nodes with replicated streams and three deliverds, and
// kills, stops and upgrades them at random under mail for CLUSTER_FOR. Nothing that was
// accepted is lost, every message has one end by the word of every node, what came
// twice is said to have been possible, and a dead node's mail goes on.
//
// CLUSTER_SEED repeats the moves of a run that printed it.
func TestCluster(t *testing.T) {
	text := os.Getenv("CLUSTER_FOR")
	if text == "" {
		t.Skip("six processes for minutes: make cluster-test")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	seed := seedOf(t, "CLUSTER_SEED")
	t.Logf("CLUSTER_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := newFleet(t, 3, 3)
	c := &clusterRun{fleet: f, t: t, rnd: rnd, down: length / 8}
	quiet, ids := f.probe(f.nodes, "quiet")
	t.Logf("with all well, one message to each of %d domains arrived within %v", len(ids), quiet.Round(time.Millisecond))
	c.limits()

	l := f.load(150 * time.Millisecond)
	moves := []struct {
		name string
		do   func()
	}{
		{"a deliverd is killed", c.killNode}, {"a NATS node is killed", c.killStore}, {"a deliverd is stopped beyond its lease", c.pauseNode},
		{"a rolling upgrade", c.upgrade}, {"connections to the mail server break", f.sink.CloseConns}, {"all of NATS is gone", c.noStore},
	}
	order := rnd.Perm(len(moves))
	began := time.Now()
	for n := 0; time.Since(began) < length || n < len(moves); n++ {
		if n%len(moves) == 0 {
			rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		m := moves[order[n%len(moves)]]
		t.Logf("%v: %s", time.Since(began).Round(time.Second), m.name)
		m.do()
		ids = append(ids, l.take()...)
		twice, doubts := f.settled(ids)
		c.checked, c.twice, c.doubts = c.checked+len(ids), c.twice+twice, c.doubts+doubts
		ids = nil
		if t.Failed() {
			t.FailNow()
		}
	}
	l.end()
	rest := append(l.take(), c.probes...)
	twice, doubts := f.settled(rest)
	c.limits()
	t.Logf("%d messages over %v; %d came twice, %d may have; %d answers said no and were asked again; a dead or stopped node's mail went on after %v",
		c.checked+len(rest), time.Since(began).Round(time.Second), c.twice+twice, c.doubts+doubts, l.refused.Load(), c.takeovers)
}

// clusterRun is one run's dice and figures.
type clusterRun struct {
	*fleet
	t      *testing.T
	rnd    *rand.Rand
	down   time.Duration // how long all of NATS is gone
	probed int

	probes                 []mail.ID
	takeovers              []time.Duration
	checked, twice, doubts int
}

// takeover measures how long mail to all shards takes through the nodes that are left.
func (c *clusterRun) takeover(left []*node) {
	c.probed++
	took, ids := c.probe(left, strconv.Itoa(c.probed))
	c.takeovers = append(c.takeovers, took.Round(10*time.Millisecond))
	c.probes = append(c.probes, ids...)
}

func (c *clusterRun) killNode() {
	n := oneOf(c.nodes, c.rnd.IntN(3))
	n.kill()
	c.takeover(c.others(n))
	n.start(c.fleet)
}

func (c *clusterRun) pauseNode() {
	n := oneOf(c.nodes, c.rnd.IntN(3))
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.pause(time.Duration(8+c.probed%4) * time.Second)
	}()
	c.takeover(c.others(n))
	<-done
}

func (c *clusterRun) killStore() {
	s := oneOf(c.stores, c.rnd.IntN(3))
	s.kill()
	time.Sleep(time.Duration(c.rnd.IntN(3000)) * time.Millisecond)
	s.start(c.fleet)
	c.storesWell() // two of three are needed at any time
}

func (c *clusterRun) upgrade() {
	for _, n := range c.nodes {
		n.stop()
		n.start(c.fleet)
	}
}

// noStore takes all of NATS away for a while. Intake says so at once; what was taken
// goes on afterwards.
func (c *clusterRun) noStore() {
	c.each(len(c.stores), func(i int) { c.stores[i].kill() })
	took := c.intakeWhileDown(c.t)
	c.t.Logf("without NATS, each node said so within %v", took.Round(time.Millisecond))
	time.Sleep(c.down)
	c.each(len(c.stores), func(i int) { c.stores[i].start(c.fleet) })
	c.storesWell()
}

// limits sends bursts to one destination through all nodes, in quiet. The first seconds
// are not counted: a node hears within a second that others send there too, and shares
// its room from then on.
func (c *clusterRun) limits() {
	burst := func(least time.Duration) {
		for began := time.Now(); time.Since(began) < least; {
			c.probed++
			_, ids := c.probe(c.nodes, strconv.Itoa(c.probed))
			c.probes = append(c.probes, ids...)
		}
	}
	first := c.arrivals.measure(100*time.Millisecond, func() { burst(4 * time.Second) })
	most := c.arrivals.measure(100*time.Millisecond, func() { burst(4 * time.Second) })
	c.t.Logf("to one destination went at most %d at once, from all nodes; %d in the first seconds", most, first)
	if most > perDestination {
		c.t.Errorf("%d transactions at once with one destination, which may have %d", most, perDestination)
	}
}
