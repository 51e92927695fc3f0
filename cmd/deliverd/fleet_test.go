package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// A fleet is nodes of NATS and of deliverd, each a process of its own, that are killed,
// stopped and started again; and what they send to, which outlives them.
type fleet struct {
	t        *testing.T
	dir      string
	dns      *dnstest.Server
	sink     *smtptest.Sink
	arrivals *arrivals
	stores   []*storeNode
	nodes    []*node
}

// storeNode is one nats-server.
type storeNode struct {
	process
	config, monitor string
}

// node is one deliverd.
type node struct {
	process
	config, http string
	client       *client.Client
}

// runAsStore makes the test binary a nats-server with the configuration file that it
// names.
const runAsStore = "TEST_RUN_AS_NATS"

func runStore(config string) int {
	o, err := server.ProcessConfigFile(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s, err := server.NewServer(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return 0
}

// aDestinationEach: two mail servers, so that what befalls the one's mail does not hold
// back the other's.
const aDestinationEach = everyDomain + `
*.flaky.example.     MX 10 mx.flaky.example.
mx.flaky.example.    A  192.0.2.26
`

// perDestination is small, so that a burst would show that it is not kept.
const perDestination = 6

func newFleet(t *testing.T, stores, nodes int) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), arrivals: newArrivals()}
	var err error
	if f.sink, err = smtptest.Listen(smtptest.SinkOptions{Keep: -1, OnMail: f.arrivals.took}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.sink.Close() })
	if f.dns, err = dnstest.Start(aDestinationEach); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.dns.Close() })
	for selector, alg := range map[string]deliver.Algorithm{"r": deliver.RSA2048, "e": deliver.Ed25519} {
		pem, err := deliver.NewKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		f.write(selector+".pem", string(pem))
	}
	f.write("root.key", rand.Text()+rand.Text())
	urls := f.layStores(stores)
	f.each(stores, func(i int) { f.stores[i].start(f) })
	for i := range nodes {
		f.nodes = append(f.nodes, f.layNode(i, urls, stores))
	}
	// One after the other: the first makes the keys that all share.
	for _, n := range f.nodes {
		n.start(f)
	}
	return f
}

func (f *fleet) write(name, text string) (path string) {
	f.t.Helper()
	path = filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// layStores writes the configurations of the NATS nodes and returns their addresses.
// One alone syncs every write; several have each other.
func (f *fleet) layStores(n int) (urls []string) {
	var peers, routes []string
	for range n {
		peers = append(peers, freePort(f.t))
		routes = append(routes, fmt.Sprintf("%q", "nats-route://"+peers[len(peers)-1]))
	}
	for i, peer := range peers {
		listen, monitor := freePort(f.t), freePort(f.t)
		urls = append(urls, "nats://"+listen)
		config := fmt.Sprintf("server_name: n%d\nlisten: %q\nhttp: %q\njetstream { store_dir: %q", i+1, listen, monitor, filepath.Join(f.dir, fmt.Sprintf("n%d", i+1)))
		if n == 1 {
			config += ", sync_interval: always }\n"
		} else {
			config += fmt.Sprintf(" }\ncluster { name: fleet, listen: %q, routes: [%s] }\n", peer, strings.Join(routes, ", "))
		}
		s := &storeNode{config: f.write(fmt.Sprintf("n%d.conf", i+1), config), monitor: monitor}
		f.stores = append(f.stores, s)
	}
	return urls
}

func (f *fleet) layNode(i int, urls []string, replicas int) *node {
	n := &node{http: freePort(f.t)}
	var b strings.Builder
	fmt.Fprintf(&b, `data = %q
[listen]
http = %q
[nats]
url = %q
replicas = %d
[send]
hello = "mail.acme.example"
from = "Acme <no-reply@acme.example>"
return_path_domain = "bounce.acme.example"
per_destination = %d
[keys]
seal = "file:%s/seal.ring"
root = "file:%s/root.key"
dkim = "%s/dkim"
[dns]
servers = [%q]
[limits]
per_tenant = 0
per_recipient = 0
[log]
level = "warn"
[kinds.pin]
retries = ["1s"]
valid_for = "1h"
[kinds.invite]
retries = ["1s"]
[lab]
dial = { ":25" = %q }
`, filepath.Join(f.dir, fmt.Sprintf("d%d", i+1)), n.http, strings.Join(urls, ","), replicas, perDestination,
		f.dir, f.dir, f.dir, f.dns.Addr, f.sink.Addr().String())
	for _, selector := range []string{"r", "e"} {
		fmt.Fprintf(&b, "[[dkim]]\ndomain = \"acme.example\"\nselector = %q\nkey = %q\n", selector, "file:"+filepath.Join(f.dir, selector+".pem"))
	}
	n.config = f.write(fmt.Sprintf("d%d.toml", i+1), b.String())
	return n
}

// launch starts a process; it is killed with the test.
func (f *fleet) launch(p *process, name string, cmd *exec.Cmd) {
	f.t.Helper()
	p.cmd, p.exited = cmd, make(chan struct{})
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	exited := p.exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // killed, mostly
	}()
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if f.t.Failed() && p.cmd == cmd {
			f.t.Logf("%s's log:\n%s", name, tail(p.stderr.String(), 30))
		}
	})
}

