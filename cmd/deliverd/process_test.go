package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// TestMain lets the test binary be the program, or a nats-server: a test starts itself
// again with runAsProgram or runAsStore set, kills that process, and starts another.
func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	if config := os.Getenv(runAsStore); config != "" {
		os.Exit(runStore(config))
	}
	testscript.Main(m, map[string]func(){"deliverd": main})
}

const runAsProgram = "TEST_RUN_AS_DELIVERD"

// A world is a daemon's surroundings: a resolver that knows every domain, and one
// mail server for all of them. It outlives the daemons that a test starts and kills.
type world struct {
	sink   *smtptest.Sink
	dns    *dnstest.Server
	dir    string
	config string
	// Where the daemon listens.
	http, nats, bounces string
}

// everyDomain has one mail server for all there is but nomail.example, which takes no
// mail.
const everyDomain = `
*.example.      MX  10 mx.provider.example.
nomail.example. MX  0 .
mx.provider.example.  A   192.0.2.25
`

func newWorld(t *testing.T, sink smtptest.SinkOptions, more string) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), http: freePort(t), nats: freePort(t), bounces: freePort(t)}
	var err error
	if w.sink, err = smtptest.Listen(sink); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.sink.Close() })
	if w.dns, err = dnstest.Start(everyDomain); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.dns.Close() })
	var b strings.Builder
	fmt.Fprintf(&b, `data = %q
[listen]
http = %q
nats = %q
bounces = %q
[send]
hello = "mail.acme.example"
from = "Acme <no-reply@acme.example>"
return_path_domain = "bounce.acme.example"
[dns]
servers = [%q]
[limits]
per_tenant = 0
per_recipient = 0
[lab]
dial = { ":25" = %q }
`, filepath.Join(w.dir, "data"), w.http, w.nats, w.bounces, w.dns.Addr, w.sink.Addr().String())
	for selector, alg := range map[string]deliver.Algorithm{"r": deliver.RSA2048, "e": deliver.Ed25519} {
		pem, err := deliver.NewKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(w.dir, selector+".pem")
		if err := os.WriteFile(file, pem, 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "[[dkim]]\ndomain = \"acme.example\"\nselector = %q\nkey = %q\n", selector, "file:"+file)
	}
	b.WriteString(more)
	w.config = filepath.Join(w.dir, "deliverd.toml")
	if err := os.WriteFile(w.config, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// freePort finds an address that nobody listens on, and that nobody takes before it is
// used: where the system has the whole of 127.0.0.0/8, as Linux does, each is on an
// address of its own.
func freePort(t *testing.T) string {
	t.Helper()
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		n := freePorts.Add(1)
		host = fmt.Sprintf("127.77.%d.%d", n/250%250, 1+n%250)
	}
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

var freePorts atomic.Int64

// A process is a deliverd that a test runs.
type process struct {
	cmd    *exec.Cmd
	stderr syncBuffer
	exited chan struct{}
}

// syncBuffer can be read while a process writes it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// program makes a command that runs deliverd.
func program(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), runAsProgram+"=1")
	return cmd
}

// start starts the daemon and returns when it is ready.
func (w *world) start(t *testing.T) *process {
	t.Helper()
	return w.run(t, program(context.Background(), "serve", "-c", w.config))
}

// run starts a daemon of any version and returns when it is ready.
func (w *world) run(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, exited: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // killed, mostly
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", tail(p.stderr.String(), 40))
		}
	})
	for {
		resp, err := http.Get("http://" + w.http + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return p
			}
		}
		select {
		case <-p.exited:
			t.Fatalf("the daemon ended:\n%s", p.stderr.String())
		case <-t.Context().Done():
			t.Fatal("the test ended before the daemon was ready")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// stop is SIGTERM, and waits.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.exited
}

// client talks to the daemon with the token that it leaves for local commands.
func (w *world) client(t *testing.T) *client.Client {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(w.dir, "data", "local.token"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New("http://"+w.http, client.Token(string(token)), client.Attempts(1))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deliverd runs a client command and returns what it printed and its exit status.
func (w *world) deliverd(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := program(t.Context(), append([]string{"-c", w.config}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), e.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), 0
}

// eventually waits until ok, as long as the test may run.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-t.Context().Done():
			t.Fatalf("the test ended before %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
