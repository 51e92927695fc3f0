package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	neturl "net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/crypto/bcrypt"
)

// embedded is the NATS server in our own process. It can be restarted under its
// connections, which is the cure for a stream that met a full disk.
type embedded struct {
	opts     server.Options
	password string // of our own user; made anew at each start and never written down
	log      *slog.Logger

	mu     sync.Mutex
	server *server.Server // nil while stopped
}

// startEmbedded starts a server on dir. listen is empty for in-process
// connections only; clientPassword guards the listener.
func startEmbedded(dir, listen string, sync time.Duration, clientPassword string, log *slog.Logger) (*embedded, error) {
	e := &embedded{password: rand.Text(), log: log}
	e.opts = server.Options{
		ServerName:         "deliverd",
		JetStream:          true,
		StoreDir:           filepath.Join(dir, "nats"),
		JetStreamMaxMemory: 64 << 20, // every stream of ours is on disk
		JetStreamMaxStore:  1 << 50,  // the disk is the limit, and the queue watches that
		SyncAlways:         sync == 0,
		SyncInterval:       sync,
		DontListen:         listen == "",
		NoSigs:             true,
		MaxPayload:         1 << 20,
		// A micro service answers a request within seconds; what is written to a
		// client that does not read is bounded by MaxPending.
		WriteDeadline: 10 * time.Second,
	}
	if err := e.addUsers(clientPassword); err != nil {
		return nil, err
	}
	if listen != "" {
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			n = server.RANDOM_PORT
		}
		e.opts.Host, e.opts.Port = host, n
	}
	return e, e.start()
}

// addUsers lets us do everything, and clients of the listener what they need. The
// server wants hashes of the passwords; they never leave this process, so cheap ones
// do, and a connection costs no more than it should.
func (e *embedded) addUsers(clientPassword string) error {
	ours, err := bcrypt.GenerateFromPassword([]byte(e.password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	client := &server.User{Username: "client", Permissions: clientPermissions()}
	if clientPassword == "" {
		e.opts.NoAuthUser = client.Username // whoever comes without a name
	} else {
		theirs, err := bcrypt.GenerateFromPassword([]byte(clientPassword), bcrypt.MinCost)
		if err != nil {
			return fmt.Errorf("nats.password: %w", err) // longer than 72 bytes
		}
		client.Password = string(theirs)
	}
	e.opts.Users = []*server.User{{Username: "deliverd", Password: string(ours)}, client}
	return nil
}

// clientPermissions is what a connection to the listener may do: ask us, answer
// us, and follow the events. It sees no stream of ours but the events.
func clientPermissions() *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"deliverd.v1.send.*", "deliverd.v1.cancel.*", "deliverd.v1.outcome.*",
			"$SRV.>",
			"$JS.API.INFO", "$JS.API.STREAM.NAMES",
			"$JS.API.STREAM.INFO.DELIVERD_EVENTS",
			"$JS.API.CONSUMER.CREATE.DELIVERD_EVENTS", "$JS.API.CONSUMER.CREATE.DELIVERD_EVENTS.>",
			"$JS.API.CONSUMER.DURABLE.CREATE.DELIVERD_EVENTS.>",
			"$JS.API.CONSUMER.INFO.DELIVERD_EVENTS.>", "$JS.API.CONSUMER.MSG.NEXT.DELIVERD_EVENTS.>",
			"$JS.API.CONSUMER.DELETE.DELIVERD_EVENTS.>",
			"$JS.ACK.DELIVERD_EVENTS.>", "$JS.FC.>",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			"_INBOX.>", "deliverd.v1.event.>", "deliverd.v1.renew.>",
		}},
		// Who answers deliverd.v1.renew.* publishes to our inbox.
		Response: &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute},
	}
}

func (e *embedded) start() error {
	s, err := server.NewServer(&e.opts)
	if err != nil {
		return fmt.Errorf("embedded NATS server: %w", err)
	}
	s.SetLoggerV2(natsLog{e.log}, false, false, false)
	s.Start()
	// JetStream recovers every stream before it is ready: 1,000,000 waiting messages
	// took 9 s where this was measured.
	if !s.ReadyForConnections(2 * time.Minute) {
		s.Shutdown()
		return fmt.Errorf("embedded NATS server: not ready after two minutes; see its lines above, and free the port or the store directory %s", e.opts.StoreDir)
	}
	if !s.JetStreamEnabled() {
		s.Shutdown()
		return fmt.Errorf("embedded NATS server: JetStream did not start on %s; another process may be using it", e.opts.StoreDir)
	}
	e.mu.Lock()
	e.server = s
	e.mu.Unlock()
	return nil
}

func (e *embedded) stop() {
	e.mu.Lock()
	s := e.server
	e.server = nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// restart stops and starts the server; connections to it come back by themselves.
func (e *embedded) restart() error {
	e.stop()
	return e.start()
}

// addr returns the listener's address, nil without one.
func (e *embedded) addr() net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil || e.opts.DontListen {
		return nil
	}
	return e.server.Addr()
}

var errNotRunning = errors.New("the embedded NATS server is not running")

// InProcessConn implements nats.InProcessConnProvider over whichever server is
// running now.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return nil, errNotRunning
	}
	return e.server.InProcessConn()
}

// connect connects to the embedded server, or to url where e is nil.
func connect(e *embedded, url string, credentials Secret, log *slog.Logger) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name("deliverd"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectBufSize(-1), // a write while disconnected fails now, not later
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("lost the connection to NATS", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected to NATS again") }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Warn("NATS reports an error", "error", err, "subject", subject)
		}),
	}
	if e != nil {
		// Clients of the listener may listen to all of _INBOX: what the store answers us
		// goes elsewhere, and where to is not to be guessed.
		return nats.Connect("", append(opts, nats.InProcessServer(e), nats.UserInfo("deliverd", e.password),
			nats.CustomInboxPrefix("_INBOX_"+rand.Text()))...)
	}
	if path := credentials.Path(); path != "" {
		opts = append(opts, nats.UserCredentials(path))
	} else if credentials != "" {
		text, err := credentials.Read()
		if err != nil {
			return nil, fmt.Errorf("nats.credentials: %w", err)
		}
		opts = append(opts, nats.UserCredentialBytes(text))
	}
	nc, err := nats.Connect(url, opts...)
	if _, unreadable := errors.AsType[*neturl.Error](err); unreadable {
		err = errors.New("it is no URL") // err quotes it, and a password may stand in it
	}
	if err != nil {
		return nil, fmt.Errorf("can't connect to NATS at %s: %w; check nats.url and that the server runs", redactURL(url), err)
	}
	return nc, nil
}

// natsLog passes the server's lines on, a level lower: what it calls a notice is
// detail to us, and what it warns of, such as an index rebuilt after a crash, is its
// ordinary work. Whether the store takes writes is ours to notice (watchStore).
type natsLog struct{ log *slog.Logger }

func (l natsLog) Noticef(f string, a ...any) {
	l.log.Debug(fmt.Sprintf(f, a...), "from", "nats-server")
}
func (l natsLog) Warnf(f string, a ...any)  { l.log.Info(fmt.Sprintf(f, a...), "from", "nats-server") }
func (l natsLog) Fatalf(f string, a ...any) { l.log.Error(fmt.Sprintf(f, a...), "from", "nats-server") }
func (l natsLog) Errorf(f string, a ...any) { l.log.Error(fmt.Sprintf(f, a...), "from", "nats-server") }
func (l natsLog) Debugf(string, ...any)     {}
func (l natsLog) Tracef(string, ...any)     {}
