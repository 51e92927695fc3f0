package daemon

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
	"github.com/deliverd/deliverd/queue/natstest"
)

// world is a queue and a deliverer, and servers that its addresses lead to.
type world struct {
	t     *testing.T
	queue *queue.Queue
	dial  map[string]func(context.Context) (net.Conn, error) // by address
	hosts func(domain string) (host, addr string)

	mu      sync.Mutex
	states  map[mail.State]int     // guarded by mu: of all events
	domains map[string]int         // guarded by mu: accepted, by domain
	ended   map[mail.ID]mail.Event // guarded by mu
	changed chan struct{}          // a token: something ended
}

func newWorld(t *testing.T, change func(*queue.Options)) *world {
	t.Helper()
	w := &world{t: t, dial: map[string]func(context.Context) (net.Conn, error){}, states: map[mail.State]int{},
		domains: map[string]int{}, ended: map[mail.ID]mail.Event{}, changed: make(chan struct{}, 1)}
	o := queue.Options{
		Kinds: map[string]mail.Kind{"invite": {Name: "invite", Lane: 3, ValidFor: time.Hour, Retries: []time.Duration{300 * time.Millisecond}}},
		Seal:  queue.NewKeyRing(), Shards: 2, Alone: true, Log: discard, Observe: w.observe,
	}
	change(&o)
	q, err := queue.Open(t.Context(), natstest.Start(t, t.TempDir()).Connect(t), o)
	if err != nil {
		t.Fatal(err)
	}
	w.queue = q
	t.Cleanup(func() { q.Close() })
	return w
}

func (w *world) observe(e mail.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[e.State]++
	if !e.State.Terminal() {
		return
	}
	w.ended[e.Message] = e
	if e.State == mail.StateAccepted {
		w.domains[e.To.Domain()]++
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// sink starts a server that an address leads to.
func (w *world) sink(addr string, o smtptest.SinkOptions) {
	w.t.Helper()
	o.NoTLS, o.Keep = true, -1
	s, err := smtptest.Listen(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	w.dial[addr] = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Addr().String())
	}
}

func (w *world) send(domain string, n int) {
	w.t.Helper()
	for i := range n {
		now := time.Now().UTC()
		m := &mail.Message{ID: mail.NewID(now), Kind: "invite", Tenant: "4711", To: mail.Address(fmt.Sprintf("kari%d@%s", i, domain)),
			Locale: "en", Template: "invite", From: "Acme <no-reply@acme.example>", QueuedAt: now, ExpiresAt: now.Add(time.Hour)}
		m.Ref = m.ID.Ref()
		if _, err := w.queue.Enqueue(w.t.Context(), m, sha256.Sum256([]byte(m.ID))); err != nil {
			w.t.Fatal(err)
		}
	}
}

// work delivers until until says that it is enough.
func (w *world) work(until func() bool) {
	w.t.Helper()
	d, err := deliver.New(deliver.Options{
		Hello: "out.acme.example", ReturnPath: func(mail.ID) string { return "bounce@acme.example" },
		Render: func(m *mail.Message) ([]byte, error) {
			return []byte("From: " + m.From + "\r\nTo: <" + string(m.To) + ">\r\nSubject: Your invite\r\nMessage-ID: <" + string(m.ID) + "@acme.example>\r\n\r\nHello\r\n"), nil
		},
		Plan: deliver.ByMX(func(_ context.Context, domain string) (dnscheck.Route, error) {
			host, addr := w.hosts(domain)
			return dnscheck.Route{Domain: domain, Hosts: []dnscheck.Host{{Name: host, Pref: 10, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}}}, nil
		}, nil),
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return w.dial[strings.TrimSuffix(addr, ":25")](ctx)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	working := make(chan error, 1)
	go func() { working <- w.queue.Work(ctx, ctx, d.Attempt) }()
	for {
		w.mu.Lock()
		enough := until()
		w.mu.Unlock()
		if enough {
			break
		}
		<-w.changed
	}
	cancel()
	if err := <-working; err != nil {
		w.t.Error(err)
	}
	d.Close()
}

// TestA52ServerOfFewConnections: thirty companies' mail goes to one server that lets 5
// connections in. They are one destination, which finds that out; nothing fails, and
// little is asked in vain.
func TestA52ServerOfFewConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *queue.Options) { o.PerDestination = 25 })
	w.sink("192.0.2.1", smtptest.SinkOptions{MaxConns: 5, Rules: []smtptest.Rule{{Pattern: "*@*", Behaviour: smtptest.Behaviour{Delay: 20 * time.Millisecond, Stage: smtptest.StageDot}}}})
	w.hosts = func(string) (host, addr string) { return "mx.provider.example", "192.0.2.1" }
	const companies, each = 30, 20
	for i := range companies {
		w.send(fmt.Sprintf("company%d.example", i), each)
	}
	var seen queue.Destination
	w.work(func() bool {
		if d, ok := w.queue.WaitingHere().Destinations["mx.provider.example"]; ok && seen.Name == "" && len(w.ended) > companies*each/2 {
			seen = d
		}
		return len(w.ended) == companies*each
	})
	if w.states[mail.StateAccepted] != companies*each {
		t.Errorf("it came to %v", w.states)
	}
	if seen.Window > 6 || seen.Domains < 2 || seen.State != queue.DestinationLimited || !strings.Contains(seen.Said, "421") {
		t.Errorf("half-way it is seen as %+v", seen)
	}
	if n := w.states[mail.StateDelayed]; n > 60 {
		t.Errorf("%d of %d attempts were in vain", n, n+companies*each)
	}
	t.Logf("%d attempts in vain for %d messages; half-way: %+v", w.states[mail.StateDelayed], companies*each, seen)
}

// TestA54BlackHole: fifty companies' provider answers nothing at all. Their mail waits;
// nobody else's does, and the attempts that hang are few.
func TestA54BlackHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *queue.Options) { o.Concurrency = 20 })
	var hanging, most atomic.Int32
	w.dial["192.0.2.9"] = func(ctx context.Context) (net.Conn, error) {
		most.Store(max(most.Load(), hanging.Add(1)))
		defer hanging.Add(-1)
		<-ctx.Done() // SYN after SYN
		return nil, ctx.Err()
	}
	w.sink("192.0.2.1", smtptest.SinkOptions{})
	w.hosts = func(domain string) (host, addr string) {
		if strings.HasPrefix(domain, "held") {
			return "mx.hole.example", "192.0.2.9"
		}
		return "mx." + domain, "192.0.2.1"
	}
	for i := range 50 { // first, so that they are the more urgent ones
		w.send(fmt.Sprintf("held%d.example", i), 10)
	}
	const others, each = 20, 10
	for i := range others {
		w.send(fmt.Sprintf("company%d.example", i), each)
	}
	w.work(func() bool { return w.states[mail.StateAccepted] == others*each })
	if n := most.Load(); n == 0 || n > 5 {
		t.Errorf("%d attempts at once hung on the black hole, want the initial window at most", n)
	}
	if d := w.queue.WaitingHere().Destinations["mx.hole.example"]; d.Total() == 0 {
		t.Errorf("the held mail is not where it goes: %+v", d)
	}
}
