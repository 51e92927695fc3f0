package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What one node is asked about the queue, it asks the others: each knows its own
// shards' mail. They answer from memory.

const (
	subjectWaiting = "deliverd.v1.node.waiting"
	subjectRetry   = "deliverd.v1.node.retry"
	// answerWait is how long the others have to answer; one that is known and does not is
	// said to be missing.
	answerWait = 2 * time.Second
	// groupsMost bounds each list of groups in an answer to another node, so that it fits
	// into a message.
	groupsMost = 1000
)

// retried is a node's answer to subjectRetry.
type retried struct {
	Node    string `json:"node"`
	Retried int    `json:"retried"`
}

// listen answers the other nodes until the queue closes.
func (q *Queue) listen() error {
	for subject, answer := range map[string]func(*nats.Msg){
		subjectLearned: q.told,
		subjectWaiting: func(m *nats.Msg) {
			sum := q.WaitingHere()
			sum.Kinds, sum.Domains, sum.Tenants = largest(sum.Kinds), largest(sum.Domains), largest(sum.Tenants)
			sum.Destinations = largestDestinations(sum.Destinations)
			q.respond(m, sum)
		},
		subjectRetry: func(m *nats.Msg) {
			sel, err := parseSelector(string(m.Data))
			if err != nil {
				return
			}
			now, _ := q.clock.now()
			q.respond(m, retried{q.o.Node, q.sched.retryNow(sel, now)})
		},
	} {
		sub, err := q.store.nc.Subscribe(subject, answer)
		if err != nil {
			return fmt.Errorf("listen to the other nodes: %w", err)
		}
		context.AfterFunc(q.ctx, func() { _ = sub.Unsubscribe() })
	}
	return nil
}

func (q *Queue) respond(m *nats.Msg, v any) {
	b, err := json.Marshal(v)
	if err == nil && m.Reply != "" {
		err = m.Respond(b)
	}
	if err != nil {
		q.o.Log.Warn("another node's question could not be answered", "subject", m.Subject, "err", err)
	}
}

// others names the other nodes that are alive, or were a lease ago.
func (q *Queue) others(ctx context.Context) (map[string]bool, error) {
	st, err := q.store.js.Stream(ctx, kvStream(bucketLeases))
	if err != nil {
		return nil, err
	}
	prefix := kvSubject(bucketLeases, "node.")
	info, err := st.Info(ctx, jetstream.WithSubjectFilter(prefix+"*"))
	if err != nil {
		return nil, err
	}
	nodes := map[string]bool{}
	for subject := range info.State.Subjects {
		nodes[strings.TrimPrefix(subject, prefix)] = true
	}
	delete(nodes, nodeToken(q.o.Node))
	return nodes, nil
}

// ask puts a question to every other node, calls f with each answer, and returns how
// many that are known to be there did not give one.
func (q *Queue) ask(ctx context.Context, subject string, question []byte, f func(answer []byte) (node string)) (missing int, err error) {
	if q.o.Alone {
		return 0, nil
	}
	expected, err := q.others(ctx)
	if err != nil || len(expected) == 0 {
		return 0, err
	}
	inbox := q.store.nc.NewInbox()
	sub, err := q.store.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := q.store.nc.PublishRequest(subject, inbox, question); err != nil {
		return 0, err
	}
	wait, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	for len(expected) > 0 {
		m, err := sub.NextMsgWithContext(wait)
		if err != nil {
			break // those that are left are missing
		}
		if len(m.Data) > 0 { // else it says that nobody listens, or is ours
			delete(expected, nodeToken(f(m.Data)))
		}
	}
	return len(expected), ctx.Err()
}

// Waiting describes what waits, on all nodes. Where a node does not answer, Missing
// says so, and the rest is what the others have.
func (q *Queue) Waiting(ctx context.Context) (Summary, error) {
	sum := q.WaitingHere()
	seen := map[string]bool{q.o.Node: true}
	missing, err := q.ask(ctx, subjectWaiting, nil, func(answer []byte) string {
		var s Summary
		if json.Unmarshal(answer, &s) != nil || seen[s.Node] {
			return s.Node
		}
		seen[s.Node] = true
		sum.add(&s)
		return s.Node
	})
	sum.Missing = missing
	return sum, err
}

// RetryNow makes due at once what the selector picks, on all nodes, and returns how many
// those are. A destination that is down is looked at at once. The attempt counts as the
// one that was due later. An error that is not about the selector says that some node
// did not answer; to ask again does no harm.
func (q *Queue) RetryNow(ctx context.Context, sel string) (int, error) {
	s, err := parseSelector(sel)
	if err != nil {
		return 0, err
	}
	now, _ := q.clock.now()
	n := q.sched.retryNow(s, now)
	missing, err := q.ask(ctx, subjectRetry, []byte(s.String()), func(answer []byte) string {
		var r retried
		if json.Unmarshal(answer, &r) == nil && r.Node != q.o.Node {
			n += r.Retried
		}
		return r.Node
	})
	if err == nil && missing > 0 {
		err = fmt.Errorf("queue: %d of the other nodes did not answer; ask again", missing)
	}
	return n, err
}

// add joins another node's summary to this one.
func (s *Summary) add(o *Summary) {
	s.All = s.All.plus(o.All)
	s.Scanned = s.Scanned && o.Scanned
	s.Shards += o.Shards
	for _, groups := range []struct{ ours, theirs map[string]Count }{{s.Kinds, o.Kinds}, {s.Domains, o.Domains}, {s.Tenants, o.Tenants}} {
		for name, c := range groups.theirs {
			groups.ours[name] = groups.ours[name].plus(c)
		}
	}
	for name, theirs := range o.Destinations {
		ours, known := s.Destinations[name]
		if !known {
			s.Destinations[name] = theirs
			continue
		}
		// What was learned is the same, or will be in a second.
		ours.Count, ours.Domains = ours.Count.plus(theirs.Count), ours.Domains+theirs.Domains
		s.Destinations[name] = ours
	}
}

func (c Count) plus(o Count) Count {
	c.Queued, c.Delayed, c.Sending = c.Queued+o.Queued, c.Delayed+o.Delayed, c.Sending+o.Sending
	c.Paused, c.Expiring = c.Paused+o.Paused, c.Expiring+o.Expiring
	if c.Oldest.IsZero() || !o.Oldest.IsZero() && o.Oldest.Before(c.Oldest) {
		c.Oldest = o.Oldest
	}
	return c
}

// largest keeps the groups with the most.
func largest(groups map[string]Count) map[string]Count {
	return most(groups, Count.Total)
}

func largestDestinations(groups map[string]Destination) map[string]Destination {
	return most(groups, func(d Destination) int { return d.Total() })
}

func most[V any](groups map[string]V, size func(V) int) map[string]V {
	if len(groups) <= groupsMost {
		return groups
	}
	names := sortedBy(groups, size)[:groupsMost]
	kept := make(map[string]V, len(names))
	for _, n := range names {
		kept[n] = groups[n]
	}
	return kept
}

// sortedBy returns the keys, the largest group first.
func sortedBy[V any](groups map[string]V, size func(V) int) []string {
	names := slices.Collect(maps.Keys(groups))
	slices.SortFunc(names, func(a, b string) int {
		if n := size(groups[b]) - size(groups[a]); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	return names
}
