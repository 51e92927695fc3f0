package main

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/cmd/deliverd/systemd"
)

// supervisor is the service manager that started the daemon, if one did.
type supervisor struct {
	notifier systemd.Notifier
	sockets  map[string][]net.Listener
	log      *slog.Logger
}

func newSupervisor(log *slog.Logger) (*supervisor, error) {
	s := &supervisor{log: log}
	var err error
	if s.notifier, err = systemd.NewNotifier(); err != nil {
		return nil, err
	}
	if s.sockets, err = systemd.Sockets(); err != nil {
		return nil, err
	}
	return s, nil
}

// tend tells that the daemon is ready, when it begins to stop, and in between, as often
// as the watchdog wants, that it is alive. done ends that.
func (s *supervisor) tend(ctx context.Context, d *daemon.Daemon) (done func()) {
	s.ready()
	stopping := context.AfterFunc(ctx, func() { s.say(s.notifier.Stopping()) })
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.keepAlive(ctx, d)
	}()
	return func() {
		stopping()
		cancel()
		<-ended
	}
}

func (s *supervisor) keepAlive(ctx context.Context, d *daemon.Daemon) {
	if s.notifier.Watchdog() == 0 {
		return
	}
	t := time.NewTicker(s.notifier.Watchdog() / 2) // sd_watchdog_enabled(3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			d.Alive()
			s.say(s.notifier.Alive())
		}
	}
}

func (s *supervisor) ready()     { s.say(s.notifier.Ready("version " + buildVersion())) }
func (s *supervisor) reloading() { s.say(s.notifier.Reloading()) }

// say logs what the manager could not be told: mail goes on without it.
func (s *supervisor) say(err error) {
	if err != nil {
		s.log.Warn("the service manager was not told", "error", err)
	}
}
