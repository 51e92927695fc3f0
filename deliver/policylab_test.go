package deliver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
	"github.com/deliverd/deliverd/mail"
)

// issuer makes certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{cert: cert, key: key, pool: x509.NewCertPool()}
	i.pool.AddCert(cert)
	return i
}

// issue makes a certificate that is valid until left from now, and sends its issuer's
// along, as a server with DANE-TA must (RFC 7671 5.2.2).
func (i *issuer) issue(t *testing.T, left time.Duration, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(left - 90*24*time.Hour), NotAfter: time.Now().Add(left), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, i.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

// policyLab is a domain, dest.example, with real servers: DNS, the policy's host, and
// a mail server for each address.
type policyLab struct {
	t        *testing.T
	dns      *dnstest.Server
	resolver *dnscheck.Resolver
	finder   *tlspolicy.Finder
	network  map[string]string // "192.0.2.1:25" → where it really is
	issuer   *issuer
	seen     *tlspolicy.Seen
	store    tlspolicy.Store

	mu       sync.Mutex
	policy   http.HandlerFunc
	fetched  int
	sessions []tlspolicy.Session
}

const policyZone = `
dest.example.         MX 10 mx1.dest.example.
mx1.dest.example.     A  192.0.2.1
mx2.dest.example.     A  192.0.2.2
mta-sts.dest.example. A  192.0.2.80
`

const announcedPolicy = "_mta-sts.dest.example. TXT \"v=STSv1; id=1\"\n"

func newPolicyLab(t *testing.T, server, zone string, faults ...dnstest.Fault) *policyLab {
	t.Helper()
	l := &policyLab{t: t, network: map[string]string{}, issuer: newIssuer(t), seen: tlspolicy.NewSeen(nil, slog.New(slog.DiscardHandler)), store: &mapStore{values: map[string][]byte{}}}
	var err error
	if l.dns, err = dnstest.New(policyZone+zone, faults...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.dns.Close() })
	l.resolver, err = dnscheck.NewResolver(dnscheck.ResolverOptions{Servers: []string{server}, Dial: l.dns.Dial, Try: 100 * time.Millisecond, Total: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	cert := l.issuer.issue(t, time.Hour, "mta-sts.dest.example")
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		answer := l.policy
		l.fetched++
		l.mu.Unlock()
		answer(w, r)
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	web.StartTLS()
	t.Cleanup(web.Close)
	l.network["192.0.2.80:443"] = web.Listener.Addr().String()
	l.finder = &tlspolicy.Finder{Associations: l.resolver.Associations}
	l.restart()
	return l
}

// restart makes a memory of policies that knows nothing but what is in the store.
func (l *policyLab) restart() {
	l.finder.STS = tlspolicy.NewSTS(l.resolver, dnscheck.Web{Dial: l.dial, Roots: l.issuer.pool}, l.store, slog.New(slog.DiscardHandler))
	l.t.Cleanup(l.finder.STS.Close)
}

func (l *policyLab) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	to, ok := l.network[addr]
	if !ok {
		return nil, fmt.Errorf("%s was dialled, and must not be", addr)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to)
}

// serve puts a mail server at an address.
func (l *policyLab) serve(addr string, o smtptest.SinkOptions) *smtptest.Sink {
	l.t.Helper()
	sink, err := smtptest.Listen(o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { sink.Close() })
	l.network[addr] = sink.Addr().String()
	return sink
}

// announce makes the domain's policy host say a policy.
func (l *policyLab) announce(text string) {
	l.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, text)
	})
}

func (l *policyLab) answer(h http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.policy = h
}

func (l *policyLab) attempt(floor mail.TLSFloor) mail.Outcome {
	l.t.Helper()
	o := testOptions(l.t, nil, Plan{})
	o.Dial, o.RootCAs, o.Seen = l.dial, l.issuer.pool, l.seen
	o.Plan = ByMX(l.resolver.Route, l.finder.Find)
	o.Floor = func(string) mail.TLSFloor { return floor }
	o.Sessions = func(s tlspolicy.Session) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sessions = append(l.sessions, s)
	}
	d := newDeliverer(l.t, o)
	defer d.Close()
	return d.Attempt(l.t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
}

func stsPolicy(mode string, age int, mx ...string) string {
	return fmt.Sprintf("version: STSv1\r\nmode: %s\nmx: %s\r\nmax_age: %d\r\n", mode, strings.Join(mx, "\nmx: "), age)
}

// mapStore is a store that outlives who uses it.
type mapStore struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (s *mapStore) Get(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.values[key]; ok {
		return v, nil
	}
	return nil, fmt.Errorf("no %s", key)
}

func (s *mapStore) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value
	return nil
}

func (s *mapStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *mapStore) All(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]byte{}
	for k, v := range s.values {
		all[k] = v
	}
	return all, nil
}
