package bounces

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// desk is a Receiver's surroundings in a test.
type desk struct {
	mu        sync.Mutex
	events    []mail.Event
	seen      []string
	forwarded []string
	recordErr error
}

func (d *desk) options(t testing.TB) ReceiverOptions {
	return ReceiverOptions{
		Hello: "bounce.example.com", ReturnPath: newReturnPath(t, 1),
		Record: func(_ context.Context, e mail.Event) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.recordErr != nil {
				return d.recordErr
			}
			d.events = append(d.events, e)
			return nil
		},
		Forward: func(_ context.Context, from, to string, raw []byte) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.forwarded = append(d.forwarded, from+" "+to+" "+string(raw))
			return nil
		},
		Seen: func(what string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.seen = append(d.seen, what)
		},
		Now: func() time.Time { return testNow },
	}
}

var testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// testID is a message of an hour ago.
func testID() mail.ID { return mail.NewID(testNow.Add(-time.Hour)) }

// serve runs a Receiver on a loopback port until the test ends.
func serve(t *testing.T, opt ReceiverOptions) string {
	t.Helper()
	r, err := NewReceiver(opt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// peer is the other side of a session.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newPeer(t, c)
}

func newPeer(t testing.TB, c net.Conn) *peer { return &peer{t, c, bufio.NewReader(c)} }

// reply reads a whole reply and returns its lines.
func (p *peer) reply() string {
	p.t.Helper()
	var all strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			p.t.Fatalf("reading a reply: %v after %q", err, all.String())
		}
		if len(line) > 3 && line[3] == ' ' {
			return all.String()
		}
	}
}

// talk sends what begins with "C: " and checks replies against what begins with "S: ";
// "closed" wants the end of the session.
func (p *peer) talk(script ...string) {
	p.t.Helper()
	for _, step := range script {
		switch {
		case strings.HasPrefix(step, "C: "):
			if _, err := io.WriteString(p.conn, step[3:]+"\r\n"); err != nil {
				p.t.Fatalf("%s: %v", step, err)
			}
		case strings.HasPrefix(step, "S: "):
			if got := p.reply(); !strings.HasPrefix(got, step[3:]) {
				p.t.Fatalf("got %q, want %q", got, step[3:])
			}
		case step == "closed":
			if rest, err := io.ReadAll(p.r); len(rest) > 0 {
				p.t.Fatalf("the session went on: %q, %v", rest, err)
			}
		default:
			p.t.Fatalf("unknown step %q", step)
		}
	}
}

const dsnText = "From: MAILER-DAEMON@mx.example.net\r\nTo: x\r\nSubject: Undelivered Mail Returned to Sender\r\n" +
	"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n" +
	"--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
	"Reporting-MTA: dns; mx.example.net\r\n\r\nFinal-Recipient: rfc822; someone.else@example.net\r\nAction: failed\r\n" +
	"Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\n\r\n--b--\r\n"

// A report for a message's return path becomes its event, about the message that the
// token names, whatever address the report has (E04); once for all its repetitions
// (E05).
func TestReceiverTakesReport(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	id := testID()
	p := dial(t, serve(t, opt))
	p.talk("S: 220 bounce.example.com", "C: EHLO mx.example.net", "S: 250-")
	for range 2 {
		p.talk("C: MAIL FROM:<>", "S: 250", "C: RCPT TO:<"+strings.ToUpper(opt.ReturnPath.Address(id))+">", "S: 250",
			"C: DATA", "S: 354", "C: "+dsnText+".", "S: 250")
	}
	p.talk("C: QUIT", "S: 221", "closed")
	if len(d.events) != 2 || d.events[0].ID != d.events[1].ID {
		t.Fatalf("events %+v", d.events)
	}
	e := d.events[0]
	if e.Message != id || e.State != mail.StateReturned || e.Cause != mail.CauseBadMailbox || !e.Suppress || e.To != "" || e.By != "dsn" {
		t.Errorf("event %+v", e)
	}
	if e.Evidence.Reply == nil || e.Evidence.Reply.String() != "550 5.1.1 No such user" {
		t.Errorf("evidence %+v", e.Evidence)
	}
	if !slices.Equal(d.seen, []string{"bounce", "bounce"}) {
		t.Errorf("seen %v", d.seen)
	}
}

