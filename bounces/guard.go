package bounces

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// The guard stands between the network and go-smtp's server, which trusts its peers
// more than port 25 deserves. What it adds (each is a test):
//
//   - caps on connections, in all and per address;
//   - an end to every session, every reply and every line;
//   - a budget of commands and of errors;
//   - CRLF only, in commands and in the message, so that nobody's idea of where a
//     message ends differs from ours (SMTP smuggling);
//   - STARTTLS itself, so that what was said before the handshake is forgotten, bytes
//     behind the command end the session and a failed handshake does too;
//   - no BDAT: a truncated last chunk would be taken for a whole message.
//
// It works line by line: go-smtp asks for the next line when it has answered the last
// one, so both always agree on where the conversation is.

// guardLimits are the limits of one connection.
type guardLimits struct {
	session  time.Duration // from the first byte to the last
	idle     time.Duration // waiting for a line, or for the next piece of a message
	commands int           // before the session ends
	errors   int           // replies of 5xx and idle commands before it ends
	slow     int           // of these before each answer is delayed
	delay    time.Duration
}

// maxCommandLine is the longest command taken: 512 octets (RFC 5321 4.5.3.1.4) and the
// extensions' parameters, which we do not use.
const maxCommandLine = 1000

// writeTimeout bounds one reply: a client that never reads is dropped.
const writeTimeout = 30 * time.Second

// guardListener caps connections.
type guardListener struct {
	net.Listener
	total, perAddress int
	guard             func(net.Conn, func()) net.Conn

	mu    sync.Mutex
	open  map[net.Conn]struct{}
	count map[string]int // of open, by address
}

// Accept returns the next connection within the caps; those over them are told to
// come back.
func (l *guardListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		key := addressKey(c.RemoteAddr())
		if l.enter(c, key) {
			return l.guard(c, sync.OnceFunc(func() { l.leave(c, key) })), nil
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, "421 4.7.0 Too many connections, come back later\r\n")
		_ = c.Close()
	}
}

func (l *guardListener) enter(c net.Conn, key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.total || l.count[key] >= l.perAddress {
		return false
	}
	l.open[c] = struct{}{}
	l.count[key]++
	return true
}

func (l *guardListener) leave(c net.Conn, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	if l.count[key]--; l.count[key] == 0 {
		delete(l.count, key)
	}
}

// closeAll ends every session.
func (l *guardListener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.Close()
	}
}

// addressKey is the address that a cap counts: an IPv6 customer has a /64.
func addressKey(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return a.String()
	}
	if tcp.IP.To4() != nil {
		return tcp.IP.String()
	}
	return tcp.IP.Mask(net.CIDRMask(64, 128)).String()
}

// guardConn is one connection behind the guard. Everything but Close is used by the
// one goroutine that serves the session.
type guardConn struct {
	net.Conn // the current one: TLS after STARTTLS
	in       *bufio.Reader
	limits   guardLimits
	tls      *tls.Config // nil: none
	domain   string      // of the return paths
	end      time.Time
	left     func() // gives the place back to the listener

	pending  []byte // of a vetted line, not yet read by the server
	data     bool   // between 354 and the final dot
	lineEnd  int    // how much of "\r\n.\r\n" the message just ended with
	lastCR   bool
	greeted  bool // EHLO or HELO since the start or since STARTTLS
	secure   bool
	swallow  bool // the next reply answers a command of ours
	commands int
	errors   int
	failed   error // why nothing more is read
}

func newGuardConn(c net.Conn, limits guardLimits, opt ReceiverOptions, left func()) *guardConn {
	return &guardConn{
		Conn: c, in: bufio.NewReaderSize(c, maxCommandLine), limits: limits, tls: opt.TLS,
		domain: opt.ReturnPath.Domain(), end: time.Now().Add(limits.session), left: left,
	}
}

// Close closes the connection and gives its place back.
func (g *guardConn) Close() error {
	g.left()
	return g.Conn.Close()
}

// The server's deadlines do not count: the guard's do.

