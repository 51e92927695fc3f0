package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// arrivals is what the mail servers took, by message.
type arrivals struct {
	mu    sync.Mutex
	byID  map[mail.ID]arrival
	inDot int // transactions that wait for the reply to their dot
	most  int
	hold  time.Duration // how long each waits
}

type arrival struct {
	count  int
	sum    [32]byte
	differ bool
	at     time.Time
}

func newArrivals() *arrivals { return &arrivals{byID: map[mail.ID]arrival{}} }

func (a *arrivals) took(m smtptest.Mail) {
	name, _, _ := strings.Cut(strings.Trim(m.MessageID, "<>"), "@")
	sum := sha256.Sum256(m.Raw)
	a.mu.Lock()
	have := a.byID[mail.ID(name)]
	a.byID[mail.ID(name)] = arrival{have.count + 1, sum, have.differ || have.count > 0 && have.sum != sum, m.At}
	a.inDot++
	a.most = max(a.most, a.inDot)
	hold := a.hold
	a.mu.Unlock()
	time.Sleep(hold)
	a.mu.Lock()
	a.inDot--
	a.mu.Unlock()
}

func (a *arrivals) of(id mail.ID) arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byID[id]
}

// measure makes every transaction last, and returns how many there were at once at
// most while do ran.
func (a *arrivals) measure(hold time.Duration, do func()) int {
	a.mu.Lock()
	a.hold, a.most = hold, 0
	a.mu.Unlock()
	do()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold = 0
	return a.most
}

// load sends mail to a fleet from several auth services at once, each trying one node
// after the other until it is answered, with an idempotency key.
type load struct {
	f       *fleet
	wg      sync.WaitGroup
	stop    context.CancelFunc
	mu      sync.Mutex
	sent    []mail.ID // accepted and not yet taken for the check
	count   atomic.Int64
	refused atomic.Int64 // answers that said no, and were asked again
}

const loadSenders = 4

func (f *fleet) load(pace time.Duration) *load {
	ctx, stop := context.WithCancel(f.t.Context())
	l := &load{f: f, stop: stop}
	f.t.Cleanup(l.end)
	for s := range loadSenders {
		l.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				m := testMessage(s, i)
				if i%6 == 5 {
					m.To = fmt.Sprintf("flaky.%d.%d@company%d.flaky.example", s, i, i%5)
				}
				if id, err := f.send(ctx, f.nodes, s+i, m, &l.refused); err == nil {
					l.mu.Lock()
					l.sent = append(l.sent, id)
					l.mu.Unlock()
					l.count.Add(1)
				}
				time.Sleep(pace)
			}
		})
	}
	return l
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// take returns what was accepted since the last time.
func (l *load) take() []mail.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := l.sent
	l.sent = nil
	return ids
}

