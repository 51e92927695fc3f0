package smtptest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"iter"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"
)

// SinkOptions configures a Sink. The zero value is a server on a free loopback port
// with STARTTLS that accepts everything.
type SinkOptions struct {
	Addr string // "127.0.0.1:0"; an address that isn't loopback is refused
	Name string // what it calls itself: "sink.test"
	// NoTLS does not offer STARTTLS.
	NoTLS bool
	// Certificate for STARTTLS; nil: a self-signed one for Name is made.
	Certificate *tls.Certificate
	Rules       []Rule
	// Keep is how many mails are kept, 1000, and KeepBytes how much of them, 64 MiB;
	// the oldest goes first. Keep < 0: none, which is cheapest.
	Keep      int
	KeepBytes int
	// Ledger counts accepts per Message-ID, for the first million of them.
	Ledger bool
	// MaxSize of a message, told by SIZE: 10 MiB.
	MaxSize int
	// MaxConns at once, 1000; more get a 421.
	MaxConns int
	// OnMail is called for each mail that was accepted, before its 250 is said, by many
	// connections at once. With Keep < 0, Raw holds only until it returns.
	OnMail func(Mail)
}

// Mail is one mail that was accepted.
type Mail struct {
	Seq       int // 1 for the first
	At        time.Time
	From, To  string // the envelope's addresses; From "" is the null sender
	Hello     string // the client's name
	Client    string // its address
	TLS       string // "TLS 1.3", "" in clear
	MessageID string // with its angle brackets
	Raw       []byte // as it was sent, dots undone
}

// Stats count what a Sink did since it began.
type Stats struct {
	Connections, TLS, Accepted, Refused, Lost int
}

const maxLedger = 1 << 20

// Sink is an SMTP server that stands for every recipient's.
type Sink struct {
	options  SinkOptions
	listener net.Listener
	tls      *tls.Config
	cert     tls.Certificate
	wg       sync.WaitGroup

	mu     sync.Mutex
	rules  rules
	seen   map[string]int // attempts per greylisted recipient
	mails  []Mail         // the oldest first
	bytes  int
	stats  Stats
	seq    int
	ledger map[string]int
	conns  map[net.Conn]bool
	closed bool
	done   chan struct{} // closed by Close
}

// Listen starts a Sink.
func Listen(o SinkOptions) (*Sink, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Name == "" {
		o.Name = "sink.test"
	}
	if o.Keep == 0 {
		o.Keep = 1000
	}
	if o.KeepBytes <= 0 {
		o.KeepBytes = 64 << 20
	}
	if o.MaxSize <= 0 {
		o.MaxSize = 10 << 20
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 1000
	}
	s := &Sink{options: o, seen: make(map[string]int), ledger: make(map[string]int), conns: make(map[net.Conn]bool), done: make(chan struct{})}
	for _, r := range o.Rules {
		if err := s.rules.add(r); err != nil {
			return nil, err
		}
	}
	if err := s.prepareTLS(); err != nil {
		return nil, err
	}
	addr, err := net.ResolveTCPAddr("tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	if !addr.IP.IsLoopback() {
		return nil, errors.New("smtptest: a sink listens on loopback only, not on " + o.Addr)
	}
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return nil, err
	}
	s.listener = l
	s.wg.Go(s.accept)
	return s, nil
}

func (s *Sink) prepareTLS() error {
	if s.options.NoTLS {
		return nil
	}
	if s.options.Certificate != nil {
		s.cert = *s.options.Certificate
	} else {
		cert, err := SelfSigned(time.Now().Add(365*24*time.Hour), s.options.Name)
		if err != nil {
			return err
		}
		s.cert = cert
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{s.cert}, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true}
	return nil
}

// Addr is where it listens.
func (s *Sink) Addr() netip.AddrPort {
	return s.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Roots trusts its certificate, which must have its Leaf if it was given.
func (s *Sink) Roots() *x509.CertPool { return Roots(s.cert) }

// Tell changes how an address, or a pattern of addresses, is treated from now on.
func (s *Sink) Tell(pattern string, b Behaviour) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.seen)
	return s.rules.add(Rule{pattern, b})
}

// Mails goes over the mails that are kept, the newest first, as they were when it was
// called. Their Raw must not be changed.
func (s *Sink) Mails() iter.Seq[Mail] {
	s.mu.Lock()
	mails := append([]Mail(nil), s.mails...)
	s.mu.Unlock()
	return func(yield func(Mail) bool) {
		for i := len(mails) - 1; i >= 0; i-- {
			if !yield(mails[i]) {
				return
			}
		}
	}
}

// Stats returns the counts so far.
func (s *Sink) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Ledger returns how often each Message-ID was accepted. More than once is a
// duplicate.
func (s *Sink) Ledger() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.ledger))
	maps.Copy(out, s.ledger)
	return out
}

// CloseConns cuts every connection and goes on listening, as a server that is
// restarted does.
func (s *Sink) CloseConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Close stops listening, cuts every connection and waits until all are gone.
func (s *Sink) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	close(s.done)
	s.mu.Unlock()
	err := s.listener.Close()
	s.CloseConns()
	s.wg.Wait()
	return err
}

func (s *Sink) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // out of file descriptors, most likely
			continue
		}
		s.mu.Lock()
		full := len(s.conns) >= s.options.MaxConns
		if s.closed || full {
			s.mu.Unlock()
			if full {
				c.SetWriteDeadline(time.Now().Add(time.Second))
				c.Write([]byte("421 4.3.2 " + s.options.Name + " Too many connections\r\n"))
			}
			c.Close()
			continue
		}
		s.conns[c] = true
		s.stats.Connections++
		s.wg.Go(func() { s.serve(c) })
		s.mu.Unlock()
	}
}

// behaviour decides what an attempt to an address meets.
func (s *Sink) behaviour(to string) Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.rules.find(to)
	if b.Greylist <= 0 {
		return b
	}
	if len(s.seen) >= maxExact {
		clear(s.seen)
	}
	if s.seen[to]++; s.seen[to] <= b.Greylist {
		b.Reply, b.Stage = "451 4.7.1 Greylisted, please try again later", StageRcpt
	} else {
		b.Reply = ""
	}
	return b
}

// keep takes a mail in: ledger, count, ring.
func (s *Sink) keep(m Mail) {
	s.mu.Lock()
	s.seq++
	m.Seq = s.seq
	s.stats.Accepted++
	if _, known := s.ledger[m.MessageID]; s.options.Ledger && (known || len(s.ledger) < maxLedger) {
		s.ledger[m.MessageID]++
	}
	if s.options.Keep > 0 {
		s.mails = append(s.mails, m)
		s.bytes += len(m.Raw)
		for len(s.mails) > s.options.Keep || s.bytes > s.options.KeepBytes && len(s.mails) > 1 {
			s.bytes -= len(s.mails[0].Raw)
			s.mails[0] = Mail{}
			s.mails = s.mails[1:]
		}
	}
	s.mu.Unlock()
	if s.options.OnMail != nil {
		s.options.OnMail(m)
	}
}

func (s *Sink) count(change func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.stats)
}

// messageID finds the Message-ID in a header.
func messageID(raw []byte) string {
	const name = "message-id:"
	for len(raw) > 0 {
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		if len(bytes.TrimRight(line, "\r")) == 0 {
			return ""
		}
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			value := bytes.TrimSpace(line[len(name):])
			if len(value) == 0 { // folded
				next, _, _ := bytes.Cut(rest, []byte("\n"))
				value = bytes.TrimSpace(next)
			}
			return string(value)
		}
		raw = rest
	}
	return ""
}
