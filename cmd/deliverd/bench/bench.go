// Package bench measures deliverd as its users meet it: the daemon as a process of
// its own, with fsync, RSA signatures and STARTTLS on, fed over HTTP or NATS, and
// handing over to a sink in this process. What it reports of CPU and memory is the
// daemon's alone, as its own /metrics tell; load and sink share the machine with it,
// so that messages a second are what is left for it.
//
// The steps: start → throughput over each door → PINs alone → PINs behind a backlog
// → a backlog waiting, killed with SIGKILL, back at work.
package bench

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/deliver"
)

// Options say how much to measure.
type Options struct {
	Program  string // the deliverd to run
	Messages int    // for the throughput over each door
	Backlog  int    // invites that PINs have to pass
	PINs     int    // for each measurement of latency
	Waiting  []int  // sizes of the backlog for memory and restart
	Progress io.Writer
}

// Result is what was measured.
type Result struct {
	Version    string       `json:"version"`
	Machine    string       `json:"machine"`
	SignMillis float64      `json:"sign_ms"` // one RSA-2048 and one Ed25519 signature, on one core
	Throughput []Throughput `json:"throughput"`
	PINs       []Latency    `json:"pins"`
	Waiting    []Waiting    `json:"waiting"`
}

// Throughput is a run of messages through the whole daemon.
type Throughput struct {
	Door      string  `json:"door"`
	Messages  int     `json:"messages"`
	PerSecond float64 `json:"per_second"` // from the first call to the last hand-over
	CPUMillis float64 `json:"cpu_ms"`     // the daemon's, a message
}

// Latency is from before the call to the arrival at the sink.
type Latency struct {
	Beside string        `json:"beside"` // what else the daemon had to do
	P50    time.Duration `json:"p50_ns"`
	P99    time.Duration `json:"p99_ns"`
	Max    time.Duration `json:"max_ns"`
}

// Waiting is what a backlog costs.
type Waiting struct {
	Messages   int           `json:"messages"`
	PerSecond  float64       `json:"accepted_per_second"`
	MemoryMB   float64       `json:"memory_mb"`    // resident, before the kill
	RestartMB  float64       `json:"restart_mb"`   // resident after the kill, ten seconds after all is known again
	FirstPIN   time.Duration `json:"first_pin_ns"` // from the start after the kill to a PIN's hand-over
	AllScanned time.Duration `json:"scanned_ns"`   // and until every waiting message is known again
	ScanCPU    float64       `json:"scan_cpu_s"`   // processor seconds that this took; two free cores need half as long
}

// Run measures. It takes minutes.
func Run(ctx context.Context, o Options) (r Result, err error) {
	say := func(format string, args ...any) { fmt.Fprintf(o.Progress, format+"\n", args...) }
	if r.SignMillis, err = signCost(); err != nil {
		return r, err
	}
	say("one RSA-2048 and one Ed25519 signature: %.2f ms of CPU", r.SignMillis)
	for _, door := range []string{"http", "nats"} {
		t, err := throughput(ctx, o, door)
		if err != nil {
			return r, err
		}
		say("%s: %d messages at %.0f/s, %.2f ms of CPU each", door, t.Messages, t.PerSecond, t.CPUMillis)
		r.Throughput = append(r.Throughput, t)
	}
	if r.PINs, err = latencies(ctx, o); err != nil {
		return r, err
	}
	for _, l := range r.PINs {
		say("PIN %s: p50 %v, p99 %v", l.Beside, l.P50.Round(100*time.Microsecond), l.P99.Round(100*time.Microsecond))
	}
	for _, n := range o.Waiting {
		w, err := waiting(ctx, o, n)
		if err != nil {
			return r, err
		}
		say("%d waiting: %.0f MB, %.0f MB after a kill; a PIN handed over %v after the start, all known again after %v and %.1f s of CPU",
			n, w.MemoryMB, w.RestartMB, w.FirstPIN.Round(10*time.Millisecond), w.AllScanned.Round(10*time.Millisecond), w.ScanCPU)
		r.Waiting = append(r.Waiting, w)
	}
	return r, nil
}

// signCost is the floor under the CPU of a message.
func signCost() (float64, error) {
	var keys []*deliver.Key
	for selector, alg := range map[string]deliver.Algorithm{"r": deliver.RSA2048, "e": deliver.Ed25519} {
		pem, err := deliver.NewKey(alg)
		if err != nil {
			return 0, err
		}
		k, err := deliver.ParseKey("acme.example", selector, pem)
		if err != nil {
			return 0, err
		}
		keys = append(keys, k)
	}
	signer, err := deliver.NewSigner(keys...)
	if err != nil {
		return 0, err
	}
	raw := []byte("From: a@acme.example\r\nTo: b@nordlys.example\r\nSubject: x\r\n\r\nbody\r\n")
	const n = 300
	before, err := ownCPU()
	if err != nil {
		return 0, err
	}
	for range n {
		if _, err := signer.Sign(raw, "acme.example", time.Unix(0, 0)); err != nil {
			return 0, err
		}
	}
	after, err := ownCPU()
	return (after - before).Seconds() * 1000 / n, err
}

// ownCPU is the processor time of this process: on a busy machine the clock on the
// wall tells how long others had it.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// senders is how many callers there are at once: a busy auth service.
const senders = 64