func (g *guardConn) SetDeadline(time.Time) error      { return nil }
func (g *guardConn) SetReadDeadline(time.Time) error  { return nil }
func (g *guardConn) SetWriteDeadline(time.Time) error { return nil }

var (
	errGuard   = errors.New("the guard ended the session")
	errBareEOL = errors.New("bare CR or LF in the message")
)

// Read returns the next vetted command, or a piece of the message. An error is final:
// after one, no byte of a message can be read as a command.
func (g *guardConn) Read(b []byte) (int, error) {
	for len(g.pending) == 0 {
		if g.failed != nil {
			return 0, g.failed
		}
		var err error
		if g.data {
			g.pending, err = g.readData()
		} else {
			g.pending, err = g.readCommand()
		}
		if err != nil {
			g.failed = err
			_ = g.Conn.Close()
		}
	}
	n := copy(b, g.pending)
	g.pending = g.pending[n:]
	return n, nil
}

// fill waits for input, no longer than the session lasts.
func (g *guardConn) fill() error {
	deadline := time.Now().Add(g.limits.idle)
	if g.end.Before(deadline) {
		deadline = g.end
	}
	return g.Conn.SetReadDeadline(deadline)
}

// readCommand reads commands until one is fit for the server, and returns it. The
// other ones it answers itself.
func (g *guardConn) readCommand() ([]byte, error) {
	for {
		if err := g.fill(); err != nil {
			return nil, err
		}
		line, err := g.in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, g.hangUp("500 5.5.2 Line too long")
		case isTimeout(err):
			return nil, g.hangUp("421 4.4.2 Too slow, come back later")
		case err != nil:
			return nil, err // part of a line is no command
		}
		if g.commands++; g.commands > g.limits.commands {
			return nil, g.hangUp("421 4.7.0 Too many commands")
		}
		command, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || !isCommandText(command) {
			return nil, g.hangUp("500 5.5.2 That is no SMTP command")
		}
		pass, err := g.vet(command)
		if err != nil {
			return nil, err
		}
		if pass != nil {
			return pass, nil
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// isCommandText reports whether a line has printable ASCII only: we offer no SMTPUTF8.
func isCommandText(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(b) >= 4
}

// vet decides about one command: it returns the line for the server, nil where the
// guard has answered, or an error that ends the session.
func (g *guardConn) vet(command []byte) ([]byte, error) {
	verb := strings.ToUpper(string(command[:4]))
	switch verb {
	case "EHLO", "HELO":
		g.greeted = true
	case "BDAT":
		return nil, g.hangUp("502 5.5.1 BDAT is not supported here")
	case "STAR":
		if strings.EqualFold(string(command), "STARTTLS") && g.tls != nil && !g.secure {
			return g.startTLS()
		}
		return nil, g.refuse("502 5.5.1 STARTTLS is not possible now")
	case "MAIL", "RCPT", "DATA":
		if !g.greeted {
			return nil, g.refuse("503 5.5.1 Say EHLO first")
		}
		if strings.EqualFold(string(command), "RCPT TO:<postmaster>") {
			// RFC 5321 4.1.1.3 allows it without a domain, go-smtp does not.
			command = []byte("RCPT TO:<postmaster@" + g.domain + ">")
		}
	case "GET ", "POST", "PUT ", "HEAD", "OPTI", "CONN":
		return nil, g.hangUp("500 5.5.2 This is no web server")
	case "QUIT":
	default: // NOOP, RSET, VRFY and what there is no word for: nothing a sender needs
		if err := g.strike(); err != nil {
			return nil, err
		}
	}
	return append(append(make([]byte, 0, len(command)+2), command...), '\r', '\n'), nil
}

// startTLS secures the connection. The server is told to forget what was said before
// (RFC 3207 4.2).
func (g *guardConn) startTLS() ([]byte, error) {
	if g.in.Buffered() > 0 {
		return nil, g.hangUp("501 5.5.1 Nothing may follow STARTTLS")
	}
	if err := g.reply("220 2.0.0 Go ahead"); err != nil {
		return nil, err
	}
	if err := g.Conn.SetDeadline(time.Now().Add(min(g.limits.idle, 30*time.Second))); err != nil {
		return nil, err
	}
	secure := tls.Server(g.Conn, g.tls)
	if err := secure.Handshake(); err != nil {
		return nil, errGuard
	}
	g.Conn, g.in = secure, bufio.NewReaderSize(secure, maxCommandLine)
	g.secure, g.greeted, g.swallow = true, false, true
	return []byte("RSET\r\n"), nil
}

// strike counts an error or an idle command: first they make the answers slow, then
// they end the session.
func (g *guardConn) strike() error {
	g.errors++
	if g.errors > g.limits.errors {
		return g.hangUp("421 4.7.0 Too many errors")
	}
	if g.errors > g.limits.slow {
		time.Sleep(g.limits.delay)
	}
	return nil
}

// refuse answers a command that the server does not get to see.
func (g *guardConn) refuse(reply string) error {
	if err := g.strike(); err != nil {
		return err
	}
	return g.reply(reply)
}

// hangUp says a last word and returns the error that ends the session.
func (g *guardConn) hangUp(reply string) error {
	_ = g.reply(reply)
	return errGuard
}

func (g *guardConn) reply(line string) error {
	_ = g.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := io.WriteString(g.Conn, line+"\r\n")
	return err
}

// readData returns the next piece of the message, up to its final dot at most.
func (g *guardConn) readData() ([]byte, error) {
	if err := g.fill(); err != nil {
		return nil, err
	}
	if _, err := g.in.Peek(1); err != nil {
		if isTimeout(err) {
			return nil, g.hangUp("451 4.4.2 The message stalled, come back later")
		}
		return nil, err
	}
	piece, _ := g.in.Peek(g.in.Buffered())
	n, err := g.scan(piece)
	if err != nil {
		// Nothing after it is read, so nothing of it can be a second message.
		return nil, g.hangUp("550 5.6.0 " + err.Error())
	}
	out := append([]byte(nil), piece[:n]...)
	_, _ = g.in.Discard(n)
	return out, nil
}

// scan follows the message through piece and returns how much of it belongs to the
// message. Only CRLF.CRLF ends it (RFC 5321 4.1.1.4), and only CRLF ends a line.
func (g *guardConn) scan(piece []byte) (int, error) {
	const end = "\r\n.\r\n"
	for i, c := range piece {
		if c == '\n' != g.lastCR {
			return 0, errBareEOL
		}
		g.lastCR = c == '\r'
		switch {
		case c == end[g.lineEnd]:
			g.lineEnd++
		case c == '\r':
			g.lineEnd = 1
		default:
			g.lineEnd = 0
		}
		if g.lineEnd == len(end) {
			g.data = false
			return i + 1, nil
		}
	}
	return len(piece), nil
}

// Write passes on the server's replies, one line each: without CHUNKING, in whose
// place STARTTLS is offered, and without the answer to what the guard said.
func (g *guardConn) Write(b []byte) (int, error) {
	if g.failed != nil {
		return 0, net.ErrClosed
	}
	line := b
	switch {
	case g.swallow:
		if len(b) > 3 && b[3] == ' ' {
			g.swallow = false
		}
		return len(b), nil
	case bytes.Equal(b, []byte("250-CHUNKING\r\n")):
		if g.tls == nil || g.secure {
			return len(b), nil
		}
		line = []byte("250-STARTTLS\r\n")
	case bytes.HasPrefix(b, []byte("354 ")):
		// The line before is ended, so a lone dot ends an empty message.
		g.data, g.lineEnd, g.lastCR = true, 2, false
	case bytes.HasPrefix(b, []byte("5")):
		if err := g.strike(); err != nil {
			g.failed = err
			_ = g.Conn.Close()
			return 0, err
		}
	}
	_ = g.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := g.Conn.Write(line); err != nil {
		g.failed = err
		_ = g.Conn.Close()
		return 0, err
	}
	return len(b), nil
}
