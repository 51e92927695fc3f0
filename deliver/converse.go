package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// Caller talks to exchangers as a delivery would, up to RCPT and never DATA: it
// tells a closed port, a firewall and a refusal of us from a server that would take
// our mail. It must not be at the disposal of whoever can name a domain: it
// connects to where that domain's owner points.
type Caller struct {
	// Hello is our name in EHLO.
	Hello string
	// From is the envelope sender; "" is the null one.
	From string
	// Dial, Sources and RootCAs are as in Options.
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	Sources []netip.Addr
	RootCAs *x509.CertPool
}

// The waits of a call. They are much shorter than a delivery's: somebody looks on.
const (
	callConnect = 5 * time.Second
	callReply   = 10 * time.Second
)

// maxCallLines bounds the lines of a conversation that are shown.
const maxCallLines = 60

// Converse talks to the first of a host's addresses that answers about mail to the
// postmaster of domain, who has to exist (RFC 5321 4.5.1).
func (c *Caller) Converse(ctx context.Context, domain string, h dnscheck.Host) dnscheck.Conversation {
	var said dnscheck.Conversation
	for _, addr := range h.Addrs[:min(len(h.Addrs), maxAddrsPerHost)] {
		said = c.converse(ctx, domain, target{host: h.Name, addr: netip.AddrPortFrom(addr.Unmap(), 25)})
		if said.Reached {
			break
		}
	}
	return said
}

func (c *Caller) converse(ctx context.Context, domain string, t target) dnscheck.Conversation {
	call := &call{said: dnscheck.Conversation{Host: t.host, Address: t.addr.Addr().String()}}
	dial := c.Dial
	if dial == nil {
		dial = dialFrom(c.Sources)
	}
	d := &Deliverer{options: Options{Hello: c.Hello, RootCAs: c.RootCAs}}
	raw, err := (&origin{dial: dial}).connect(ctx, t.addr, callConnect)
	if err != nil {
		call.said.Err = plain(err)
		return call.said
	}
	wait := Timeouts{TLS: callReply, Command: callReply, Greeting: callReply}.withDefaults()
	call.conn = &conn{raw: raw, Conn: raw, replies: newReplyReader(raw), wait: wait, target: t, hello: c.Hello}
	defer raw.Close()
	defer call.conn.bind(ctx)()
	call.run(ctx, d, c.From, "postmaster@"+domain)
	return call.said
}

// call is one conversation under way.
type call struct {
	*conn
	said dnscheck.Conversation
}

// run goes from the greeting to the recipient, and leaves.
func (c *call) run(ctx context.Context, d *Deliverer, from, to string) {
	r, f := c.await(mail.StageGreeting, c.wait.Greeting)
	if c.took(mail.StageGreeting, r, f) && c.introduce() && c.secured(ctx, d) && c.ask(mail.StageMail, "MAIL FROM:<"+from+">") {
		c.ask(mail.StageRcpt, "RCPT TO:<"+to+">")
	}
	if !c.broken {
		c.wait.Command = c.wait.Quit
		c.ask("", "QUIT")
	}
}

func (c *call) introduce() bool {
	line := "EHLO " + c.conn.hello
	r, f := c.command(mail.StageHello, c.wait.Command, line)
	c.note("> " + line)
	if f == nil && r.positive() {
		c.caps = parseCapabilities(r)
	}
	return c.took(mail.StageHello, r, f)
}

// secured turns to TLS where it is offered. As in a delivery, a server that offers
// it and then refuses is talked to in clear.
func (c *call) secured(ctx context.Context, d *Deliverer) bool {
	if !c.caps.startTLS {
		return true
	}
	c.said.STARTTLS = true
	if !c.ask(mail.StageTLS, "STARTTLS") {
		return !c.broken
	}
	return c.encrypt(ctx, d) && c.introduce()
}

// ask says a line and reports whether the server said yes.
func (c *call) ask(stage mail.Stage, line string) bool {
	r, f := c.command(stage, c.wait.Command, line)
	c.note("> " + line)
	return c.took(stage, r, f)
}

// took notes a reply and reports whether the conversation goes on.
func (c *call) took(stage mail.Stage, r reply, f *failure) bool {
	if f != nil {
		if stage != "" {
			c.said.Err = cleanText(plain(f.err))
			c.note("* " + c.said.Err)
		}
		return false
	}
	c.said.Reached = true
	lines := strings.Split(r.lines, "\n")
	for i, line := range lines {
		mark := "-"
		if i == len(lines)-1 {
			mark = " "
		}
		c.note(fmt.Sprintf("< %d%s%s", r.code, mark, cleanText(line)))
	}
	if r.code/100 == 5 && c.refusal(stage, r) {
		c.said.Refused = r.said().String()
	}
	return r.positive()
}

// refusal reports whether a 5xx reply says that our mail is not wanted. That there
// is no postmaster, which some servers lack, says that we were let in so far.
func (c *call) refusal(stage mail.Stage, r reply) bool {
	switch stage {
	case "", mail.StageTLS:
		return false
	case mail.StageRcpt:
		return !bounces.Classify(bounces.Said{Reply: r.said(), Stage: stage, Host: c.target.host}).Suppress
	}
	return true
}

// encrypt makes the handshake, whatever the certificate, and notes how it went.
func (c *call) encrypt(ctx context.Context, d *Deliverer) bool {
	f := c.handshake(ctx, d, TLSOpportunistic)
	if f != nil {
		c.said.Err = cleanText(plain(f.err))
		c.note("* " + c.said.Err)
		return false
	}
	c.said.TLS = c.tls.Version + ", " + c.tls.Cipher
	if c.tls.Problem != "" {
		c.said.TLS += ", certificate " + c.tls.Problem
	}
	c.note("* " + c.said.TLS)
	if t, ok := c.Conn.(*tls.Conn); ok {
		c.said.Chain = t.ConnectionState().PeerCertificates
	}
	return true
}

func (c *call) note(line string) {
	if len(c.said.Lines) < maxCallLines {
		c.said.Lines = append(c.said.Lines, line)
	}
}