// send hands one message over to the first of the nodes that takes it.
func (f *fleet) send(ctx context.Context, nodes []*node, from int, m client.Message, refused *atomic.Int64) (mail.ID, error) {
	for i := from; ; i++ {
		ask, cancel := context.WithTimeout(ctx, 15*time.Second) // a node that is stopped answers nothing
		r, err := oneOf(nodes, i).client.Send(ask, m)
		cancel()
		if err == nil {
			return r.ID, nil
		}
		if refused != nil {
			refused.Add(1)
		}
		if p, ok := errors.AsType[*client.Problem](err); ok && p.Status < 500 {
			f.t.Errorf("a request was refused for good: %v", err)
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// settled waits until messages have ended, by every node's word, and holds each
// against the laws: one end, handed over, twice only with the same bytes and the doubt
// told. It returns how many came twice and how many may have.
func (f *fleet) settled(ids []mail.ID) (twice, doubts int) {
	f.t.Helper()
	for i, id := range ids {
		story := f.story(oneOf(f.nodes, i), id)
		a := f.arrivals.of(id)
		ends, flagged := 0, false
		for _, e := range story {
			if e.State.Terminal() {
				ends++
				if e.State != mail.StateAccepted {
					f.t.Errorf("%s ended as %s", id, e.State)
				}
			}
			flagged = flagged || e.PossibleDuplicate
		}
		if ends != 1 {
			f.t.Errorf("%s has %d ends: %v", id, ends, states(story))
		}
		if a.count == 0 {
			f.t.Errorf("%s is said to be handed over, and no server had it", id)
		}
		if flagged {
			doubts++
		}
		if a.count > 1 {
			twice++
			if !flagged {
				f.t.Errorf("%s came %d times and its story does not say that it may have: %s", id, a.count, told(story))
			}
			if a.differ {
				f.t.Errorf("%s came twice with different bytes", id)
			}
		}
		for _, n := range f.nodes { // every console knows the same
			if s := f.story(n, id); !slices.Equal(states(s), states(story)) {
				f.t.Errorf("%s: one node tells %v, another %v", id, states(s), states(story))
			}
		}
	}
	return twice, doubts
}

// told is a story in one line.
func told(story []mail.Event) string {
	var b strings.Builder
	for _, e := range story {
		fmt.Fprintf(&b, "%s %s#%d doubt=%v; ", e.At.Format("15:04:05.000"), e.State, e.Attempt, e.PossibleDuplicate)
	}
	return b.String()
}

// story waits until a node says that a message has ended, and returns its events.
func (f *fleet) story(n *node, id mail.ID) []mail.Event {
	f.t.Helper()
	for {
		var m console.Message
		var list struct {
			Events []mail.Event `json:"events"`
		}
		ctx, cancel := context.WithTimeout(f.t.Context(), 15*time.Second)
		err := n.client.Do(ctx, http.MethodGet, "/v1/messages/"+string(id), nil, nil, &m)
		if err == nil && !m.State.Open() {
			err = n.client.Do(ctx, http.MethodGet, "/v1/messages/"+string(id)+"/events", nil, nil, &list)
			if err == nil {
				cancel()
				return list.Events
			}
		}
		cancel()
		select {
		case <-f.t.Context().Done():
			f.t.Fatalf("the test ended before %s had: %v, %v", id, m.State, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// probe sends one message to each of many domains, which are on all shards, and
// returns how long it took until all had arrived.
func (f *fleet) probe(nodes []*node, name string) (time.Duration, []mail.ID) {
	began := time.Now()
	ids := make([]mail.ID, 24)
	f.each(len(ids), func(i int) {
		id, err := f.send(f.t.Context(), nodes, i, client.Message{
			Kind: "invite", To: fmt.Sprintf("probe.%s@probe%d.example", name, i), Tenant: "4711", PersonID: fmt.Sprintf("probe-%s-%d", name, i),
			Data:           map[string]any{"link": "https://login.acme.example/i/abc", "inviter": "Lars"},
			IdempotencyKey: fmt.Sprintf("probe-%s-%d", name, i),
		}, nil)
		if err != nil {
			f.t.Errorf("probe: %v", err)
		}
		ids[i] = id
	})
	last := began
	for _, id := range ids {
		eventually(f.t, "a probe arrived", func() bool { return id == "" || f.arrivals.of(id).count > 0 })
		if at := f.arrivals.of(id).at; at.After(last) {
			last = at
		}
	}
	return last.Sub(began), ids
}

// metrics goes over the samples without labels of a Prometheus page.
func metrics(r io.Reader) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			name, value, ok := strings.Cut(lines.Text(), " ")
			n, err := strconv.ParseFloat(value, 64)
			if ok && err == nil && !yield(name, n) {
				return
			}
		}
	}
}

// intakeWhileDown asks every node to take a message that it can't keep, and returns
// the longest time until one said so.
func (f *fleet) intakeWhileDown(t *testing.T) time.Duration {
	var longest time.Duration
	for i, n := range f.nodes {
		began := time.Now()
		_, err := n.client.Send(t.Context(), invite("4711", fmt.Sprintf("kari%d@down.example", i)))
		longest = max(longest, time.Since(began))
		if p, ok := errors.AsType[*client.Problem](err); !ok || p.Status != http.StatusServiceUnavailable {
			t.Errorf("without a store, node %d says %v", i+1, err)
		}
	}
	return longest
}
