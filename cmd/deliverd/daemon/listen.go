package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
)

// The doors for which sockets can be handed over, by the names that the service manager
// gives them. NATS is not among them: its server makes its own, and its clients come
// back by themselves.
const (
	socketHTTP    = "http"
	socketMetrics = "metrics"
	socketBounces = "bounces"
)

// takeSockets looks that each socket that was handed over has a door, and sees to it
// that none is left open.
func (d *Daemon) takeSockets(context.Context) error {
	known := []string{socketHTTP, socketMetrics, socketBounces}
	for _, name := range slices.Sorted(maps.Keys(d.sockets)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("a socket named %q was handed over, and there is no such door; FileDescriptorName= is one of %s", name, strings.Join(known, ", "))
		}
	}
	d.cleanups.add("sockets", func(context.Context) (err error) {
		for _, l := range slices.Concat(slices.Collect(maps.Values(d.sockets))...) {
			if e := l.Close(); !errors.Is(e, net.ErrClosed) { // their doors have closed most
				err = errors.Join(err, e)
			}
		}
		return err
	})
	return nil
}

// listen returns a door's sockets: those that were handed over, or else one at the
// address of the configuration, or none where that is empty.
func (d *Daemon) listen(ctx context.Context, name, addr string) ([]net.Listener, error) {
	if handed := d.sockets[name]; len(handed) > 0 {
		for _, l := range handed {
			d.log.Info("listening on a socket of the service manager", "door", name, "address", l.Addr().String())
			if addr != "" && !samePort(addr, l.Addr()) {
				d.log.Warn("the socket unit and the configuration name different ports; the socket unit's counts, and commands on this machine look at the other",
					"door", name, "socket", l.Addr().String(), "configuration", addr)
			}
		}
		return handed, nil
	}
	if addr == "" {
		return nil, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; stop what uses it, or change listen.%s", err, name)
	}
	return []net.Listener{l}, nil
}

func samePort(addr string, at net.Addr) bool {
	_, want, err := net.SplitHostPort(addr)
	_, got, err2 := net.SplitHostPort(at.String())
	return err == nil && err2 == nil && want == got
}
