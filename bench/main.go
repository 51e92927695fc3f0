// Command bench measures deliverd beside Postfix with OpenDKIM and Exim, as Debian
// ships them: the same mails, one sink, one machine, one after the other in every
// round, so that whatever else the machine does meets all of them. It needs root and
// what `make deps` installs; nothing leaves the machine.
//
// The steps, for each sender on a queue of its own: one mail is handed over, and
// becomes the text that the others are given; then rounds of a burst over several
// connections, as fast as it is taken; mails alone; mails behind a burst; and many
// mails that wait since the sink says 452.
//
// CPU is of all processes of a sender, the milter's too, from a cgroup: processes that
// live shorter than a look at /proc count. Load and sink are not in it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"
)

type options struct {
	program                    string // the deliverd to run
	openssl                    string // and another one, which signs with OpenSSL as the others do; "" for none
	exim                       string // where Debian's Exim is
	only                       string // of the senders' names
	messages, rounds, probes   int
	behind, waiting, injectors int
}

func main() {
	var o options
	flag.StringVar(&o.program, "deliverd", "bin/deliverd", "the deliverd to run")
	flag.StringVar(&o.openssl, "openssl", "", "a deliverd that was built with the tag openssl")
	flag.StringVar(&o.exim, "exim", "bin/mta/exim4-daemon-light/usr/sbin/exim4", "Debian's Exim, unpacked")
	flag.StringVar(&o.only, "only", "", "only senders with this in their names")
	flag.IntVar(&o.messages, "messages", 1500, "mails in a burst")
	flag.IntVar(&o.rounds, "rounds", 3, "bursts for each sender")
	flag.IntVar(&o.probes, "probes", 100, "mails for each measurement of latency")
	flag.IntVar(&o.behind, "behind", 1500, "mails in the burst that others have to pass")
	flag.IntVar(&o.waiting, "waiting", 3000, "mails that wait, for memory")
	flag.IntVar(&o.injectors, "injectors", 32, "connections over which mail is handed in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// sender is one of those that are compared.
type sender interface {
	name() string
	start(ctx context.Context, r *rig) error
	// send hands one mail in and returns when it is safe. Each injector has a connection
	// of its own.
	send(ctx context.Context, injector int, to string, urgent bool) error
	stop()
}

// figures are what is measured of a sender.
type figures struct {
	perSecond, cpu []float64 // of each round; CPU in ms a mail
	alone, behind  []time.Duration
	urgent         []time.Duration // deliverd's PINs behind the same burst
	idle, waiting  float64         // MB
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("it starts mail servers, which takes root; and `make deps`")
	}
	text, err := sampleMail(ctx, o)
	if err != nil {
		return err
	}
	senders := []sender{
		&deliverd{program: o.program, label: "deliverd, RSA and Ed25519", keys: 2},
		&deliverd{program: o.program, label: "deliverd, RSA alone", keys: 1},
		&postfix{text: text, reuse: true},
		&postfix{text: text},
		&exim{program: o.exim, text: text},
	}
	if o.openssl != "" {
		senders = append(senders, &deliverd{program: o.openssl, label: "deliverd with OpenSSL, RSA and Ed25519", keys: 2})
	}
	senders = slices.DeleteFunc(senders, func(s sender) bool { return !strings.Contains(s.name(), o.only) })
	all := make([]figures, len(senders))
	for round := range o.rounds {
		for i := range senders {
			at := (i + round) % len(senders) // nobody is always first
			if err := measure(ctx, o, senders[at], &all[at], round == o.rounds-1); err != nil {
				return fmt.Errorf("%s: %w", senders[at].name(), err)
			}
			say("%s, round %d: %.0f/s, %.2f ms of CPU", senders[at].name(), round+1, all[at].perSecond[round], all[at].cpu[round])
		}
	}
	report(o, senders, all)
	return nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// measure runs one round; the last has the measurements that are made once.
func measure(ctx context.Context, o options, s sender, f *figures, last bool) error {
	r, err := newRig(s.name())
	if err != nil {
		return err
	}
	defer r.close()
	if err := s.start(ctx, r); err != nil {
		return err
	}
	defer s.stop()
	// Connections, caches and processes are there.
	if err := burst(ctx, r, s, o.injectors, o.injectors, "warm", nil); err != nil {
		return err
	}
	cpu, began := r.group.cpu(), time.Now()
	if err := burst(ctx, r, s, o.messages, o.injectors, "kari", nil); err != nil {
		return err
	}
	took := time.Since(began)
	f.perSecond = append(f.perSecond, float64(o.messages)/took.Seconds())
	f.cpu = append(f.cpu, (r.group.cpu()-cpu).Seconds()*1000/float64(o.messages))
	if !last {
		return nil
	}
	f.idle = r.group.memory()
	if f.alone, err = probe(ctx, r, s, o.probes, "alone", false, nil); err != nil {
		return err
	}
	if f.behind, f.urgent, err = behind(ctx, o, r, s); err != nil {
		return err
	}
	if err := inject(ctx, s, o.waiting, o.injectors, "full", nil); err != nil {
		return err
	}
	if err := r.refused(ctx, o.waiting); err != nil {
		return err
	}
	f.waiting = r.group.memory()
	return nil
}

// behind probes while a burst is on its way: half with mails like those of the burst,
// and as many that the sender may put before others.
func behind(ctx context.Context, o options, r *rig, s sender) (same, urgent []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	begun, done := make(chan struct{}), make(chan error, 1)
	wg.Go(func() { done <- burst(ctx, r, s, o.behind, o.injectors, "lars", begun) })
	select {
	case <-begun:
	case err := <-done:
		return nil, nil, err
	}
	stop := make(chan struct{})
	wg.Go(func() {
		if e := <-done; e != nil {
			cancel()
		}
		close(stop)
	})
	for i := 0; i < o.probes; i++ {
		for _, u := range []bool{false, true} {
			if _, fast := s.(*deliverd); u && !fast {
				continue
			}
			d, err := probe(ctx, r, s, 1, fmt.Sprintf("behind%d.%v", i, u), u, stop)
			if err != nil {
				return nil, nil, err
			}
			if u {
				urgent = append(urgent, d...)
			} else {
				same = append(same, d...)
			}
		}
	}
	<-stop
	return same, urgent, ctx.Err()
}

// probe hands in mails one after the other and waits for each at the sink. It ends
// early once stop is closed.
func probe(ctx context.Context, r *rig, s sender, n int, who string, urgent bool, stop <-chan struct{}) (all []time.Duration, err error) {
	for i := range n {
		select {
		case <-stop:
			return all, nil
		default:
		}
		to := fmt.Sprintf("%s.%d@company%d.example", who, i, i%500)
		began := time.Now()
		if err := s.send(ctx, 0, to, urgent); err != nil {
			return nil, err
		}
		at, err := r.arrival(ctx, to)
		if err != nil {
			return nil, err
		}
		all = append(all, at.Sub(began))
	}
	return all, nil
}

// burst hands mails in and waits until the last is handed over.
func burst(ctx context.Context, r *rig, s sender, n, injectors int, who string, begun chan<- struct{}) error {
	before := r.arrived()
	if err := inject(ctx, s, n, injectors, who, begun); err != nil {
		return err
	}
	return r.poll(ctx, func() bool { return r.arrived() >= before+n })
}

// inject hands n mails in over several connections, and returns when all are safe.
// begun is closed when a tenth is. Injector 0 is left to probes where there is one.
func inject(ctx context.Context, s sender, n, injectors int, who string, begun chan<- struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for w := range injectors {
		wg.Go(func() {
			for i := range next {
				if err := s.send(ctx, w+1, fmt.Sprintf("%s.%d@company%d.example", who, i, i%500), false); err != nil {
					cancel(fmt.Errorf("mail %d: %w", i, err))
					return
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
		}
		if i == n/10 && begun != nil {
			close(begun)
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

func report(o options, senders []sender, all []figures) {
	fmt.Printf("%s\n%s; %d rounds of %d mails over %d connections\n\n", machine(), versions(o), o.rounds, o.messages, o.injectors)
	fmt.Println("| | mails a second | CPU a mail | alone, p50 / p99 | behind a burst, p50 / p99 | a PIN behind it, p50 / p99 | memory, then with", o.waiting, "waiting |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for i, f := range all {
		fmt.Println("|", strings.Join([]string{senders[i].name(), span(f.perSecond, "%.0f", ""), span(f.cpu, "%.2f", " ms"),
			quantiles(f.alone), quantiles(f.behind), quantiles(f.urgent), fmt.Sprintf("%.0f, %.0f MB", f.idle, f.waiting)}, " | "), "|")
	}
}

// span is the median with the least and the most.
func span(v []float64, format, unit string) string {
	slices.Sort(v)
	return fmt.Sprintf(format+unit+" ("+format+" to "+format+")", v[len(v)/2], v[0], v[len(v)-1])
}

func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "–"
	}
	slices.Sort(d)
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
	return ms(d[len(d)/2]) + " / " + ms(d[len(d)*99/100]) + " ms"
}
