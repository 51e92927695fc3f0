package smtptest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A script is a transcript, a step a line; empty lines and lines that begin with
// "#" are skipped, blanks around a line don't count:
//
//	S: 220 mx.example ESMTP   say the line, with CRLF; lines that follow one another
//	                          go out in one write
//	S= "250 2.0.0 que"        say exactly this, a Go string
//	S* 1000 "250-x\r\n"       say this so many times
//	C: EHLO                   read a line that begins so, in any case
//	C.                        read lines up to the lone dot
//	read 10                   read so many bytes
//	wait 5s
//	nothing 5s                the client says nothing for so long
//	tls                       take a TLS handshake
//	tls1.1                    take one up to TLS 1.1
//	hang                      read, and say nothing, until the client closes
//	deaf                      read nothing until the client closes its pipe, or the
//	                          network is closed
//	close                     close; what was not read is not waited for
//	rst                       close with a reset, where the connection can
//	refuse, drop              as a script's only step: the connection is refused, or
//	                          nobody answers
//
// At the end of a script the connection is closed.

// player plays one script on one connection.
type player struct {
	raw  net.Conn
	conn net.Conn
	br   *bufio.Reader
	cert *tls.Certificate
	gone <-chan struct{} // closed when nobody is on the other side any more
	out  []byte          // said and not yet written
	got  func(line string)
}

// maxLine bounds a line of a client.
const maxLine = 64 << 10

var errTooLong = errors.New("smtptest: a line without end")

func (p *player) play(script string) error {
	defer p.raw.Close()
	n := 0
	for line := range strings.Lines(script) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		done, err := p.step(line)
		if err != nil {
			return fmt.Errorf("script line %d, %q: %w", n, line, err)
		}
		if done {
			return nil
		}
	}
	return p.flush()
}

func (p *player) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.conn.Write(p.out)
	p.out = p.out[:0]
	return err
}

func (p *player) step(line string) (done bool, err error) {
	word, rest, _ := strings.Cut(line, " ")
	if word != "S:" && word != "S=" && word != "S*" {
		if err := p.flush(); err != nil {
			return false, err
		}
	}
	switch word {
	case "S:":
		p.out = append(append(p.out, rest...), "\r\n"...)
	case "S=":
		text, err := strconv.Unquote(rest)
		p.out = append(p.out, text...)
		return false, err
	case "S*":
		return false, p.repeat(rest)
	case "C:":
		return false, p.expect(rest)
	case "C.":
		return false, p.message()
	case "read":
		n, err := strconv.Atoi(rest)
		if err == nil {
			_, err = io.CopyN(io.Discard, p.br, int64(n))
		}
		return false, err
	case "wait":
		d, err := time.ParseDuration(rest)
		time.Sleep(d)
		return false, err
	case "nothing":
		return false, p.nothing(rest)
	case "tls":
		return false, p.handshake(0)
	case "tls1.1":
		return false, p.handshake(tls.VersionTLS11)
	case "hang":
		io.Copy(io.Discard, p.br) // its end is what was waited for
	case "deaf":
		<-p.gone
	case "close":
		return true, nil
	case "rst":
		if tcp, ok := p.raw.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		return true, nil
	default:
		return false, errors.New("no such step")
	}
	return false, nil
}

func (p *player) repeat(rest string) error {
	count, quoted, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	text, err := strconv.Unquote(quoted)
	if err != nil {
		return err
	}
	if err := p.flush(); err != nil {
		return err
	}
	for range n {
		if _, err := io.WriteString(p.conn, text); err != nil {
			return nil // the client had enough, which is what such a script is for
		}
	}
	return nil
}

func (p *player) line() (string, error) {
	line, err := p.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errTooLong
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

func (p *player) expect(prefix string) error {
	line, err := p.line()
	if err != nil {
		return err
	}
	p.got(line)
	if len(line) < len(prefix) || !strings.EqualFold(line[:len(prefix)], prefix) {
		return fmt.Errorf("the client said %q", line)
	}
	return nil
}

func (p *player) message() error {
	for {
		line, err := p.line()
		if err != nil {
			return err
		}
		if line == "." {
			p.got(line)
			return nil
		}
	}
}

func (p *player) nothing(rest string) error {
	d, err := time.ParseDuration(rest)
	if err != nil {
		return err
	}
	p.conn.SetReadDeadline(time.Now().Add(d))
	defer p.conn.SetReadDeadline(time.Time{})
	said, err := p.br.Peek(1)
	if len(said) == 0 && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF)) {
		return nil
	}
	return fmt.Errorf("the client said %q, %v", said, err)
}

func (p *player) handshake(most uint16) error {
	if p.cert == nil {
		return errors.New("the network has no certificate")
	}
	tc := tls.Server(p.raw, &tls.Config{Certificates: []tls.Certificate{*p.cert}, MinVersion: tls.VersionTLS10, MaxVersion: most})
	p.conn, p.br = tc, bufio.NewReaderSize(tc, maxLine)
	return tc.Handshake()
}