// Who may write to what (E01, E11, E12), each in a session of its own.
func TestReceiverRecipients(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	addr := serve(t, opt)
	mine := opt.ReturnPath.Address(testID())
	other, err := NewReturnPath([]byte("another key, sixteen bytes or more"), opt.ReturnPath.Domain())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, rcpt, want string }{
		{"a message's return path", mine, "250"},
		{"postmaster", "postmaster@bounce.example.com", "250"},
		{"Postmaster without a domain", "Postmaster", "250"},
		{"abuse", "Abuse@Bounce.Example.Com", "250"},
		{"a token of another key", other.Address(testID()), "550 5.1.1"},
		{"a token of long ago", opt.ReturnPath.Address(mail.NewID(testNow.Add(-61 * 24 * time.Hour))), "550 5.1.1"},
		{"no token", "bounce+@bounce.example.com", "550 5.1.1"},
		{"anybody", "info@bounce.example.com", "550 5.1.1"},
		{"abuse without a domain", "abuse", "501"},
		{"somebody elsewhere", "x@other.example", "550 5.7.1"},
		{"our token elsewhere", strings.Replace(mine, "bounce.example.com", "other.example", 1), "550 5.7.1"},
		{"percent hack", "x%other.example@bounce.example.com", "550 5.1.1"},
		{"bang path", "other.example!x@bounce.example.com", "550 5.1.1"},
		{"quoted address elsewhere", `"x@other.example"@bounce.example.com`, "550 5.7.1"},
		{"sub-domain", "postmaster@x.bounce.example.com", "550 5.7.1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dial(t, addr).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250",
				"C: RCPT TO:<"+test.rcpt+">", "S: "+test.want)
		})
	}
}

// What is no report has no effect: other senders (E02), automatic replies (E10),
// successes (E07), ordinary mail; messages that are no longer known (E17).
func TestReceiverIgnores(t *testing.T) {
	t.Parallel()
	delivered := strings.NewReplacer("Action: failed", "Action: delivered", "Status: 5.1.1", "Status: 2.0.0").Replace(dsnText)
	tests := []struct {
		name, from, text, seen string
		known                  bool
	}{
		{"a report from an address", "a@b.example", dsnText, "autoreply", true},
		{"an absence", "", "From: a@b.example\r\nSubject: Automatic reply: Hello\r\nAuto-Submitted: auto-replied\r\n\r\nI am away. 550 5.1.1 user unknown\r\n", "autoreply", true},
		{"a success", "", delivered, "report", true},
		{"ordinary mail", "", "From: a@b.example\r\nSubject: Hello\r\n\r\nHello\r\n", "not-a-bounce", true},
		{"a message that is gone", "", dsnText, "unknown", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var d desk
			opt := d.options(t)
			opt.Known = func(context.Context, mail.ID) (bool, error) { return test.known, nil }
			dial(t, serve(t, opt)).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<"+test.from+">", "S: 250",
				"C: RCPT TO:<"+opt.ReturnPath.Address(testID())+">", "S: 250", "C: DATA", "S: 354", "C: "+test.text+".", "S: 250")
			if len(d.events) != 0 || !slices.Equal(d.seen, []string{test.seen}) {
				t.Errorf("events %+v, seen %v", d.events, d.seen)
			}
		})
	}
}

// 250 only when the event is durable.
func TestReceiverNotDurable(t *testing.T) {
	t.Parallel()
	d := desk{recordErr: errors.New("no store")}
	opt := d.options(t)
	dial(t, serve(t, opt)).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250",
		"C: RCPT TO:<"+opt.ReturnPath.Address(testID())+">", "S: 250", "C: DATA", "S: 354", "C: "+dsnText+".", "S: 451 4.3.0")
	if !slices.Equal(d.seen, []string{"failed"}) {
		t.Errorf("seen %v", d.seen)
	}
}

func TestReceiverForwards(t *testing.T) {
	t.Parallel()
	var d desk
	dial(t, serve(t, d.options(t))).talk("S: 220", "C: HELO mx.example.net", "S: 250", "C: MAIL FROM:<a@b.example>", "S: 250",
		"C: RCPT TO:<abuse@bounce.example.com>", "S: 250", "C: DATA", "S: 354", "C: Subject: you\r\n\r\n..spam\r\n.", "S: 250")
	if !slices.Equal(d.forwarded, []string{"a@b.example abuse Subject: you\r\n\r\n.spam\r\n"}) {
		t.Errorf("forwarded %q", d.forwarded)
	}
}

