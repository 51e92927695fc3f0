package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
)

// rig is a sender's surroundings: a directory, a sink, and the group that its
// processes are counted in.
type rig struct {
	dir   string
	sink  *smtptest.Sink
	group group

	mu     sync.Mutex
	at     map[string]time.Time      // by recipient
	waiter map[string]chan time.Time // guarded by mu, as at
	sample []byte                    // the first mail that came
}

func newRig(name string) (r *rig, err error) {
	r = &rig{at: map[string]time.Time{}, waiter: map[string]chan time.Time{}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "deliverd-peers-"); err != nil {
		return nil, err
	}
	if err = os.Chmod(r.dir, 0o755); err != nil { // mail servers give up their rights
		return nil, err
	}
	if r.group, err = newGroup("deliverd-bench-" + strconv.Itoa(os.Getpid())); err != nil {
		return nil, err
	}
	r.sink, err = smtptest.Listen(smtptest.SinkOptions{Keep: -1, OnMail: r.note, Rules: smtptest.Newcomers()[2:3]}) // full@: 452
	return r, err
}

func (r *rig) close() {
	if r.sink != nil {
		r.sink.Close()
	}
	r.group.close()
	os.RemoveAll(r.dir)
}

// note is the sink's OnMail.
func (r *rig) note(m smtptest.Mail) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sample == nil {
		r.sample = append([]byte(nil), m.Raw...)
	}
	if _, again := r.at[m.To]; again {
		return
	}
	r.at[m.To] = m.At
	if w := r.waiter[m.To]; w != nil {
		w <- m.At
		delete(r.waiter, m.To)
	}
}

func (r *rig) arrived() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.at)
}

// patience is the longest that anything may take.
const patience = 5 * time.Minute

func (r *rig) arrival(ctx context.Context, to string) (time.Time, error) {
	r.mu.Lock()
	if at, ok := r.at[to]; ok {
		r.mu.Unlock()
		return at, nil
	}
	w := make(chan time.Time, 1)
	r.waiter[to] = w
	r.mu.Unlock()
	select {
	case at := <-w:
		return at, nil
	case <-time.After(patience):
		return time.Time{}, fmt.Errorf("the mail to %s did not arrive", to)
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// refused waits until the sink has said no n times.
func (r *rig) refused(ctx context.Context, n int) error {
	return r.poll(ctx, func() bool { return r.sink.Stats().Refused >= n })
}

func (r *rig) poll(ctx context.Context, done func() bool) error {
	for end := time.Now().Add(patience); !done(); {
		if time.Now().After(end) {
			return fmt.Errorf("after %v %d mails have arrived, and nothing moves", patience, r.arrived())
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// group is a cgroup: what its processes used, those that have ended too.
type group struct{ dir, usage string }

func newGroup(name string) (group, error) {
	for root, usage := range map[string]string{"/sys/fs/cgroup/cpuacct": "cpuacct.usage", "/sys/fs/cgroup": "cpu.stat"} {
		dir := filepath.Join(root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, usage)); err == nil {
			return group{dir, usage}, nil
		}
		os.Remove(dir)
	}
	return group{}, errors.New("can't make a cgroup, without which short processes can't be counted")
}

// command makes a command whose processes, and their children, are in the group.
func (g group) command(program string, args ...string) *exec.Cmd {
	const join = `echo $$ >"$0/cgroup.procs" && exec "$@"`
	return exec.Command("/bin/sh", append([]string{"-c", join, g.dir, program}, args...)...)
}

// cpu is user and system time together.
func (g group) cpu() time.Duration {
	b, err := os.ReadFile(filepath.Join(g.dir, g.usage))
	if err != nil {
		return 0
	}
	text, unit := string(b), time.Nanosecond
	if g.usage == "cpu.stat" {
		_, text, _ = strings.Cut(text, "usage_usec ")
		text, _, _ = strings.Cut(text, "\n")
		unit = time.Microsecond
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return time.Duration(n) * unit
}

// memory is what the processes hold in MB, shared pages by halves, thirds …
func (g group) memory() (mb float64) {
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return 0
	}
	for pid := range strings.FieldsSeq(string(b)) {
		f, err := os.Open("/proc/" + pid + "/smaps_rollup")
		if err != nil {
			continue // it has ended
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "Pss:" {
				kb, _ := strconv.ParseFloat(fields[1], 64)
				mb += kb / 1000
			}
		}
		f.Close()
	}
	return mb
}

// close removes the group once its processes have ended.
func (g group) close() {
	for range 100 {
		if g.dir == "" || os.Remove(g.dir) == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// listening waits until somebody listens there.
func listening(ctx context.Context, network, addr string) error {
	for end := time.Now().Add(time.Minute); ; {
		c, err := net.Dial(network, addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
