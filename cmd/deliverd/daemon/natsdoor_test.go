package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// open makes a sink and a running daemon that hands everything to it.
func open(t *testing.T, o smtptest.SinkOptions, change func(*Config)) (*Daemon, *smtptest.Sink) {
	t.Helper()
	sink, err := smtptest.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	d := rehearsal(t, sink, change)
	d.run(t)
	return d, sink
}

func withNATS(c *Config) { c.Listen.NATS = "127.0.0.1:0" }

// natsClient is a connection to the daemon's listener, as an auth service makes it.
type natsClient struct {
	*nats.Conn
	mu     sync.Mutex
	denied []string // guarded by mu: what the server objected to
}

func (d *Daemon) natsClient(t *testing.T, o ...nats.Option) *natsClient {
	t.Helper()
	c := &natsClient{}
	o = append(o, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.denied = append(c.denied, strings.ToLower(err.Error()))
	}))
	var err error
	if c.Conn, err = nats.Connect("nats://"+d.NATSAddr().String(), o...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// wasDenied waits for the server's word on what this connection did.
func (c *natsClient) wasDenied(t *testing.T, what string) {
	t.Helper()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, what+" was denied", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.ContainsFunc(c.denied, func(s string) bool {
			return strings.Contains(s, "permissions violation") && strings.Contains(s, `"`+strings.ToLower(what)+`"`)
		})
	})
}

type natsAnswer struct {
	mail.Receipt
	Problem *mail.Problem `json:"problem"`
}

// ask makes a request with an idempotency key, "" for none.
func (c *natsClient) ask(t *testing.T, subject, key, body string) (a natsAnswer) {
	t.Helper()
	m := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{}}
	if key != "" {
		m.Header.Set("Nats-Msg-Id", key)
	}
	reply, err := c.RequestMsgWithContext(t.Context(), m)
	if err == nil {
		err = json.Unmarshal(reply.Data, &a)
	}
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	return a
}

func aPIN(to, code string) string {
	return fmt.Sprintf(`{"kind": "pin", "to": %q, "tenant": "4711", "data": {"code": %q}}`, to, code)
}

// metric returns the value of one series, false where there is none.
func (d *Daemon) metric(t *testing.T, series string) (value string, ok bool) {
	t.Helper()
	w := httptest.NewRecorder()
	d.metrics.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

func TestNATSService(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, withNATS)
	nc := d.natsClient(t)

	// `nats micro ls` and `info` ask like this.
	reply, err := nc.RequestWithContext(t.Context(), "$SRV.INFO.deliverd", nil)
	if err != nil {
		t.Fatal(err)
	}
	var info micro.Info
	if err := json.Unmarshal(reply.Data, &info); err != nil {
		t.Fatal(err)
	}
	var subjects []string
	for _, e := range info.Endpoints {
		subjects = append(subjects, e.Subject)
	}
	slices.Sort(subjects)
	if info.Name != "deliverd" || !slices.Equal(subjects, []string{"deliverd.v1.cancel.*", "deliverd.v1.outcome.*", "deliverd.v1.send.*"}) {
		t.Errorf("%q serves %q", info.Name, subjects)
	}

	first := nc.ask(t, "deliverd.v1.send.login", "k1", aPIN("greylist@nordlys.example", "111111"))
	again := nc.ask(t, "deliverd.v1.send.login", "k1", aPIN("greylist@nordlys.example", "111111"))
	if first.Problem != nil || first.State != mail.StateQueued || first.Ref != first.ID.Ref() || again.ID != first.ID || !again.Replayed {
		t.Errorf("%+v, then %+v", first, again)
	}
	if other := nc.ask(t, "deliverd.v1.send.login", "k1", aPIN("greylist@nordlys.example", "222222")); other.Problem == nil || other.Problem.Type != mail.ProblemConflict {
		t.Errorf("the same key with another code: %+v", other)
	}
	cancelled := nc.ask(t, "deliverd.v1.cancel.login", "", fmt.Sprintf(`{"message": %q, "reason": "asked for by mistake"}`, first.ID))
	if cancelled.Problem != nil || cancelled.State != mail.StateCancelled {
		t.Errorf("cancel: %+v", cancelled)
	}
	taken := nc.ask(t, "deliverd.v1.send.a=2Eb", "", aPIN("kari@nordlys.example", "333333"))
	if s := d.waitEnded(t.Context(), taken.ID); s != mail.StateAccepted {
		t.Fatalf("%s, %+v", s, taken.Problem)
	}
	if used := nc.ask(t, "deliverd.v1.outcome.login", "", fmt.Sprintf(`{"message": %q, "outcome": "used"}`, taken.ID)); used.Problem != nil {
		t.Errorf("outcome: %+v", used.Problem)
	}
	if err := d.view.CatchUp(t.Context(), lastSeq(t, d)); err != nil {
		t.Fatal(err)
	}
	facts, err := d.view.Facts(t.Context(), taken.ID)
	if err != nil || facts.Source != "a.b" || facts.Events[len(facts.Events)-1].State != mail.EventUsed {
		t.Errorf("source %q, %+v, %v", facts.Source, facts.Events, err)
	}
}

