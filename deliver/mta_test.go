package deliver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// mta is a mail server that somebody else wrote, as Debian ships it. It takes mail
// from us and passes it on to a sink of ours.
type mta struct {
	name      string
	program   string   // where it is
	owner     string   // who has to be able to read its files
	configs   []string // in testdata/mta, and what they are called in its directory
	start     func(t *testing.T, program, dir string)
	brokenTLS bool // it offers STARTTLS, and no client's handshake succeeds
	defers    bool // its configuration can refuse for the time being
}

var mtas = []mta{
	{
		name: "Postfix", program: "/usr/sbin/postfix", owner: "postfix", defers: true,
		configs: []string{"postfix-main.cf", "main.cf", "postfix-master.cf", "master.cf"},
		start: func(t *testing.T, program, dir string) {
			ran(t, program, "-c", dir, "start")
			t.Cleanup(func() { ran(t, program, "-c", dir, "stop") })
		},
	},
	{
		name: "Exim", program: "exim4-daemon-light/usr/sbin/exim4", owner: "Debian-exim", defers: true,
		configs: []string{"exim.conf", "exim.conf"},
		start: func(t *testing.T, program, dir string) {
			foreground(t, program, "-C", filepath.Join(dir, "exim.conf"), "-bdf", "-q1m")
		},
	},
	{
		// Debian 12's is built against OpenSSL 3, with which its server can't sign a
		// handshake: openssl s_client fails as we do. It stands for every server whose TLS is
		// broken (FAULTS B06): mail arrives nevertheless, in clear.
		name: "OpenSMTPD", program: "opensmtpd/usr/sbin/smtpd", owner: "root",
		configs: []string{"smtpd.conf", "smtpd.conf"},
		start: func(t *testing.T, program, dir string) {
			foreground(t, program, "-d", "-f", filepath.Join(dir, "smtpd.conf"))
		},
		brokenTLS: true,
	},
}

// TestInteropMailServers hands mail to mail servers that others wrote, and looks at
// what they pass on: nothing was lost or changed on the way, signatures included.
func TestInteropMailServers(t *testing.T) {
	t.Parallel()
	for _, m := range mtas {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			sink, err := smtptest.Listen(smtptest.SinkOptions{NoTLS: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { sink.Close() })
			addr := m.run(t, sink.Addr())
			handOverTo(t, &m, addr, sink)
		})
	}
}

func handOverTo(t *testing.T, m *mta, addr netip.AddrPort, sink *smtptest.Sink) {
	rsaPEM, edPEM := testKeys()
	keys := []*Key{parseKey(t, "acme.example", "r", rsaPEM), parseKey(t, "acme.example", "e", edPEM)}
	signer, err := NewSigner(keys...)
	if err != nil {
		t.Fatal(err)
	}
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	o.Plan, o.Dial, o.Sign = Fixed("mx.nordlys.example", addr, TLSOpportunistic), nil, signer
	d := newDeliverer(t, o)
	defer d.Close()

	sent := make(map[string]bool) // Message-IDs
	for i := range 20 {
		got := attemptTo(t, d, "kari@nordlys.example", sent)
		if got.State != mail.StateAccepted {
			t.Fatalf("message %d: %+v", i, got)
		}
		if secure := got.Evidence.TLS != nil && got.Evidence.TLS.Version != ""; secure == m.brokenTLS {
			t.Errorf("message %d: TLS %+v", i, got.Evidence.TLS)
		}
		if got.Evidence.Reused != (i > 0) {
			t.Errorf("message %d: reused is %v", i, got.Evidence.Reused)
		}
	}
	for _, refusal := range []struct {
		to    mail.Address
		state mail.State
		code  int
	}{
		{"gone@nordlys.example", mail.StateRefused, 550},
		{"full@nordlys.example", mail.StateDelayed, 452},
	} {
		if refusal.state == mail.StateDelayed && !m.defers {
			continue
		}
		got := attemptTo(t, d, refusal.to, nil)
		if got.State != refusal.state || got.Evidence.Reply == nil || got.Evidence.Reply.Code/100 != refusal.code/100 {
			t.Errorf("to %s: %+v", refusal.to, got)
		}
	}
	// Connections survive refusals.
	if got := attemptTo(t, d, "kari@nordlys.example", sent); got.State != mail.StateAccepted || !got.Evidence.Reused {
		t.Errorf("after the refusals: %+v", got)
	}
	abreast(t, d, sent)
	passedOn(t, sink, sent, keys)
}

