package bounces

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