func lastSeq(t *testing.T, d *Daemon) uint64 {
	t.Helper()
	seq, err := d.queue.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// A request whose reply subject is one of ours must not make us publish there, and is
// no request (D21).
func TestD21ReplyToAnInternalSubject(t *testing.T) {
	t.Parallel()
	d, sink := open(t, smtptest.SinkOptions{}, withNATS)
	nc := d.natsClient(t)
	before := lastSeq(t, d)
	for _, reply := range []string{"deliverd.v1.event.4711.used", "$KV.DELIVERD_Q0.x", "$JS.API.STREAM.DELETE.DELIVERD_EVENTS", "deliverd.v1.send.login"} {
		if err := nc.PublishRequest("deliverd.v1.send.login", reply, []byte(aPIN("kari@nordlys.example", "111111"))); err != nil {
			t.Fatal(err)
		}
	}
	const series = `deliverd_requests_total{door="nats",operation="send",status="unanswerable"}`
	waitFor(t, "four were turned down", func() bool { n, _ := d.metric(t, series); return n == "4" })
	// One that is answered comes after them.
	r := nc.ask(t, "deliverd.v1.send.login", "", aPIN("lars@nordlys.example", "222222"))
	if s := d.waitEnded(t.Context(), r.ID); s != mail.StateAccepted {
		t.Fatal(s)
	}
	for e, err := range d.queue.Events(t.Context(), before) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Message != r.ID {
			t.Errorf("an event that nobody asked for: %+v", e)
		}
		if e.State == mail.StateAccepted {
			break
		}
	}
	if n := sink.Stats().Accepted; n != 1 {
		t.Errorf("%d mails left", n)
	}
}

// Who connects to the listener can ask, and follow the events; what is ours inside is
// out of reach (D20).
func TestD20ListenerPermissions(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, withNATS)
	nc := d.natsClient(t)
	for _, subject := range []string{
		"$KV.DELIVERD_Q0.x", "$KV.DELIVERD_SUPPRESSED.4711.x", "deliverd.v1.event.4711.used", "_INBOX.x",
		"$JS.API.STREAM.DELETE.DELIVERD_EVENTS", "$JS.API.STREAM.PURGE.DELIVERD_EVENTS", "$JS.API.STREAM.UPDATE.DELIVERD_EVENTS",
		"$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.INFO.KV_DELIVERD_Q0", "$JS.API.STREAM.MSG.GET.KV_DELIVERD_Q0",
		"$JS.API.DIRECT.GET.KV_DELIVERD_Q0.x", "$JS.API.CONSUMER.CREATE.KV_DELIVERD_Q0", "$JS.API.CONSUMER.CREATE.KV_DELIVERD_Q0.x",
		"$JS.API.STREAM.SNAPSHOT.DELIVERD_EVENTS", "$SYS.REQ.SERVER.PING",
	} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		nc.wasDenied(t, subject)
	}
	for _, subject := range []string{"$KV.>", ">", "deliverd.>", "deliverd.v1.send.*", "$JS.>", "*.*.*.*"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		nc.wasDenied(t, subject)
	}
}

// Our own answers from the store go to inboxes, which a client may listen to: not to
// ours.
func TestD20OurInboxesAreOurs(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, withNATS)
	spy, caller := d.natsClient(t), d.natsClient(t)
	var mu sync.Mutex
	var heard []string
	_, err := spy.Subscribe("_INBOX.>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, string(m.Data))
	})
	if err == nil {
		err = spy.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		r := caller.ask(t, "deliverd.v1.send.login", fmt.Sprint(i), aPIN(fmt.Sprintf("kari%d@nordlys.example", i), "111111"))
		if s := d.waitEnded(t.Context(), r.ID); s != mail.StateAccepted {
			t.Fatal(s)
		}
		if _, err := d.queue.Suppressions(t.Context(), "*"); err != nil {
			t.Fatal(err)
		}
	}
	const last = "the last word"
	if err := d.nc.Publish("_INBOX.last", []byte(last)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the last word was heard", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(heard, last)
	})
	mu.Lock()
	defer mu.Unlock()
	for _, h := range heard {
		if !strings.HasPrefix(h, `{"id":"msg_`) && h != last {
			t.Errorf("a client heard %.200q", h)
		}
	}
}

// A durable consumer on the events is how an auth service hears what became of its mail.
func TestNATSDurableConsumer(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, withNATS)
	var id mail.ID
	for life := range 2 {
		nc := d.natsClient(t)
		js, err := jetstream.New(nc.Conn)
		if err != nil {
			t.Fatal(err)
		}
		c, err := js.CreateOrUpdateConsumer(t.Context(), "DELIVERD_EVENTS", jetstream.ConsumerConfig{
			Durable: "login", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "deliverd.v1.event.4711.accepted",
		})
		if err != nil {
			t.Fatal(err)
		}
		before := id
		id = nc.ask(t, "deliverd.v1.send.login", "", aPIN(fmt.Sprintf("kari%d@nordlys.example", life), "111111")).ID
		m, err := c.Next(jetstream.FetchContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		var e mail.Event
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Message != id || e.Message == before || e.State != mail.StateAccepted {
			t.Errorf("life %d: heard %s of %s, want %s", life, e.State, e.Message, id)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
}

// Off loopback, a listener without a password would let anybody send: TestLoadRefuses.
func TestNATSPassword(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("kanarie\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, _ := open(t, smtptest.SinkOptions{}, func(c *Config) {
		withNATS(c)
		c.NATS.Password = Secret("file:" + file)
	})
	for name, o := range map[string][]nats.Option{
		"nobody":              nil,
		"another password":    {nats.UserInfo("client", "kanarier")},
		"no password":         {nats.UserInfo("client", "")},
		"our own user":        {nats.UserInfo("deliverd", "kanarie")},
		"nobody of that name": {nats.UserInfo("admin", "kanarie")},
	} {
		nc, err := nats.Connect("nats://"+d.NATSAddr().String(), o...)
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", name, err)
		}
		if nc != nil {
			nc.Close()
		}
	}
	nc := d.natsClient(t, nats.UserInfo("client", "kanarie"))
	if r := nc.ask(t, "deliverd.v1.send.login", "", aPIN("kari@nordlys.example", "111111")); r.Problem != nil {
		t.Errorf("%+v", r.Problem)
	}
}
