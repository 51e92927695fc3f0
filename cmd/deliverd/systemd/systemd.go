// Package systemd speaks with the service manager, in the two small protocols that
// other managers know as well:
//
//	sd_listen_fds(3)  [Sockets]   sockets that listen already are handed over as file
//	                              descriptors. They outlive the process: who connects
//	                              while it restarts waits in their queue, and nobody is
//	                              refused.
//	sd_notify(3)      [Notifier]  ready, reloading, stopping, and still alive
//
// Both are environment variables; where they are not set, there is no manager, and
// everything here does nothing.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// firstSocket is the descriptor of the first socket: after standard error, by the
// protocol.
const firstSocket = 3

// mostSockets bounds how many sockets are believed to have been handed over.
const mostSockets = 64

// Sockets returns the TCP sockets that were handed over to this process, by the name
// that the manager gives them (FileDescriptorName=), in their order. It takes the
// variables out of the environment, so that no child believes that they are its own:
// call it once.
func Sockets() (map[string][]net.Listener, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if pid == "" || count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // none, or meant for another process
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > mostSockets {
		return nil, fmt.Errorf("LISTEN_FDS is %q, and not a number up to %d", count, mostSockets)
	}
	named := strings.Split(names, ":")
	if names == "" || len(named) != n {
		return nil, fmt.Errorf("%d sockets were handed over with the names %q; give each one with FileDescriptorName=", n, names)
	}
	sockets := make(map[string][]net.Listener)
	for i, name := range named {
		l, err := socket(uintptr(firstSocket+i), name)
		if err != nil {
			return nil, errors.Join(err, closeAll(sockets))
		}
		sockets[name] = append(sockets[name], l)
	}
	return sockets, nil
}

func socket(fd uintptr, name string) (net.Listener, error) {
	syscall.CloseOnExec(int(fd))
	f := os.NewFile(fd, name)
	defer f.Close() // the listener has a descriptor of its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %q that was handed over: %w", name, err)
	}
	if _, ok := l.(*net.TCPListener); !ok {
		return nil, errors.Join(fmt.Errorf("socket %q that was handed over is none of TCP", name), l.Close())
	}
	return l, nil
}

func closeAll(sockets map[string][]net.Listener) (err error) {
	for _, of := range sockets {
		for _, l := range of {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// Notifier tells the manager how the service is. The zero value tells nobody.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// NewNotifier returns the notifier that the environment names, and takes it out of
// there: children have nothing to tell.
func NewNotifier() (Notifier, error) {
	n := Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if err := os.Unsetenv(name); err != nil {
			return Notifier{}, err
		}
	}
	if n.socket == "" || usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n, nil
	}
	us, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || us <= 0 {
		return Notifier{}, fmt.Errorf("WATCHDOG_USEC is %q, and not a number of microseconds", usec)
	}
	n.watchdog = time.Duration(us) * time.Microsecond
	return n, nil
}

// Watchdog is how long the manager waits for [Notifier.Alive] before it restarts the
// service, 0 for ever.
func (n Notifier) Watchdog() time.Duration { return n.watchdog }

// Ready says that the service has started, or has read its configuration again.
func (n Notifier) Ready(status string) error { return n.send("READY=1\nSTATUS=" + oneLine(status)) }

// Reloading says that the configuration is being read again; [Notifier.Ready] has to
// follow.
func (n Notifier) Reloading() error {
	// Type=notify-reload wants the time of its own clock, to tell this from an older one.
	return n.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(monotonicMicros(), 10))
}

// Stopping says that the service is about to end.
func (n Notifier) Stopping() error { return n.send("STOPPING=1") }

// Alive is the sign of life that the watchdog waits for.
func (n Notifier) Alive() error { return n.send("WATCHDOG=1") }

func (n Notifier) send(state string) error {
	if n.socket == "" {
		return nil
	}
	// net turns a leading @ into the zero byte of the abstract name space, as the
	// protocol has it.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// oneLine keeps a text from being more than one assignment.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}
