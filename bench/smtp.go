package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/smtp"
	"regexp"
	"sync"
)

// injection hands mail in by SMTP over connections that stay open, one for each
// injector.
type injection struct {
	addr string
	text []byte

	mu    sync.Mutex
	conns map[int]*smtp.Client
}

var (
	messageID = regexp.MustCompile(`(?mi)^Message-ID:.*\r\n`)
	toHeader  = regexp.MustCompile(`(?m)^To:.*\r\n`)
)

func (in *injection) open(addr string, text []byte) {
	in.addr, in.text, in.conns = addr, text, map[int]*smtp.Client{}
}

func (in *injection) send(ctx context.Context, injector int, to string, _ bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in.mu.Lock()
	c := in.conns[injector]
	in.mu.Unlock()
	if c == nil {
		var err error
		if c, err = smtp.Dial(in.addr); err != nil {
			return err
		}
		if err := c.Hello("auth.acme.example"); err != nil {
			return err
		}
		in.mu.Lock()
		in.conns[injector] = c
		in.mu.Unlock()
	}
	if err := c.Mail("bounce@bounce.acme.example"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	text := messageID.ReplaceAll(in.text, fmt.Appendf(nil, "Message-ID: <%s@acme.example>\r\n", rand.Text()))
	text = toHeader.ReplaceAll(text, fmt.Appendf(nil, "To: Kari Nordmann <%s>\r\n", to))
	if _, err := bytes.NewReader(text).WriteTo(w); err != nil {
		return err
	}
	return w.Close()
}

func (in *injection) close() {
	for _, c := range in.conns {
		_ = c.Quit() // the server may be gone
	}
}
