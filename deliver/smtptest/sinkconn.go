package smtptest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// sinkConn is one connection to a Sink.
type sinkConn struct {
	*Sink
	raw  net.Conn
	br   *bufio.Reader
	bw   *bufio.Writer
	tls  string
	name string // what the client calls itself

	begun     bool // MAIL was taken
	from, to  string
	behaviour Behaviour
	junk      int
	body      []byte // scratch
}

const (
	sinkWait = 5 * time.Minute // for a command, and for each 64 KiB of a message
	maxJunk  = 20
	// maxScratch is how much room for a message a connection keeps for its next one.
	maxScratch = 1 << 20
)

func (s *Sink) serve(raw net.Conn) {
	c := &sinkConn{Sink: s, raw: raw, br: bufio.NewReaderSize(raw, 32<<10), bw: bufio.NewWriterSize(raw, 4<<10)}
	defer func() {
		raw.Close()
		s.mu.Lock()
		delete(s.conns, raw)
		s.mu.Unlock()
	}()
	c.say("220 " + s.options.Name + " ESMTP, catches everything")
	for {
		// Replies to pipelined commands go out together (RFC 2920 3.2).
		if c.br.Buffered() == 0 && c.bw.Flush() != nil {
			return
		}
		raw.SetDeadline(time.Now().Add(sinkWait))
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return
		}
		if !c.command(string(bytes.TrimRight(line, "\r\n"))) {
			c.bw.Flush()
			return
		}
	}
}

func (c *sinkConn) say(reply string) {
	c.bw.WriteString(reply)
	c.bw.WriteString("\r\n")
}

// command answers one command, and reports whether the connection goes on.
func (c *sinkConn) command(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		c.hello(rest)
	case "HELO":
		c.name = rest
		c.reset()
		c.say("250 " + c.options.Name)
	case "STARTTLS":
		return c.startTLS()
	case "MAIL":
		return c.mail(rest)
	case "RCPT":
		return c.rcpt(rest)
	case "DATA":
		return c.data()
	case "RSET":
		c.reset()
		c.say("250 2.0.0 Flushed")
	case "NOOP":
		c.say("250 2.0.0 OK")
	case "QUIT":
		c.say("221 2.0.0 Bye")
		return false
	default:
		c.say("502 5.5.2 Command not recognized")
		c.junk++
		return c.junk < maxJunk
	}
	return true
}

func (c *sinkConn) reset() { c.begun, c.from, c.to = false, "", "" }

func (c *sinkConn) hello(name string) {
	c.name = name
	c.reset()
	c.say("250-" + c.options.Name)
	c.say("250-PIPELINING")
	c.say("250-SIZE " + strconv.Itoa(c.options.MaxSize))
	if c.Sink.tls != nil && c.tls == "" {
		c.say("250-STARTTLS")
	}
	c.say("250-ENHANCEDSTATUSCODES")
	c.say("250 8BITMIME")
}

func (c *sinkConn) startTLS() bool {
	if c.Sink.tls == nil || c.tls != "" {
		c.say("502 5.5.1 TLS is not available")
		return true
	}
	c.say("220 2.0.0 Go ahead")
	if c.br.Buffered() > 0 || c.bw.Flush() != nil {
		return false // commands pipelined behind STARTTLS: RFC 3207 4.2
	}
	tc := tls.Server(c.raw, c.Sink.tls)
	if tc.Handshake() != nil {
		return false
	}
	c.tls = tls.VersionName(tc.ConnectionState().Version)
	c.br.Reset(tc)
	c.bw.Reset(tc)
	c.count(func(s *Stats) { s.TLS++ })
	return true
}

// argument takes "FROM:<a@b> SIZE=1" apart.
func argument(rest, keyword string) (string, bool) {
	if len(rest) < len(keyword) || !strings.EqualFold(rest[:len(keyword)], keyword) {
		return "", false
	}
	rest = strings.TrimLeft(rest[len(keyword):], " ")
	end := strings.IndexByte(rest, '>')
	if end < 1 || rest[0] != '<' {
		return "", false
	}
	return rest[1:end], true
}