// answers waits until a process serves its health.
func (f *fleet) answers(p *process, url string) {
	f.t.Helper()
	for {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-p.exited:
			f.t.Fatalf("a node ended:\n%s", tail(p.stderr.String(), 30))
		case <-f.t.Context().Done():
			f.t.Fatalf("the test ended before %s answered", url)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// each does something to n nodes side by side.
func (f *fleet) each(n int, do func(i int)) {
	done := make(chan struct{})
	for i := range n {
		go func() {
			do(i)
			done <- struct{}{}
		}()
	}
	for range n {
		<-done
	}
}

// start starts a NATS node, without waiting for it: it has no leader alone.
func (s *storeNode) start(f *fleet) {
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), runAsStore+"="+s.config)
	f.launch(&s.process, s.config, cmd)
}

// storesWell waits until every NATS node has caught up with the others.
func (f *fleet) storesWell() {
	for _, s := range f.stores {
		f.answers(&s.process, "http://"+s.monitor+"/healthz")
	}
}

// startsMost is how often a deliverd is started that ends at once.
const startsMost = 20

// start starts a deliverd and returns when it is ready. One that meets a store which
// is just choosing its leaders ends with words, and is started again, as systemd does.
func (n *node) start(f *fleet) {
	f.t.Helper()
	for tries := 1; ; tries++ {
		f.launch(&n.process, n.config, program(context.Background(), "serve", "-c", n.config))
		if n.ready(f) {
			break
		}
		if tries == startsMost {
			f.t.Fatalf("a node ends at once, %d times:\n%s", tries, tail(n.stderr.String(), 5))
		}
	}
	token, err := os.ReadFile(filepath.Join(strings.TrimSuffix(n.config, ".toml"), "local.token"))
	if err != nil {
		f.t.Fatal(err)
	}
	if n.client, err = client.New("http://"+n.http, client.Token(string(token)), client.Attempts(1)); err != nil {
		f.t.Fatal(err)
	}
}

func (n *node) ready(f *fleet) bool {
	for {
		resp, err := http.Get("http://" + n.http + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-n.exited:
			return false
		case <-f.t.Context().Done():
			f.t.Fatal("the test ended before the node was ready")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pause is SIGSTOP for a while, then SIGCONT.
func (n *node) pause(d time.Duration) {
	_ = n.cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(d)
	_ = n.cmd.Process.Signal(syscall.SIGCONT)
}

// holding is what a process holds.
type holding struct{ goroutines, descriptors, megabytes int }

// use reads what a deliverd holds, from its metrics.
func (n *node) use() (u holding, err error) {
	text, err := n.client.Open(context.Background(), "/metrics", nil)
	if err != nil {
		return u, err
	}
	defer text.Close()
	for name, value := range metrics(text) {
		switch name {
		case "go_goroutines":
			u.goroutines = int(value)
		case "process_open_fds":
			u.descriptors = int(value)
		case "process_resident_memory_bytes":
			u.megabytes = int(value) >> 20
		}
	}
	return u, nil
}

// oneOf picks, without changing what is picked from.
func oneOf[T any](from []T, n int) T { return from[n%len(from)] }

// seedOf reads a seed that a run printed, or makes one.
func seedOf(t *testing.T, name string) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// others are all nodes but one.
func (f *fleet) others(n *node) []*node {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(o *node) bool { return o == n })
}