// What a conversation may not do (D23 to D34, E09), and how it ends.
func TestGuardConversations(t *testing.T) {
	t.Parallel()
	rcpt := "C: RCPT TO:<RETURN>"
	start := []string{"S: 220", "C: EHLO mx.example.net", "S: 250-"}
	data := append(slices.Clone(start), "C: MAIL FROM:<>", "S: 250", rcpt, "S: 250", "C: DATA", "S: 354")
	tests := []struct {
		name   string
		script []string
	}{
		{"BDAT ends the session", append(slices.Clone(start), "C: MAIL FROM:<>", "S: 250", rcpt, "S: 250", "C: BDAT 100 LAST\r\nSubject: x", "S: 502", "closed")},
		{"second MAIL", append(slices.Clone(start), "C: MAIL FROM:<>", "S: 250", rcpt, "S: 250", "C: MAIL FROM:<a@b.example>", "S: 503")},
		{"second RCPT", append(slices.Clone(start), "C: MAIL FROM:<>", "S: 250", rcpt, "S: 250", rcpt, "S: 452 4.5.3")},
		{"RCPT after DATA", append(slices.Clone(data), "C: Subject: x\r\n\r\nx\r\n.", "S: 250", rcpt, "S: 502")},
		{"RSET forgets", append(slices.Clone(start), "C: MAIL FROM:<>", "S: 250", "C: RSET", "S: 250", rcpt, "S: 502")},
		{"no EHLO", []string{"S: 220", "C: MAIL FROM:<>", "S: 503"}},
		{"AUTH is not offered", append(slices.Clone(start), "C: AUTH PLAIN AGEAYg==", "S: 523")},
		{"STARTTLS is not offered", append(slices.Clone(start), "C: STARTTLS", "S: 502")},
		{"long line", []string{"S: 220", "C: EHLO " + strings.Repeat("x", 2000), "S: 500", "closed"}},
		{"control character", []string{"S: 220", "C: EHLO a\x1b[31mb", "S: 500", "closed"}},
		{"non-ASCII", []string{"S: 220", "C: EHLO m\xc3\xbc.example", "S: 500", "closed"}},
		{"web browser", []string{"S: 220", "C: GET / HTTP/1.1\r\nHost: x", "S: 500", "closed"}},
		{"TLS on the plain port", []string{"S: 220", "C: \x16\x03\x01\x02\x00\x01\x00", "S: 500", "closed"}},
		{"line ended by LF", []string{"S: 220", "C: EHLO a\nMAIL FROM:<>", "S: 500", "closed"}},
		{"dot between bare LFs", append(slices.Clone(data), "C: x\n.\nMAIL FROM:<a@b.example>", "S: 550 5.6.0", "closed")},
		{"dot after bare LF", append(slices.Clone(data), "C: x\n.", "S: 550 5.6.0", "closed")},
		{"dot after bare CR", append(slices.Clone(data), "C: x\r.", "S: 550 5.6.0", "closed")},
		{"dot before bare LF", append(slices.Clone(data), "C: x\r\n.\nNOOP", "S: 550 5.6.0", "closed")},
		{"double CR around the dot", append(slices.Clone(data), "C: x\r\r\n.\r", "S: 550 5.6.0", "closed")},
		{"dot and double CR", append(slices.Clone(data), "C: x\r\n.\r\r", "S: 550 5.6.0", "closed")},
		{"empty message", append(slices.Clone(data), "C: .", "S: 250")},
		{"stuffed dot does not end it", append(slices.Clone(data), "C: ..\r\n.", "S: 250")},
		{"too large", append(slices.Clone(data), "C: "+strings.Repeat(strings.Repeat("x", 70)+"\r\n", 15000)+".", "S: 552")},
		{"size announced", append(slices.Clone(start), "C: MAIL FROM:<> SIZE=2000000", "S: 552")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var d desk
			opt := d.options(t)
			p := dial(t, serve(t, opt))
			for _, step := range test.script {
				p.talk(strings.Replace(step, "RETURN", opt.ReturnPath.Address(testID()), 1))
			}
			if len(d.events) != 0 {
				t.Errorf("events %+v", d.events)
			}
		})
	}
}

// A message that is cut off is not taken (D27).
func TestGuardTruncated(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	p := dial(t, serve(t, opt))
	p.talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250",
		"C: RCPT TO:<"+opt.ReturnPath.Address(testID())+">", "S: 250", "C: DATA", "S: 354", "C: "+dsnText)
	if err := p.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(p.r); err != nil {
		t.Fatal(err)
	}
	if len(d.events) != 0 {
		t.Errorf("a truncated report was taken: %+v", d.events)
	}
}