// abreast hands over from several attempts at once, so that envelopes ride behind dots
// where the server pipelines and is quick.
func abreast(t *testing.T, d *Deliverer, sent map[string]bool) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 20 {
				mine := make(map[string]bool)
				got := attemptTo(t, d, "kari@nordlys.example", mine)
				if got.State != mail.StateAccepted {
					t.Errorf("among others: %+v", got)
					return
				}
				mu.Lock()
				maps.Copy(sent, mine)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func attemptTo(t *testing.T, d *Deliverer, to mail.Address, sent map[string]bool) mail.Outcome {
	t.Helper()
	a := &mail.Attempt{Message: testMessage(), Number: 1}
	a.Message.To = to
	if sent != nil {
		sent["<"+string(a.Message.ID)+"@acme.example>"] = true
	}
	return d.Attempt(t.Context(), a)
}

// passedOn waits until what was sent is in the sink, and verifies its signatures. A
// server may pass on more: OpenSMTPD's queue outlives its process.
func passedOn(t *testing.T, sink *smtptest.Sink, sent map[string]bool, keys []*Key) {
	t.Helper()
	for missing := maps.Clone(sent); ; {
		for got := range sink.Mails() {
			if missing[got.MessageID] {
				delete(missing, got.MessageID)
				intact(t, got.Raw, keys)
			}
		}
		if len(missing) == 0 {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%d of %d mails were not passed on", len(missing), len(sent))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// intact verifies a mail's signatures, and looks at a line that SMTP escapes.
func intact(t *testing.T, raw []byte, keys []*Key) {
	t.Helper()
	verified, err := dkim.VerifyWithOptions(bytes.NewReader(raw), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			for _, k := range keys {
				if k.RecordName() == name {
					return []string{k.Record()}, nil
				}
			}
			return nil, fmt.Errorf("no such record: %s", name)
		},
	})
	if err != nil || len(verified) != len(keys) {
		t.Fatalf("%d signatures, %v:\n%s", len(verified), err, raw)
	}
	for _, v := range verified {
		if v.Err != nil {
			t.Errorf("%v:\n%s", v.Err, raw)
		}
	}
	if !bytes.Contains(raw, []byte("\r\n.a line that begins with a dot\r\n")) {
		t.Errorf("the body was changed:\n%s", raw)
	}
}

// run starts the server on a port of its own, and returns when it greets.
func (m *mta) run(t *testing.T, sink netip.AddrPort) netip.AddrPort {
	t.Helper()
	program := m.program
	if !filepath.IsAbs(program) {
		var err error
		if program, err = filepath.Abs(filepath.Join("..", "bin", "mta", program)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(program); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this needs root, and: make deps; %v", err)
		}
		t.Skip("for this: make deps, and root")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	m.start(t, program, m.prepare(t, program, addr, sink))
	for {
		c, err := net.Dial("tcp", addr.String())
		if err == nil {
			c.Close()
			return addr
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s does not start: %v", m.name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// prepare makes a directory with the server's configuration and certificate.
func (m *mta) prepare(t *testing.T, program string, addr, sink netip.AddrPort) (dir string) {
	t.Helper()
	// Not t.TempDir, whose parent only root may enter.
	dir, err := os.MkdirTemp("", "deliverd-mta-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	values := map[string]any{"Dir": dir, "Program": program, "Port": addr.Port(), "Sink": sink.Port()}
	for i := 0; i < len(m.configs); i += 2 {
		var b bytes.Buffer
		if err := template.Must(template.ParseFiles("testdata/mta/"+m.configs[i])).Execute(&b, values); err != nil {
			t.Fatal(err)
		}
		write(t, dir, m.configs[i+1], b.Bytes(), 0o644)
	}
	cert, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "mx.nordlys.example")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o644)
	write(t, dir, "key.pem", privatePEM(t, cert), 0o600)
	for _, sub := range []string{"data", "spool", "queue"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	uid := userID(t, m.owner)
	for _, name := range []string{"", "data", "spool", "key.pem"} {
		// Postfix reads its key, and keeps its queue, as root.
		if m.name == "Postfix" && name != "data" {
			continue
		}
		if err := os.Chown(filepath.Join(dir, name), uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, dir, name string, text []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), text, mode); err != nil {
		t.Fatal(err)
	}
}

func privatePEM(t *testing.T, cert tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func userID(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("%v: make deps", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func ran(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// foreground runs a server until the test ends.
func foreground(t *testing.T, program string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", program, out.String())
		}
	})
}