func (c *sinkConn) mail(rest string) bool {
	from, ok := argument(rest, "FROM:")
	switch {
	case !ok:
		c.say("501 5.5.4 Syntax: MAIL FROM:<address>")
	case c.name == "" || c.begun:
		c.say("503 5.5.1 Bad sequence of commands")
	default:
		c.begun, c.from = true, from
		c.say("250 2.1.0 OK")
	}
	return true
}

func (c *sinkConn) rcpt(rest string) bool {
	to, ok := argument(rest, "TO:")
	switch {
	case !ok || to == "":
		c.say("501 5.5.4 Syntax: RCPT TO:<address>")
		return true
	case !c.begun:
		c.say("503 5.5.1 Bad sequence of commands")
		return true
	case c.to != "":
		c.say("452 4.5.3 One recipient at a time")
		return true
	}
	b := c.Sink.behaviour(to)
	if b.Stage == "" {
		b.Stage = StageRcpt
	}
	if goOn, said := c.act(b, StageRcpt); said || !goOn {
		return goOn
	}
	c.behaviour, c.to = b, to
	c.say("250 2.1.5 OK")
	return true
}

// act does what b says for a stage. said tells that the stage has its reply, goOn
// that the connection stays.
func (c *sinkConn) act(b Behaviour, stage Stage) (goOn, said bool) {
	if b.Stage != stage {
		return true, false
	}
	if b.Delay > 0 {
		c.bw.Flush()
		c.raw.SetDeadline(time.Now().Add(b.Delay + sinkWait))
		select {
		case <-time.After(b.Delay):
		case <-c.done:
			return false, false
		}
	}
	switch {
	case b.Vanish:
		return false, false
	case b.Stall:
		c.bw.Flush()
		c.raw.SetDeadline(time.Time{})
		io.Copy(io.Discard, c.br)
		return false, false
	case b.Reply != "":
		c.count(func(s *Stats) { s.Refused++ })
		c.say(b.Reply)
		return !strings.HasPrefix(b.Reply, "421"), true
	}
	return true, false
}

func (c *sinkConn) data() bool {
	defer c.reset()
	switch {
	case !c.begun:
		c.say("503 5.5.1 Bad sequence of commands")
		return true
	case c.to == "":
		c.say("554 5.5.1 No valid recipients")
		return true
	}
	if goOn, said := c.act(c.behaviour, StageData); said || !goOn {
		return goOn
	}
	c.say("354 End data with <CR><LF>.<CR><LF>")
	if c.bw.Flush() != nil {
		return false
	}
	raw, err := c.message()
	m := Mail{At: time.Now(), From: c.from, To: c.to, Hello: c.name, Client: c.raw.RemoteAddr().String(), TLS: c.tls, Raw: raw}
	switch {
	case errors.Is(err, errTooLong):
		c.say("552 5.3.4 Message too big")
		return false
	case err != nil:
		return false
	}
	if goOn, said := c.act(c.behaviour, StageDot); said || !goOn {
		return goOn
	}
	if c.options.Keep > 0 || c.options.Ledger || c.options.OnMail != nil {
		m.MessageID = messageID(raw)
	}
	if c.options.Keep > 0 {
		m.Raw = bytes.Clone(raw)
	}
	c.keep(m)
	if c.behaviour.Lose && c.behaviour.Stage == StageDot {
		c.count(func(s *Stats) { s.Lost++ })
		return false
	}
	c.say("250 2.0.0 Ok: queued as " + strconv.FormatInt(m.At.UnixNano(), 36))
	return true
}

// message reads up to the lone dot and undoes the doubled ones. What it returns holds
// until it is called again.
func (c *sinkConn) message() ([]byte, error) {
	body := c.body[:0]
	next := 0
	start := true // of a line
	for {
		if len(body) >= next {
			c.raw.SetDeadline(time.Now().Add(sinkWait))
			next = len(body) + 64<<10
		}
		piece, err := c.br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if start && piece[0] == '.' {
			if string(piece) == ".\r\n" {
				if c.body = body; cap(body) > maxScratch {
					c.body = nil
				}
				return body, nil
			}
			piece = piece[1:]
		}
		start = err == nil
		if len(body)+len(piece) > c.options.MaxSize {
			return nil, errTooLong
		}
		body = append(body, piece...)
	}
}
