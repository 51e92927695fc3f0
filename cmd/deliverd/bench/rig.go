package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
)

// rig is a daemon in a process of its own, and the sink that it hands over to.
type rig struct {
	program  string
	dir      string
	http     string // address
	nats     string
	sink     *smtptest.Sink
	process  *exec.Cmd
	exited   chan struct{}
	stderr   bytes.Buffer
	arrivals arrivals
}

// arrivals notes when each message came to the sink.
type arrivals struct {
	mu     sync.Mutex
	at     map[client.ID]time.Time
	count  int
	waiter map[client.ID]chan time.Time
}

// sender hands one message over.
type sender func(context.Context, client.Message) (client.Receipt, error)

func newRig(ctx context.Context, program string) (r *rig, err error) {
	r = &rig{program: program}
	r.arrivals.at, r.arrivals.waiter = map[client.ID]time.Time{}, map[client.ID]chan time.Time{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "deliverd-bench-*"); err != nil {
		return nil, err
	}
	if r.sink, err = smtptest.Listen(smtptest.SinkOptions{Keep: -1, OnMail: r.arrivals.note}); err != nil {
		return nil, err
	}
	if r.http, err = freeAddr(); err != nil {
		return nil, err
	}
	if r.nats, err = freeAddr(); err != nil {
		return nil, err
	}
	if err := r.configure(); err != nil {
		return nil, err
	}
	return r, r.start(ctx)
}

// freeAddr is a port that was free a moment ago.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// configure writes the configuration of a daemon as in production, but for the
// relay, which is the sink.
func (r *rig) configure() error {
	var b strings.Builder
	fmt.Fprintf(&b, `data = %q
[listen]
http = %q
nats = %q
[send]
hello = "mail.acme.example"
from = "Acme <no-reply@acme.example>"
return_path_domain = "bounce.acme.example"
relay = %q
[limits]
per_tenant = 0
per_recipient = 0
[log]
level = "warn"
`, filepath.Join(r.dir, "data"), r.http, r.nats, r.sink.Addr().String())
	for selector, alg := range map[string]deliver.Algorithm{"r": deliver.RSA2048, "e": deliver.Ed25519} {
		pem, err := deliver.NewKey(alg)
		if err != nil {
			return err
		}
		file := filepath.Join(r.dir, selector+".pem")
		if err := os.WriteFile(file, pem, 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&b, "[[dkim]]\ndomain = \"acme.example\"\nselector = %q\nkey = %q\n", selector, "file:"+file)
	}
	return os.WriteFile(filepath.Join(r.dir, "deliverd.toml"), []byte(b.String()), 0o600)
}

// start starts the daemon and waits until it is ready.
func (r *rig) start(ctx context.Context) error {
	r.process = exec.CommandContext(ctx, r.program, "serve", "-c", filepath.Join(r.dir, "deliverd.toml"))
	r.process.Stderr = &r.stderr
	r.exited = make(chan struct{})
	if err := r.process.Start(); err != nil {
		return err
	}
	go func() {
		defer close(r.exited)
		_ = r.process.Wait() // how it ended is of no interest, that it did is
	}()
	for {
		resp, err := http.Get("http://" + r.http + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.exited:
			return errors.New("the daemon ended: " + r.stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends the daemon as a crash would.
func (r *rig) kill() {
	if r.process != nil && r.process.Process != nil {
		_ = r.process.Process.Kill()
		<-r.exited
	}
}

func (r *rig) close() {
	r.kill()
	if r.sink != nil {
		r.sink.Close()
	}
	if r.dir != "" {
		os.RemoveAll(r.dir)
	}
}

// token is what the daemon leaves for local commands.
func (r *rig) token() (string, error) {
	text, err := os.ReadFile(filepath.Join(r.dir, "data", "local.token"))
	return strings.TrimSpace(string(text)), err
}

func (r *rig) client() (*client.Client, error) {
	token, err := r.token()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = senders
	return client.New("http://"+r.http, client.Token(token), client.HTTPClient(&http.Client{Transport: transport}))
}

// door opens one of the ways in.
func (r *rig) door(name string) (sender, func(), error) {
	if name == "http" {
		c, err := r.client()
		if err != nil {
			return nil, nil, err
		}
		return c.Send, func() {}, nil
	}
	nc, err := nats.Connect("nats://" + r.nats)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.OverNATS(func(ctx context.Context, subject string, header map[string][]string, body []byte) ([]byte, error) {
		reply, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: header, Data: body})
		if err != nil {
			return nil, err
		}
		return reply.Data, nil
	}, "bench")
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return c.Send, nc.Close, nil
}

func (r *rig) pause(ctx context.Context, selector string) error {
	return r.act(ctx, "/v1/queue/pause", selector)
}

func (r *rig) resume(ctx context.Context, selector string) error {
	return r.act(ctx, "/v1/queue/resume", selector)
}

func (r *rig) act(ctx context.Context, path, selector string) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	return c.Do(ctx, http.MethodPost, path, nil, map[string]string{"selector": selector, "reason": "benchmark"}, nil)
}

// note is the sink's OnMail.
func (a *arrivals) note(m smtptest.Mail) {
	id, _, _ := strings.Cut(strings.TrimPrefix(m.MessageID, "<"), "@")
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, again := a.at[client.ID(id)]; again {
		return
	}
	a.at[client.ID(id)] = m.At
	a.count++
	if w := a.waiter[client.ID(id)]; w != nil {
		w <- m.At
		delete(a.waiter, client.ID(id))
	}
}

// arrival waits for one message.
func (r *rig) arrival(ctx context.Context, id client.ID) (time.Time, error) {
	a := &r.arrivals
	a.mu.Lock()
	if at, ok := a.at[id]; ok {
		a.mu.Unlock()
		return at, nil
	}
	w := make(chan time.Time, 1)
	a.waiter[id] = w
	a.mu.Unlock()
	select {
	case at := <-w:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	case <-r.exited:
		return time.Time{}, errors.New("the daemon ended: " + r.stderr.String())
	}
}

// arrived waits until n messages have come.
func (r *rig) arrived(ctx context.Context, n int) error {
	return r.poll(ctx, 10*time.Millisecond, func() (bool, error) {
		r.arrivals.mu.Lock()
		defer r.arrivals.mu.Unlock()
		return r.arrivals.count >= n, nil
	})
}

// scanned waits until the daemon knows n waiting messages. It asks rarely: each answer
// counts all of them, and a hundred answers a second took more of the processor than
// the scan.
func (r *rig) scanned(ctx context.Context, n int) error {
	return r.poll(ctx, 500*time.Millisecond, func() (bool, error) {
		waiting, err := r.metric(`deliverd_waiting_messages{kind="invite",state="queued"}`)
		return int(waiting) >= n, err
	})
}

func (r *rig) poll(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.exited:
			return errors.New("the daemon ended: " + r.stderr.String())
		case <-time.After(every):
		}
	}
}

func (r *rig) memory() (float64, error) {
	bytes, err := r.metric("process_resident_memory_bytes")
	return bytes / 1e6, err
}

// metric reads one value of the daemon's own metrics; 0 for one that is not there
// yet.
func (r *rig) metric(name string) (float64, error) {
	resp, err := http.Get("http://" + r.http + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, lines.Err()
}
