// Package dnstest is a DNS resolver for tests and rehearsals: it answers from
// zones given as text, on a loopback port or over pipes in memory, and goes wrong
// exactly where it is told to.
//
//	s, err := dnstest.Start(`
//		example.com.  MX  10 mx.example.com.
//		mx            A   192.0.2.1
//	`, dnstest.Fault{Name: "mx.example.com", Type: "AAAA", Do: dnstest.Servfail})
//	defer s.Close()
//
// It plays a recursive resolver: one text may hold names of any number of zones,
// aliases are followed from one to the other, wildcards and empty names in
// between behave as RFC 4592 says, and what isn't there is denied with an SOA.
package dnstest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Server answers DNS queries. Its methods are safe for concurrent use.
type Server struct {
	Addr string // host:port of UDP and TCP alike; empty for one without sockets

	zone    atomic.Pointer[zone]
	udp     net.PacketConn
	tcp     net.Listener
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	faults []Fault
	used   []int // how often each fault was applied
	asked  map[string]int
	total  int
}

// New makes a server without sockets, which is reached by Dial alone. It may live
// inside a testing/synctest bubble.
func New(text string, faults ...Fault) (*Server, error) {
	s := &Server{asked: map[string]int{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if err := s.Load(text, faults...); err != nil {
		return nil, err
	}
	return s, nil
}

// Start makes a server that listens on one port of 127.0.0.1, UDP and TCP.
func Start(text string, faults ...Fault) (*Server, error) {
	return Listen("127.0.0.1:0", text, faults...)
}

// Listen is Start with an address of the caller's choice.
func Listen(addr, text string, faults ...Fault) (*Server, error) {
	s, err := New(text, faults...)
	if err != nil {
		return nil, err
	}
	if err := s.listen(addr); err != nil {
		return nil, err
	}
	s.running.Go(s.serveUDP)
	s.running.Go(s.serveTCP)
	return s, nil
}

// listen finds a port that is free for both protocols.
func (s *Server) listen(addr string) (err error) {
	for range 20 {
		if s.udp, err = net.ListenPacket("udp", addr); err != nil {
			return err
		}
		s.Addr = s.udp.LocalAddr().String()
		if s.tcp, err = net.Listen("tcp", s.Addr); err == nil {
			return nil
		}
		s.udp.Close()
	}
	return err
}

// Close ends the server and waits for its goroutines.
func (s *Server) Close() error {
	s.stop()
	if s.udp != nil {
		s.udp.Close()
		s.tcp.Close()
	}
	s.running.Wait()
	return nil
}

// Load replaces all zones and faults.
func (s *Server) Load(text string, faults ...Fault) error {
	z, err := parseZone(text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone.Store(z)
	s.faults = append([]Fault(nil), faults...)
	s.used = make([]int, len(faults))
	return nil
}

// Queries is how many queries have arrived, retransmissions included, and not
// counting those for the root, which are a resolver's test of whether the server
// lives.
func (s *Server) Queries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// Asked is how many queries have arrived for one name and type.
func (s *Server) Asked(name, kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[key(name, kind)]
}

func key(name, kind string) string {
	return strings.ToLower(strings.TrimSuffix(name, ".")) + " " + strings.ToUpper(kind)
}

// Dial connects to the server through memory, whatever the address: each write
// of a "udp" connection is a datagram.
func (s *Server) Dial(_ context.Context, network, _ string) (net.Conn, error) {
	if s.ctx.Err() != nil {
		return nil, errors.New("server closed")
	}
	client, server := net.Pipe()
	s.running.Go(func() {
		defer server.Close()
		defer context.AfterFunc(s.ctx, func() { server.Close() })()
		if network == "udp" {
			s.serveDatagrams(server)
		} else {
			s.serveStream(server)
		}
	})
	return client, nil
}

func (s *Server) serveUDP() {
	buf := make([]byte, 64*1024)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		wire := append([]byte(nil), buf[:n]...)
		s.running.Go(func() {
			for _, packet := range s.answer(wire, false).packets {
				s.udp.WriteTo(packet, from)
			}
		})
	}
}

func (s *Server) serveDatagrams(conn net.Conn) {
	buf := make([]byte, 64*1024)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		for _, packet := range s.answer(append([]byte(nil), buf[:n]...), false).packets {
			if _, err := conn.Write(packet); err != nil {
				return
			}
		}
	}
}

func (s *Server) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.running.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(s.ctx, func() { conn.Close() })()
			s.serveStream(conn)
		})
	}
}

func (s *Server) serveStream(conn net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		wire := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, wire); err != nil {
			return
		}
		out := s.answer(wire, true)
		if out.hangUp {
			return
		}
		for _, packet := range out.packets {
			framed := binary.BigEndian.AppendUint16(nil, uint16(len(packet)))
			if _, err := conn.Write(append(framed, packet...)); err != nil {
				return
			}
		}
	}
}

// answer counts the query and returns what answers it, when it is time.
func (s *Server) answer(wire []byte, tcp bool) response {
	query := new(dns.Msg)
	if query.Unpack(wire) != nil || query.Response || len(query.Question) != 1 {
		return response{hangUp: true}
	}
	q := query.Question[0]
	s.mu.Lock()
	if q.Name != "." {
		s.total++
	}
	s.asked[key(q.Name, dns.TypeToString[q.Qtype])]++
	s.mu.Unlock()
	out := s.respond(query, tcp)
	if out.delay > 0 {
		timer := time.NewTimer(out.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return response{hangUp: true}
		}
	}
	return out
}