// throughput sends messages through one door and waits for the last hand-over.
func throughput(ctx context.Context, o Options, door string) (t Throughput, err error) {
	r, err := newRig(ctx, o.Program)
	if err != nil {
		return t, err
	}
	defer r.close()
	send, closeDoor, err := r.door(door)
	if err != nil {
		return t, err
	}
	defer closeDoor()
	cpu, err := r.metric("process_cpu_seconds_total")
	if err != nil {
		return t, err
	}
	began := time.Now()
	if _, err := r.load(ctx, send, o.Messages, invite); err != nil {
		return t, err
	}
	if err := r.arrived(ctx, o.Messages); err != nil {
		return t, err
	}
	took := time.Since(began)
	after, err := r.metric("process_cpu_seconds_total")
	if err != nil {
		return t, err
	}
	return Throughput{Door: door, Messages: o.Messages, PerSecond: float64(o.Messages) / took.Seconds(),
		CPUMillis: (after - cpu) * 1000 / float64(o.Messages)}, nil
}

// latencies measures PINs alone, behind invites that wait, and behind invites that
// are being delivered as fast as the machine can.
func latencies(ctx context.Context, o Options) (all []Latency, err error) {
	r, err := newRig(ctx, o.Program)
	if err != nil {
		return nil, err
	}
	defer r.close()
	send, closeDoor, err := r.door("http")
	if err != nil {
		return nil, err
	}
	defer closeDoor()
	measure := func(beside string) error {
		l, err := r.latency(ctx, send, o.PINs)
		l.Beside = beside
		all = append(all, l)
		return err
	}
	if err := measure("alone"); err != nil {
		return nil, err
	}
	if err := r.pause(ctx, "kind:invite"); err != nil {
		return nil, err
	}
	if _, err := r.load(ctx, send, o.Backlog, invite); err != nil {
		return nil, err
	}
	if err := measure(fmt.Sprintf("behind %d invites that wait", o.Backlog)); err != nil {
		return nil, err
	}
	if err := r.resume(ctx, "kind:invite"); err != nil {
		return nil, err
	}
	return all, measure(fmt.Sprintf("behind %d invites that are due", o.Backlog))
}

// latency sends PINs one after the other, with a little time between them.
func (r *rig) latency(ctx context.Context, send sender, n int) (Latency, error) {
	var all []time.Duration
	for i := range n {
		began := time.Now()
		receipt, err := send(ctx, pin(i))
		if err != nil {
			return Latency{}, err
		}
		at, err := r.arrival(ctx, receipt.ID)
		if err != nil {
			return Latency{}, err
		}
		all = append(all, at.Sub(began))
		time.Sleep(time.Duration(rand.N(20)) * time.Millisecond)
	}
	slices.Sort(all)
	return Latency{P50: all[len(all)/2], P99: all[len(all)*99/100], Max: all[len(all)-1]}, nil
}

// waiting fills the queue, kills the daemon, and watches it come back.
func waiting(ctx context.Context, o Options, n int) (w Waiting, err error) {
	r, err := newRig(ctx, o.Program)
	if err != nil {
		return w, err
	}
	defer r.close()
	send, closeDoor, err := r.door("nats")
	if err != nil {
		return w, err
	}
	if err := r.pause(ctx, "kind:invite"); err != nil {
		return w, err
	}
	began := time.Now()
	if _, err := r.load(ctx, send, n, invite); err != nil {
		return w, err
	}
	closeDoor()
	w.Messages, w.PerSecond = n, float64(n)/time.Since(began).Seconds()
	if w.MemoryMB, err = r.memory(); err != nil {
		return w, err
	}
	r.kill()
	began = time.Now()
	if err := r.start(ctx); err != nil {
		return w, err
	}
	send, closeDoor, err = r.door("http")
	if err != nil {
		return w, err
	}
	defer closeDoor()
	receipt, err := send(ctx, pin(0))
	if err != nil {
		return w, err
	}
	at, err := r.arrival(ctx, receipt.ID)
	if err != nil {
		return w, err
	}
	w.FirstPIN = at.Sub(began)
	if err := r.scanned(ctx, n); err != nil {
		return w, err
	}
	w.AllScanned = time.Since(began)
	if w.ScanCPU, err = r.metric("process_cpu_seconds_total"); err != nil {
		return w, err
	}
	select {
	case <-time.After(10 * time.Second): // what the scan left is given back
	case <-ctx.Done():
		return w, ctx.Err()
	}
	w.RestartMB, err = r.memory()
	return w, err
}

// load sends n messages from many callers at once and returns their ids.
func (r *rig) load(ctx context.Context, send sender, n int, message func(int) client.Message) (map[client.ID]bool, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	ids := make([]map[client.ID]bool, senders)
	var wg sync.WaitGroup
	for s := range senders {
		ids[s] = map[client.ID]bool{}
		wg.Go(func() {
			for i := range next {
				receipt, err := send(ctx, message(i))
				if err != nil {
					cancel(fmt.Errorf("message %d: %w", i, err))
					return
				}
				ids[s][receipt.ID] = true
			}
		})
	}
feeding:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feeding
		}
	}
	close(next)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	all := ids[0]
	for _, more := range ids[1:] {
		maps.Copy(all, more)
	}
	return all, nil
}

// invite makes the i-th invite: 500 companies, as many people as messages.
func invite(i int) client.Message {
	return client.Message{
		Kind: "invite", To: fmt.Sprintf("kari.nordmann.%d@company%d.example", i, i%500), ToName: "Kari Nordmann",
		Tenant: fmt.Sprint(i % 500), TenantName: "Nordlys Oy", PersonID: fmt.Sprintf("usr_%d", i), Locale: "en",
		Data: map[string]any{"link": fmt.Sprintf("https://login.acme.example/i/%032x", i), "inviter": "Lars"},
	}
}

// pin makes the i-th PIN, each for another person.
func pin(i int) client.Message {
	return client.Message{
		Kind: "pin", To: fmt.Sprintf("lars.%d@company%d.example", rand.Uint64(), i%500), Tenant: fmt.Sprint(i % 500),
		Data: map[string]any{"code": fmt.Sprintf("%06d", rand.IntN(1_000_000))},
	}
}
