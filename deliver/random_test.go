package deliver

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// decisions is where a random server takes its choices from: a seed's, or a fuzzer's
// bytes.
type decisions interface{ IntN(n int) int }

// choices are a fuzzer's: when they are used up, the server behaves.
type choices struct {
	mu    sync.Mutex
	bytes []byte
}

func (c *choices) IntN(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bytes) == 0 {
		return 0
	}
	b := c.bytes[0]
	c.bytes = c.bytes[1:]
	return int(b) % n
}

// madhouse is a mail server that does what it likes, and remembers what it took: the
// truth that outcomes are held against.
type madhouse struct {
	choose decisions

	mu    sync.Mutex
	whole map[string]int // messages whose dot was read, by Message-ID
	took  map[string]int // those of them that it answered, or tried to, with a whole 2xx
	wg    sync.WaitGroup
}

func (m *madhouse) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	switch m.choose.IntN(20) {
	case 1:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	case 2:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	client, server := net.Pipe()
	m.wg.Go(func() { (&patient{madhouse: m, conn: server, br: bufio.NewReaderSize(server, 64<<10)}).run() })
	return client, nil
}

// patient is one connection to it.
type patient struct {
	*madhouse
	conn       net.Conn
	br         *bufio.Reader
	pipelining bool
	excess     bool // it said a reply too many
}

// reply says what is right, most of the time, and reports whether the connection goes
// on. It says before whether that is a whole 2xx.
func (p *patient) reply(right string, says func(yes bool)) (goesOn bool) {
	said, more := right+"\r\n", true
	switch p.choose.IntN(40) {
	case 1:
		said = "450 4.2.0 not now\r\n"
	case 2:
		said = "550 5.1.1 no\r\n"
	case 3:
		said, more = "421 4.3.2 going\r\n", false
	case 4:
		said, more = right[:min(len(right), 5)], false // cut off
	case 5:
		said, more = "", false
	case 6:
		said = "250 2.0.0 yes\r\n"
	case 7:
		// Both, a reply too many and a 354 for another command, make up a dialogue in which
		// every reply is where it belongs, and whose last one comes too early: nobody can
		// tell that from a server in its senses.
		if !p.excess {
			said = "354 go on\r\n"
		}
	case 8:
		p.excess = true
		said += "250 one too many\r\n"
	case 9:
		said = "250-a\r\n550 b\r\n"
	case 10:
		said = "\x00\x01garbage\r\n"
	case 11:
		said = right[:3] + "\n"
	case 12:
		said = right[:3] + "-more\r\n" + right + "\r\n"
	case 13:
		time.Sleep(time.Duration(p.choose.IntN(20)) * time.Minute)
	case 14:
		return p.silent()
	case 15:
		time.Sleep(time.Duration(p.choose.IntN(1000)) * time.Millisecond)
	}
	if says != nil {
		says(yes.MatchString(said))
	}
	_, err := p.conn.Write([]byte(said))
	return err == nil && more
}

// silent says nothing until the client goes.
func (p *patient) silent() bool {
	for {
		if _, err := p.br.ReadByte(); err != nil {
			return false
		}
	}
}

func (p *patient) run() {
	defer p.conn.Close()
	if !p.reply("220 mad.example", nil) {
		return
	}
	p.pipelining = p.choose.IntN(4) != 3
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		right := "250 2.0.0 ok"
		switch {
		case verb == "EHLO" && p.pipelining:
			right = "250-mad.example\r\n250 PIPELINING"
		case verb == "DATA":
			if !p.reply("354 go on", nil) || !p.message() {
				return
			}
			continue
		case verb == "QUIT":
			right = "221 bye"
		}
		if !p.reply(right, nil) {
			return
		}
	}
}

