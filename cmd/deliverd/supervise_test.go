package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// A manager stands for systemd: it holds the listening sockets, starts the daemon with
// them, and hears what it says.
type manager struct {
	w       *world
	sockets []*os.File // in the order of names
	names   string
	notify  *net.UnixConn
	path    string
}

func newManager(t *testing.T, w *world) *manager {
	t.Helper()
	m := &manager{w: w, names: "http:bounces"}
	for _, addr := range []string{w.http, w.bounces} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		l.Close() // f is the same socket
		t.Cleanup(func() { f.Close() })
		m.sockets = append(m.sockets, f)
	}
	dir, err := os.MkdirTemp("", "sd") // a socket's path has 108 bytes, and t.TempDir may be longer
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m.path = filepath.Join(dir, "notify")
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.notify.Close() })
	return m
}

// start starts the daemon by the protocol. The shell makes LISTEN_PID the process's
// own, which is known only once it is there.
func (m *manager) start(t *testing.T, env ...string) *process {
	t.Helper()
	p := &process{cmd: program(context.Background()), exited: make(chan struct{})}
	p.cmd.Path = "/bin/sh"
	p.cmd.Args = []string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", os.Args[0], "serve", "-c", m.w.config}
	p.cmd.Env = append(p.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(m.sockets)), "LISTEN_FDNAMES="+m.names, "NOTIFY_SOCKET="+m.path)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.ExtraFiles = m.sockets // the first becomes 3
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
		_, _ = m.notify.WriteToUnix([]byte("EXITED"), &net.UnixAddr{Name: m.path, Net: "unixgram"}) // wakes hears
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", tail(p.stderr.String(), 40))
		}
	})
	return p
}

// hears waits until the daemon has said something that begins so, and returns all of it.
func (m *manager) hears(t *testing.T, begin string) string {
	t.Helper()
	b := make([]byte, 4096)
	for {
		n, err := m.notify.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		said := string(b[:n])
		if strings.HasPrefix(said, begin) {
			return said
		}
		if said == "EXITED" {
			t.Fatalf("the daemon ended, and never said %s", begin)
		}
	}
}

// TestRestartRefusesNobody: with the sockets held by the service manager, a restart
// under load refuses no connection at either door and loses no request; what was
// accepted is handed over once.
func TestRestartRefusesNobody(t *testing.T) {
	t.Parallel()
	const restarts, senders = 3, 8
	w := newWorld(t, smtptest.SinkOptions{Ledger: true, Rules: smtptest.Newcomers()}, "[log]\nlevel = \"warn\"\n[kinds.invite]\nretries = [\"1s\"]\n")
	m := newManager(t, w)
	p := m.start(t)
	if said := m.hears(t, "READY=1"); !strings.Contains(said, "\nSTATUS=version ") {
		t.Errorf("it says %q", said)
	}
	token, err := os.ReadFile(filepath.Join(w.dir, "data", "local.token"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	accepted := make([][]mail.ID, senders)
	var greeted atomic.Int64
	for s := range senders {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id, err := w.sendOnce(strings.TrimSpace(string(token)), s, i)
				if err != nil {
					t.Errorf("a request was not answered: %v", err)
					return
				}
				accepted[s] = append(accepted[s], id)
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := greeting(w.bounces); err != nil {
				t.Errorf("the bounce listener: %v", err)
				return
			}
			greeted.Add(1)
		}
	})
	for range restarts {
		before := w.sink.Stats().Accepted
		eventually(t, "mail flowed", func() bool { return w.sink.Stats().Accepted >= before+20 || t.Failed() })
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		m.hears(t, "STOPPING=1")
		<-p.exited
		if status := p.cmd.ProcessState.ExitCode(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		m.hears(t, "EXITED")
		p = m.start(t)
		m.hears(t, "READY=1")
	}
	stop()
	wg.Wait()
	var ids []mail.ID
	for _, of := range accepted {
		ids = append(ids, of...)
	}
	t.Logf("%d messages accepted and %d greetings over %d restarts", len(ids), greeted.Load(), restarts)
	for range waitSettled(t, w.client(t), w.sink, ids) {
		break
	}
	ledger := w.sink.Ledger()
	if len(ledger) != len(ids) {
		t.Errorf("%d messages arrived of %d", len(ledger), len(ids))
	}
	for id, n := range ledger {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}
}

// sendOnce hands a message over on a connection of its own, once: whatever is refused
// or cut shows. It waits for the message's end; every other one is greylisted, so that
// requests are under way at any moment.
func (w *world) sendOnce(token string, sender, i int) (mail.ID, error) {
	to := fmt.Sprintf("kari.%d.%d@nordlys.example", sender, i)
	if i%2 == 1 {
		to = "greylist." + to
	}
	body := fmt.Sprintf(`{"kind": "invite", "to": %q, "tenant": "4711", "data": {"link": "https://login.acme.example/i/1", "inviter": "Lars"}}`, to)
	req, err := http.NewRequest(http.MethodPost, "http://"+w.http+"/v1/messages", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "wait=5")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var receipt mail.Receipt
	if err := json.NewDecoder(resp.Body).Decode(&receipt); err != nil {
		return "", err
	}
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return receipt.ID, nil
}

// greeting connects to an SMTP server, and is done once that has said its 220.
func greeting(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "220 ") {
		err = fmt.Errorf("it said %q", line)
	}
	if err == nil {
		_, err = c.Write([]byte("QUIT\r\n"))
	}
	return err
}

// TestSupervised: the manager hears of reloads, with a time of its own clock, and has
// its sign of life; a socket that no door is known for is refused with words.
func TestSupervised(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{}, "")
	m := newManager(t, w)
	p := m.start(t, "WATCHDOG_USEC=200000")
	m.hears(t, "READY=1")
	m.hears(t, "WATCHDOG=1")
	m.hears(t, "WATCHDOG=1")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if said := m.hears(t, "RELOADING=1"); strings.HasSuffix(said, "=0") || !strings.Contains(said, "\nMONOTONIC_USEC=") {
		t.Errorf("it says %q", said)
	}
	m.hears(t, "READY=1")
	p.stop()
	m.hears(t, "EXITED")

	m.names = "http:imap"
	p = m.start(t)
	<-p.exited
	if log := p.stderr.String(); p.cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(log, `"imap"`) || !strings.Contains(log, "FileDescriptorName=") {
		t.Errorf("exit status %d, %s", p.cmd.ProcessState.ExitCode(), log)
	}
}
