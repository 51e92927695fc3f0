// Package natstest runs a NATS server with JetStream on disk inside a test, set up
// as deliverd's embedded one is: an fsync with every write, no listener, connections
// in process.
package natstest

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Server is a running server.
type Server struct {
	*server.Server
	Dir string
}

// Start runs a server with its store in dir. It ends with the test, or with Stop,
// after which Start on the same dir finds what was stored.
func Start(tb testing.TB, dir string) *Server {
	tb.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Stop)
	return s
}

// Open runs a server outside a test. change, if not nil, may alter its options.
func Open(dir string, change func(*server.Options)) (*Server, error) {
	o := &server.Options{
		ServerName: "deliverd",
		JetStream:  true,
		StoreDir:   dir,
		SyncAlways: true,
		DontListen: true,
		NoSigs:     true,
		NoLog:      true,
		MaxPayload: 8 << 20,
	}
	if change != nil {
		change(o)
	}
	ns, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("nats server: %w", err)
	}
	ns.Start()
	if !ns.ReadyForConnections(30 * time.Second) {
		ns.Shutdown()
		return nil, fmt.Errorf("nats server in %s is not ready after 30 s", dir)
	}
	return &Server{Server: ns, Dir: dir}, nil
}

// Connect opens a connection in process that ends with the test.
func (s *Server) Connect(tb testing.TB) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(s.Server), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// Stop ends the server and waits until its files are closed. Stopping twice does
// nothing.
func (s *Server) Stop() {
	s.Shutdown()
	s.WaitForShutdown()
}