// Pipelined commands and a message in one piece are read in order.
func TestGuardPipelining(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	p := dial(t, serve(t, opt))
	rcpt := opt.ReturnPath.Address(testID())
	p.talk("S: 220", "C: EHLO mx.example.net", "S: 250-",
		"C: MAIL FROM:<>\r\nRCPT TO:<"+rcpt+">\r\nDATA\r\n"+dsnText+".\r\nMAIL FROM:<>\r\nQUIT",
		"S: 250", "S: 250", "S: 354", "S: 250", "S: 250", "S: 221", "closed")
	if len(d.events) != 1 {
		t.Errorf("events %+v", d.events)
	}
}

// Caps on connections, in all and per address (D33); a session that ends makes room.
func TestGuardCaps(t *testing.T) {
	t.Parallel()
	for _, caps := range [][2]int{{2, 10}, {10, 2}} {
		var d desk
		opt := d.options(t)
		opt.MaxConns, opt.MaxPerIP = caps[0], caps[1]
		addr := serve(t, opt)
		first := dial(t, addr)
		first.talk("S: 220")
		dial(t, addr).talk("S: 220")
		dial(t, addr).talk("S: 421 4.7.0", "closed")
		first.talk("C: QUIT", "S: 221", "closed")
		// The place is given back after the connection is closed: ask until it is.
		for {
			if p := dial(t, addr); strings.HasPrefix(p.reply(), "220") {
				break
			}
		}
	}
}

func TestAddressKey(t *testing.T) {
	t.Parallel()
	key := func(s string) string { return addressKey(&net.TCPAddr{IP: net.ParseIP(s), Port: 1}) }
	if key("2001:db8:1:2::1") != key("2001:db8:1:2:ffff::9") || key("2001:db8:1:2::1") == key("2001:db8:1:3::1") {
		t.Error("IPv6 addresses are not counted by /64")
	}
	if key("192.0.2.1") == key("192.0.2.2") || key("192.0.2.1") != key("::ffff:192.0.2.1") {
		t.Error("IPv4 addresses are not counted one by one")
	}
}

// Time: with pipes in a bubble, minutes pass at once.
func TestGuardTime(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		run  func(t *testing.T, p *peer, rcpt string)
		took time.Duration
	}{
		{"an idle client is dropped", func(t *testing.T, p *peer, _ string) {
			p.talk("S: 421 4.4.2", "closed")
		}, time.Minute},
		{"a slow line counts as idle", func(t *testing.T, p *peer, _ string) {
			for range 3 {
				io.WriteString(p.conn, "E")
				time.Sleep(20 * time.Second)
			}
			p.talk("S: 421 4.4.2", "closed")
		}, time.Minute},
		{"a session ends, however busy", func(t *testing.T, p *peer, _ string) {
			for range 11 {
				p.talk("C: EHLO x", "S: 250-")
				time.Sleep(50 * time.Second)
			}
			p.talk("C: EHLO x", "S: 250-", "S: 421", "closed")
		}, 10 * time.Minute},
		{"a message that stalls is not taken, and nothing after it is a command", func(t *testing.T, p *peer, rcpt string) {
			p.talk("C: EHLO x", "S: 250-", "C: MAIL FROM:<>", "S: 250", "C: RCPT TO:<"+rcpt+">", "S: 250", "C: DATA", "S: 354", "C: MAIL FROM:<a@b.example>")
			p.talk("S: 451 4.4.2", "closed")
		}, time.Minute},
		{"junk is answered slower, then not at all", func(t *testing.T, p *peer, _ string) {
			for range 20 {
				p.talk("C: NOOP", "S: 250")
			}
			p.talk("C: NOOP", "S: 421 4.7.0", "closed")
		}, 10 * time.Second},
		{"probing for addresses ends too", func(t *testing.T, p *peer, _ string) {
			p.talk("C: EHLO x", "S: 250-", "C: MAIL FROM:<>", "S: 250")
			for range 20 {
				p.talk("C: RCPT TO:<x@bounce.example.com>", "S: 550")
			}
			p.talk("C: RCPT TO:<x@bounce.example.com>", "S: 421 4.7.0", "closed")
		}, 10 * time.Second},
		{"a hundred commands are enough", func(t *testing.T, p *peer, _ string) {
			for range 100 {
				p.talk("C: EHLO x", "S: 250-")
			}
			p.talk("C: EHLO x", "S: 421 4.7.0", "closed")
		}, 0},
		{"a client that never reads is dropped", func(t *testing.T, p *peer, _ string) {
			io.WriteString(p.conn, "EHLO x\r\n")
			time.Sleep(writeTimeout + time.Second)
			p.talk("closed")
		}, writeTimeout + time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var d desk
				opt := d.options(t)
				r, err := NewReceiver(opt)
				if err != nil {
					t.Fatal(err)
				}
				l := pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- r.Serve(ctx, &l) }()
				server, client := net.Pipe()
				l.conns <- server
				p := newPeer(t, client)
				p.talk("S: 220")
				began := time.Now()
				test.run(t, p, opt.ReturnPath.Address(testID()))
				if took := time.Since(began); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				if len(d.events) != 0 {
					t.Errorf("events %+v", d.events)
				}
				stop()
				if err := <-done; err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
		})
	}
}

