package smtptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
)

// Network is a set of addresses, each with the scripts that the connections to it
// get, one after the other. A connection for which there is no script left is
// refused, and is an error of the test: see Err.
type Network struct {
	cert *tls.Certificate
	wg   sync.WaitGroup

	mu       sync.Mutex
	scripts  map[string][]string
	dialled  []string
	lines    []string
	errs     []error
	loopback bool
	open     map[net.Conn]func()
}

// pipe tells the script when its client has gone.
type pipe struct {
	net.Conn
	gone func()
}

func (p *pipe) Close() error {
	p.gone()
	return p.Conn.Close()
}

// NewNetwork takes scripts by address, "192.0.2.1:25", and the certificate for
// their tls steps, nil if there are none.
func NewNetwork(cert *tls.Certificate, scripts map[string][]string) *Network {
	n := &Network{cert: cert, scripts: make(map[string][]string), open: make(map[net.Conn]func())}
	for addr, s := range scripts {
		n.scripts[addr] = append([]string(nil), s...)
	}
	return n
}

// Loopback makes Dial use real TCP connections on loopback instead of pipes.
func (n *Network) Loopback() *Network {
	n.loopback = true
	return n
}

// Dial connects to an address of the network, whatever the kind of network asked for.
func (n *Network) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	script, err := n.next(addr)
	switch {
	case err != nil:
		return nil, err
	case strings.TrimSpace(script) == "refuse":
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case strings.TrimSpace(script) == "drop":
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	client, server, err := n.pair()
	if err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	end := sync.OnceFunc(func() { close(gone) })
	n.mu.Lock()
	n.open[server] = end
	n.mu.Unlock()
	if !n.loopback {
		client = &pipe{client, end}
	}
	n.wg.Go(func() {
		p := &player{raw: server, conn: server, br: bufio.NewReaderSize(server, maxLine), cert: n.cert, gone: gone, got: n.got}
		err := p.play(script)
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.open, server)
		if err != nil {
			n.errs = append(n.errs, fmt.Errorf("%s: %w", addr, err))
		}
	})
	return client, nil
}

func (n *Network) next(addr string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialled = append(n.dialled, addr)
	left := n.scripts[addr]
	if len(left) == 0 {
		n.errs = append(n.errs, fmt.Errorf("%s: a connection that no script is for", addr))
		return "", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	n.scripts[addr] = left[1:]
	return left[0], nil
}

func (n *Network) pair() (client, server net.Conn, err error) {
	if !n.loopback {
		client, server = net.Pipe()
		return client, server, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if server, err = l.Accept(); err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, server, nil
}

func (n *Network) got(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

// Dialled lists the addresses in the order in which they were dialled.
func (n *Network) Dialled() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.dialled...)
}

// Lines lists what clients said where a script waited for a line, in order.
func (n *Network) Lines() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.lines...)
}

// Wait returns when every script that began has ended, and what went wrong in them,
// together with the scripts that were never begun.
func (n *Network) Wait() error {
	n.wg.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	errs := n.errs
	for addr, left := range n.scripts {
		if len(left) > 0 {
			errs = append(errs, fmt.Errorf("%s: %d scripts that nobody came for", addr, len(left)))
		}
	}
	return errors.Join(errs...)
}

// Close cuts the connections that are still open.
func (n *Network) Close() {
	n.mu.Lock()
	for c, gone := range n.open {
		gone()
		c.Close()
	}
	n.mu.Unlock()
	n.wg.Wait()
}
