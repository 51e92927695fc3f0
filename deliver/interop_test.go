package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// peer is go-smtp's server as a receiver that somebody else wrote.
type peer struct {
	mu   sync.Mutex
	got  [][]byte
	user string
}

func (p *peer) NewSession(*smtp.Conn) (smtp.Session, error) { return &peerSession{peer: p}, nil }

type peerSession struct{ peer *peer }

func (*peerSession) Reset()        {}
func (*peerSession) Logout() error { return nil }

func (*peerSession) Mail(string, *smtp.MailOptions) error { return nil }

func (*peerSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "gone@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user here"}
	}
	return nil
}

func (s *peerSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if bytes.Contains(b, []byte("spam")) {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Looks like spam"}
	}
	s.peer.mu.Lock()
	defer s.peer.mu.Unlock()
	s.peer.got = append(s.peer.got, b)
	return nil
}

func (*peerSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *peerSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != "correct horse" {
			return smtp.ErrAuthFailed
		}
		s.peer.mu.Lock()
		defer s.peer.mu.Unlock()
		s.peer.user = user
		return nil
	}), nil
}

func TestInteropWithGoSMTP(t *testing.T) {
	t.Parallel()
	p := &peer{}
	cert, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "peer.test")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(p)
	server.Domain = "peer.test"
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) })
	defer serving.Wait()
	defer server.Close()

	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	fixed := Fixed("peer.test", l.Addr().(*net.TCPAddr).AddrPort(), TLSVerified)
	plan, err := fixed(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	plan.Login = &Login{User: "mailer", Password: "correct horse"}
	o.Plan, o.Dial, o.RootCAs = func(context.Context, string) (Plan, error) { return plan, nil }, nil, smtptest.Roots(cert)
	d := newDeliverer(t, o)
	defer d.Close()

	for i, row := range []struct {
		to, signed string
		want       mail.State
		text       string
	}{
		{"kari@dest.example", "", mail.StateAccepted, "250 2.0.0"},
		{"gone@dest.example", "", mail.StateRefused, "550 5.1.1 No such user here"},
		{"kari@dest.example", "Subject: x\r\n\r\nspam\r\n", mail.StateRefused, "554 5.7.1 Looks like spam"},
		{"kari@dest.example", "Subject: x\r\n\r\n.\r\n..\r\n.x\r\n", mail.StateAccepted, "250 2.0.0"},
	} {
		a := &mail.Attempt{Message: testMessage(), Number: 1}
		a.Message.To = mail.Address(row.to)
		if row.signed != "" {
			a.Signed = []byte(row.signed)
		}
		got := d.Attempt(t.Context(), a)
		if got.State != row.want || got.Evidence.Reply == nil || !strings.HasPrefix(got.Evidence.Reply.String(), row.text) {
			t.Fatalf("message %d: %+v", i, got)
		}
		if got.Evidence.Reused != (i > 0) {
			t.Errorf("message %d: reused is %v", i, got.Evidence.Reused)
		}
	}
	if p.user != "mailer" || len(p.got) != 2 || string(p.got[1]) != "Subject: x\r\n\r\n.\r\n..\r\n.x\r\n" {
		t.Errorf("the peer got %q from %q", p.got, p.user)
	}
}