// pipeListener hands out one side of pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// Serve ends with its context, even with a session under way.
func TestReceiverStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d desk
		r, err := NewReceiver(d.options(t))
		if err != nil {
			t.Fatal(err)
		}
		l := pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Serve(ctx, &l) }()
		server, client := net.Pipe()
		l.conns <- server
		p := newPeer(t, client)
		p.talk("S: 220")
		began := time.Now()
		stop()
		if err := <-done; err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("Serve: %v after %v", err, time.Since(began))
		}
		p.talk("closed")
	})
}

func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bounce.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// STARTTLS: what was said before is forgotten, and it is not offered twice; bytes
// behind it and a failed handshake end the session (D23, D24).
func TestGuardTLS(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	opt.TLS = &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}}
	addr := serve(t, opt)
	rcpt := opt.ReturnPath.Address(testID())

	p := dial(t, addr)
	p.talk("S: 220", "C: EHLO mx.example.net")
	if caps := p.reply(); !strings.Contains(caps, "250-STARTTLS\r\n") || strings.Contains(caps, "CHUNKING") {
		t.Errorf("capabilities %q", caps)
	}
	p.talk("C: MAIL FROM:<>", "S: 250", "C: STARTTLS", "S: 220")
	secure := tls.Client(p.conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	q := newPeer(t, secure)
	q.talk("C: MAIL FROM:<>", "S: 503", "C: EHLO mx.example.net")
	if caps := q.reply(); strings.Contains(caps, "STARTTLS") || strings.Contains(caps, "CHUNKING") {
		t.Errorf("capabilities after STARTTLS %q", caps)
	}
	q.talk("C: RCPT TO:<"+rcpt+">", "S: 502", "C: STARTTLS", "S: 502", "C: MAIL FROM:<>", "S: 250", "C: RCPT TO:<"+rcpt+">", "S: 250",
		"C: DATA", "S: 354", "C: "+dsnText+".", "S: 250", "C: QUIT", "S: 221")
	if len(d.events) != 1 {
		t.Errorf("events %+v", d.events)
	}

	dial(t, addr).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: STARTTLS\r\nMAIL FROM:<>", "S: 501", "closed")

	p = dial(t, addr)
	p.talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: STARTTLS", "S: 220", "C: MAIL FROM:<a@b.example>")
	rest, _ := io.ReadAll(p.r)
	if strings.Contains(string(rest), "250") {
		t.Errorf("the session went on in plaintext: %q", rest)
	}
}

func TestNewReceiverRefuses(t *testing.T) {
	t.Parallel()
	var d desk
	for i, change := range []func(*ReceiverOptions){
		func(o *ReceiverOptions) { o.ReturnPath = nil },
		func(o *ReceiverOptions) { o.Record = nil },
		func(o *ReceiverOptions) { o.Hello = "" },
	} {
		opt := d.options(t)
		change(&opt)
		if _, err := NewReceiver(opt); err == nil {
			t.Errorf("options %d were taken", i)
		}
	}
}

// The guard, whatever is sent, ends and records nothing without a final dot.
func FuzzGuard(f *testing.F) {
	f.Add([]byte("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"))
	f.Add([]byte("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\nx\n.\r\n"))
	f.Add([]byte("STARTTLS\r\n\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, input []byte) {
		var d desk
		opt := d.options(t)
		opt.IdleLimit = time.Second
		r, err := NewReceiver(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		l := pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- r.Serve(ctx, &l) }()
		server, client := net.Pipe()
		l.conns <- server
		go func() {
			client.Write(input)
			client.Close()
		}()
		io.Copy(io.Discard, client)
		client.Close()
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(input), "\r\n.\r\n"); len(d.forwarded) > n {
			t.Fatalf("%d messages taken with %d final dots", len(d.forwarded), n)
		}
	})
}
