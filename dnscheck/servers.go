package dnscheck

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConf = "/etc/resolv.conf"
	// reread is how often the system's list of servers is looked at for a change;
	// Go's own resolver does the same.
	reread = 5 * time.Second
	// maxServers is what resolv.conf(5) promises to use.
	maxServers = 3
	// sulk is how long a server that stayed silent is asked after the others.
	sulk = 30 * time.Second
	// plainAfter answers without EDNS in a row, where it was tried, a server is asked
	// without it at once, for plainFor. One may be a lost datagram.
	plainAfter = 2
	plainFor   = 5 * time.Minute
)

// server is one recursive resolver and what we know of its health.
type server struct {
	addr    string // host:port
	trusted bool   // its AD bit counts

	heard   atomic.Int64 // unix nanoseconds of its last answer of any kind
	silent  atomic.Int64 // unix nanoseconds of its last unanswered datagram
	probing atomic.Bool  // a sign of life is being asked for
	refused atomic.Int32 // answers in a row that came only without EDNS
	plain   atomic.Int64 // unix nanoseconds until which EDNS is not tried
}

// edns reports whether to try EDNS with the server.
func (s *server) edns(now time.Time) bool { return now.UnixNano() >= s.plain.Load() }

// learn notes whether an answer came with EDNS, where that was tried.
func (s *server) learn(plain bool, now time.Time) {
	if !plain {
		s.refused.Store(0)
	} else if s.refused.Add(1) >= plainAfter {
		s.refused.Store(0)
		s.plain.Store(now.Add(plainFor).UnixNano())
	}
}

// alive reports whether the server has answered anything since then.
func (s *server) alive(since time.Time) bool { return s.heard.Load() >= since.UnixNano() }

// sulking reports whether the server stayed silent lately and has not been heard
// since.
func (s *server) sulking(now time.Time) bool {
	silent := s.silent.Load()
	return silent > s.heard.Load() && now.UnixNano()-silent < int64(sulk)
}

// newServer reads "host:port", "[v6]:port" or a bare host.
func newServer(text string, validating bool) (*server, error) {
	text = strings.TrimSpace(text)
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), "53"
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || strings.ContainsAny(host, " \t,/") || err != nil || n == 0 {
		return nil, fmt.Errorf("dns server %q: want an address or host:port", text)
	}
	addr, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && addr.Unmap().IsLoopback()
	return &server{addr: net.JoinHostPort(host, port), trusted: validating || loopback}, nil
}

// serverList is the configured servers, or the system's as its file has them now.
type serverList struct {
	validating bool
	path       string // the system's file; empty: the list is fixed
	now        func() time.Time

	mu      sync.Mutex
	list    []*server
	checked time.Time // when the file was last looked at
	version time.Time // its modification time then
}

func newServerList(o *ResolverOptions) (*serverList, error) {
	l := &serverList{validating: o.Validating, now: o.Now}
	if len(o.Servers) == 0 {
		l.path = resolvConf
		return l, nil
	}
	for _, text := range o.Servers {
		s, err := newServer(text, o.Validating)
		if err != nil {
			return nil, err
		}
		l.list = append(l.list, s)
	}
	return l, nil
}

// current returns the servers in the order to ask them: as configured, those
// that stayed silent lately last.
func (l *serverList) current() []*server {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.path != "" && (l.list == nil || now.Sub(l.checked) >= reread) {
		l.checked = now
		l.read()
	}
	ordered := make([]*server, 0, len(l.list))
	for _, s := range l.list {
		if !s.sulking(now) {
			ordered = append(ordered, s)
		}
	}
	for _, s := range l.list {
		if s.sulking(now) {
			ordered = append(ordered, s)
		}
	}
	return ordered
}

// read takes the file's servers when it has changed. A file that can't be read or
// names none means a resolver on this host, as resolv.conf(5) says; one that was
// read before stays in force.
func (l *serverList) read() {
	info, err := os.Stat(l.path)
	if err == nil && l.list != nil && info.ModTime().Equal(l.version) {
		return
	}
	var addrs []string
	if config, err := dns.ClientConfigFromFile(l.path); err == nil {
		for _, s := range config.Servers {
			addrs = append(addrs, net.JoinHostPort(s, config.Port))
		}
	}
	if len(addrs) == 0 {
		if l.list != nil {
			return
		}
		addrs = []string{"127.0.0.1:53"}
	}
	if info != nil {
		l.version = info.ModTime()
	}
	l.list = nil
	for _, addr := range addrs[:min(len(addrs), maxServers)] {
		if s, err := newServer(addr, l.validating); err == nil {
			l.list = append(l.list, s)
		}
	}
}

// trusts reports whether any server's word on DNSSEC counts.
func (r *Resolver) trusts() bool {
	return slices.ContainsFunc(r.servers.current(), func(s *server) bool { return s.trusted })
}

// Validates reports whether the servers validate DNSSEC and their word counts,
// which DANE depends on. It asks them about the root, which is signed.
func (r *Resolver) Validates(ctx context.Context) (bool, error) {
	found, err := r.NS(ctx, ".")
	return found.AD, err
}

// Each returns a Resolver of its own, with nothing remembered, for each configured
// server, by its address: to see whether a new record has reached them all.
func (r *Resolver) Each() (map[string]*Resolver, error) {
	each := make(map[string]*Resolver)
	for _, s := range r.servers.current() {
		o := r.options
		o.Servers = []string{s.addr}
		one, err := NewResolver(o)
		if err != nil {
			return nil, err
		}
		each[s.addr] = one
	}
	return each, nil
}
