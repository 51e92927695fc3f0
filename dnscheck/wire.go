package dnscheck

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"
)

const (
	// ednsSize is the largest datagram that crosses nearly every path unfragmented
	// (DNS flag day 2020).
	ednsSize = 1232
	// maxStrays is how many datagrams that aren't the answer one socket reads
	// before it gives up: a flood must not keep a processor busy until the deadline.
	maxStrays = 100
)

// question is what is asked; two equal ones share an answer.
type question struct {
	name string // presentation form, lower case, final dot
	kind uint16 // dns.TypeMX and so on
	cd   bool   // checking disabled: ask for data that doesn't validate, too
}

// message writes the question as a query. AD in it asks for the AD bit in the
// answer without the weight of DNSSEC records (RFC 6840 5.7).
//
// The name's case isn't randomised (0x20): we talk to a configured resolver over
// a connected socket with a random port and id, and resolvers that normalise case
// exist. The answer has to repeat the name byte by byte all the same.
func (q question) message(edns bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.kind)
	m.AuthenticatedData = true
	m.CheckingDisabled = q.cd
	if edns {
		m.SetEdns0(ednsSize, false)
	}
	return m
}

// answers reports whether m is the answer to query and not a stray or forged one
// (RFC 5452 9.1). Some servers leave the question out of a FORMERR or a refusal.
func answers(m, query *dns.Msg) bool {
	if m.Id != query.Id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
	}
	return len(m.Question) == 1 && m.Question[0] == query.Question[0]
}

// reply is a server's answer and how it came.
type reply struct {
	msg    *dns.Msg
	server *server
	tcp    bool // it came over TCP, because it was too long for a datagram
	plain  bool // the server answers only without EDNS
}

// errTruncated marks an answer that was too long for UDP and not to be had over
// TCP.
var errTruncated = errors.New("answer too long for UDP, and TCP failed")

// ask puts the question to one server: by datagram, once more without EDNS if
// the server doesn't know it (RFC 6891 7), by TCP if the answer is truncated.
func (r *Resolver) ask(ctx context.Context, s *server, q question, edns bool) (*reply, error) {
	m, err := r.datagram(ctx, s, q, edns)
	if err != nil {
		return nil, err
	}
	plain := !edns
	if edns && ednsRefused(m.Rcode) {
		if m, err = r.datagram(ctx, s, q, false); err != nil {
			return nil, err
		}
		plain = true
	}
	if !m.Truncated {
		return &reply{msg: m, server: s, plain: plain}, nil
	}
	if m, err = r.stream(ctx, s, q, !plain); err != nil {
		return nil, fmt.Errorf("%w: %w", errTruncated, err)
	}
	return &reply{msg: m, server: s, plain: plain, tcp: true}, nil
}

func ednsRefused(rcode int) bool {
	return rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented || rcode == dns.RcodeBadVers
}

// datagram sends one datagram and waits until ctx ends for its answer, reading
// past whatever else arrives.
func (r *Resolver) datagram(ctx context.Context, s *server, q question, edns bool) (*dns.Msg, error) {
	conn, err := r.options.Dial(ctx, "udp", s.addr)
	if err != nil {
		return nil, err
	}
	defer closeAtEnd(ctx, conn)()
	query := q.message(edns)
	wire, err := query.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, 4*1024)
	for range maxStrays {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if n == len(buf) || m.Unpack(buf[:n]) != nil {
			if m = cutOff(buf[:n], query); m == nil {
				continue
			}
		}
		if answers(m, query) {
			s.heard.Store(r.options.Now().UnixNano())
			return m, nil
		}
	}
	return nil, errors.New("only datagrams that answer something else")
}

// cutOff reads the header and question of a datagram whose rest can't be read and
// says that it is truncated, so that TCP is asked; nil if it is no such thing.
func cutOff(wire []byte, query *dns.Msg) *dns.Msg {
	const header = 12
	if len(wire) < header || binary.BigEndian.Uint16(wire) != query.Id {
		return nil
	}
	head := make([]byte, len(wire))
	copy(head, wire)
	clear(head[6:header]) // no records, only the question
	m := new(dns.Msg)
	if m.Unpack(head) != nil || m.Rcode != dns.RcodeSuccess {
		return nil
	}
	m.Truncated = true
	return m
}

// stream asks over TCP (RFC 7766). The protocol bounds the answer to 64 KiB.
func (r *Resolver) stream(ctx context.Context, s *server, q question, edns bool) (*dns.Msg, error) {
	conn, err := r.options.Dial(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	defer closeAtEnd(ctx, conn)()
	query := q.message(edns)
	wire, err := query.Pack()
	if err != nil {
		return nil, err
	}
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(wire)))
	if _, err := conn.Write(append(framed, wire...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	if err := m.Unpack(buf); err != nil {
		return nil, err
	}
	if !answers(m, query) || m.Truncated {
		return nil, errors.New("not the answer to what was asked")
	}
	s.heard.Store(r.options.Now().UnixNano())
	return m, nil
}

// closeAtEnd makes ctx's end interrupt conn, and returns what closes it.
func closeAtEnd(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		stop()
		conn.Close()
	}
}