// message reads up to the dot, and answers. What is no message of ours, as the lone
// dot after a recipient was refused, is not counted.
func (p *patient) message() bool {
	id := ""
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return false
		}
		if rest, ok := strings.CutPrefix(line, "Message-ID: "); ok {
			id = strings.TrimSpace(rest)
		}
		if line == ".\r\n" {
			break
		}
		// A client that was refused goes on with commands.
		if strings.HasPrefix(line, "MAIL FROM:") || strings.HasPrefix(line, "RSET") || strings.HasPrefix(line, "QUIT") {
			return false
		}
	}
	p.mu.Lock()
	p.whole[id]++
	p.mu.Unlock()
	return p.reply("250 2.0.0 Ok: queued as 4VNkGp2Zwz9s", func(yes bool) {
		if yes {
			p.mu.Lock()
			p.took[id]++
			p.mu.Unlock()
		}
	})
}

// rounds is how many attempts a message gets here.
const rounds = 4

// play sends messages, several at once, into a madhouse, and holds each outcome against
// what happened.
func play(t *testing.T, choose decisions, workers, messages int) {
	house := &madhouse{choose: choose, whole: map[string]int{}, took: map[string]int{}}
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Dial, o.Log = house.dial, nil
	plan := twoHosts(map[string][]string{mx2: nil})
	o.Plan = func(context.Context, string) (Plan, error) { return plan, nil }
	d := newDeliverer(t, o)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range messages {
				house.send(t, d)
			}
		})
	}
	wg.Wait()
	d.Close()
	house.wg.Wait()
	for k, s := range d.pool.stations {
		if len(s.line) > 0 || len(s.idle) > 0 {
			t.Errorf("at %v: %d in line, %d idle", k, len(s.line), len(s.idle))
		}
	}
}

// send makes the attempts of one message and judges them.
func (m *madhouse) send(t *testing.T, d *Deliverer) {
	message := testMessage()
	id := "<" + string(message.ID) + "@acme.example>"
	doubts := 0
	for n := 1; n <= rounds; n++ {
		began := time.Now()
		o := d.Attempt(t.Context(), &mail.Attempt{Message: message, Number: n})
		// Two hosts and a connection that waited, each at every stage's longest.
		if took := time.Since(began); took > 3*(5*5+10)*time.Minute {
			t.Errorf("took %v: %+v", took, o)
		}
		if o.PossibleDuplicate {
			doubts++
		}
		m.mu.Lock()
		whole, took := m.whole[id], m.took[id]
		m.mu.Unlock()
		switch o.State {
		case mail.StateAccepted:
			if took == 0 || o.PossibleDuplicate {
				t.Errorf("handed over, and nobody took it: %+v", o)
			}
			if whole > 1+n {
				t.Errorf("sent whole %d times in %d attempts", whole, n)
			}
			return
		case mail.StateDelayed, mail.StateRefused:
			if took > doubts {
				t.Errorf("taken %d times, in doubt %d times, and not handed over: %+v", took, doubts, o)
			}
			if o.Cause == "" {
				t.Errorf("no cause: %+v", o)
			}
		default:
			t.Errorf("got %+v", o)
		}
		if o.State == mail.StateRefused {
			return
		}
	}
}

// Hundreds of servers that do what they like, over pipes, with messages side by side
// and behind one another's dots: every attempt ends, in bounds, with one outcome; none
// claims an accept without a whole 2xx to its final dot; and what was taken without our
// knowing is always said to be in doubt.
func TestRandomServers(t *testing.T) {
	t.Parallel()
	seeds := 400
	if testing.Short() {
		seeds = 100
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			play(t, rand.New(&locked{source: rand.NewPCG(uint64(seed), 5321)}), 4, 4)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// locked is a source for several goroutines.
type locked struct {
	mu     sync.Mutex
	source rand.Source
}

func (l *locked) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source.Uint64()
}

// FuzzServer lets a fuzzer choose what the servers do.
func FuzzServer(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 3, 0, 0, 8})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 14, 0, 6, 6, 6, 6})
	f.Add([]byte("a server that says something"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 300 {
			return
		}
		synctest.Test(t, func(t *testing.T) { play(t, &choices{bytes: in}, 3, 3) })
	})
}
