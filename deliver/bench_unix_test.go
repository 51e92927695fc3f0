//go:build unix

package deliver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// serverVariable makes the test's binary the other side of a benchmark: a process of
// its own, so that the client's CPU can be told from the server's.
const serverVariable = "DELIVER_BENCH_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverVariable) != "" {
		sink, err := smtptest.Listen(smtptest.SinkOptions{Keep: -1})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(sink.Addr())
		io.Copy(io.Discard, os.Stdin) // until the benchmark ends
		sink.Close()
		return
	}
	os.Exit(m.Run())
}

// startServer starts a sink in a process of its own.
func startServer(b *testing.B) netip.AddrPort {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	addr, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil {
		b.Fatal(err)
	}
	return addr
}

// farConn is a connection over a line with a round trip of rtt: what arrives can be
// read rtt later. It counts how often the client waits for an answer to what it wrote.
type farConn struct {
	*net.TCPConn
	rtt   time.Duration
	trips *atomic.Int64

	mu    sync.Mutex
	wrote bool
}

func (c *farConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.wrote = true
	c.mu.Unlock()
	return c.TCPConn.Write(b)
}

func (c *farConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	asked := c.wrote
	c.wrote = false
	c.mu.Unlock()
	if asked {
		c.trips.Add(1)
		time.Sleep(c.rtt)
	}
	return c.TCPConn.Read(b)
}

// cpu is what this process has used by itself, and what the kernel has for it: on
// loopback that is the server's half of TCP as well.
func cpu() (user, system time.Duration) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, 0
	}
	return time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
}

// BenchmarkConnections compares the ways in which a message of 8 KiB, already signed,
// meets a connection: new for each; reused, one message after the other; and shared by
// three attempts, of which one sends, one rides behind its dot, and one stands in line. user- and
// system-µs/msg are the processor time of the whole client process, trips/msg the times that it waited for the server.
func BenchmarkConnections(b *testing.B) {
	server := startServer(b)
	for _, way := range []struct {
		name    string
		perConn int
		abreast int
	}{{"new", 1, 1}, {"reused", 1 << 30, 1}, {"pipelined", 1 << 30, 3}} {
		for _, rtt := range []time.Duration{0, 20 * time.Millisecond} {
			for name, policy := range map[string]TLSPolicy{"clear": TLSNone, "tls": TLSOpportunistic} {
				b.Run(fmt.Sprintf("%s/%s/%s", way.name, name, rtt), func(b *testing.B) {
					benchmarkWay(b, server, way.perConn, way.abreast, rtt, policy)
				})
			}
		}
	}
}

func benchmarkWay(b *testing.B, server netip.AddrPort, perConn, abreast int, rtt time.Duration, policy TLSPolicy) {
	var trips, conns atomic.Int64
	o := testOptions(b, smtptest.NewNetwork(nil, nil), Plan{})
	o.Plan, o.Log = Fixed("sink.test", server, policy), nil
	o.Pool.Messages = perConn
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conns.Add(1)
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		trips.Add(1)
		time.Sleep(rtt)
		return &farConn{TCPConn: c.(*net.TCPConn), rtt: rtt, trips: &trips}, nil
	}
	d := newDeliverer(b, o)
	defer d.Close()
	signed := []byte(shapes["every field we sign"] + strings.Repeat("A line of a mail that has the usual length of lines in mails.\r\n", 120))
	m := testMessage()
	send := func() {
		if got := d.Attempt(b.Context(), &mail.Attempt{Message: m, Number: 1, Signed: signed}); got.State != mail.StateAccepted {
			b.Errorf("got %+v", got)
		}
	}
	if perConn > 1 {
		send()
		send()
	}
	trips.Store(0)
	conns.Store(0)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	user, system := cpu()
	var wg sync.WaitGroup
	for range abreast {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				// On a far line, as a scheduler that knows the line would: who comes when the one
				// seat is taken opens a connection, which is not what is measured.
				for rtt > 0 && abreast > 1 && !room(d) {
					time.Sleep(rtt / 20)
				}
				send()
			}
		})
		time.Sleep(rtt * 3 / 2)
	}
	wg.Wait()
	userAfter, systemAfter := cpu()
	b.ReportMetric(float64((userAfter-user).Microseconds())/float64(b.N), "user-µs/msg")
	b.ReportMetric(float64((systemAfter-system).Microseconds())/float64(b.N), "system-µs/msg")
	b.ReportMetric(float64(trips.Load())/float64(b.N), "trips/msg")
	b.ReportMetric(float64(conns.Load())/float64(b.N), "conns/msg")
}

// room reports whether a connection waits, or is busy and has a seat that nobody waits
// for.
func room(d *Deliverer) bool {
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	for _, s := range d.pool.stations {
		if s.seats > len(s.line) || len(s.idle) > 0 {
			return true
		}
	}
	return false
}
