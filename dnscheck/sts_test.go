package dnscheck

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pipes is a listener in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// eager is a connection whose writes don't wait for the reader. Over an
// unbuffered pipe, two sides that say goodbye at once wait for each other, and
// net/http's server does so with a mutex held, which no virtual clock gets past.
type eager struct {
	net.Conn
	mu     sync.Mutex
	out    chan []byte
	closed bool
}

func newEager(conn net.Conn) *eager {
	e := &eager{Conn: conn, out: make(chan []byte, 1<<15)}
	go func() {
		defer conn.Close()
		for p := range e.out {
			if _, err := conn.Write(p); err != nil {
				return
			}
		}
	}()
	return e
}

func (e *eager) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || len(e.out) == cap(e.out) {
		return 0, net.ErrClosed
	}
	e.out <- slices.Clone(p)
	return len(p), nil
}

func (e *eager) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		close(e.out)
	}
	return e.Conn.SetDeadline(time.Now().Add(time.Second))
}

// crypto/tls closes with a deadline that has passed, which is not for what was
// written before.
func (e *eager) SetWriteDeadline(time.Time) error  { return nil }
func (e *eager) SetDeadline(until time.Time) error { return e.SetReadDeadline(until) }

// authority issues certificates that are valid at any time a test may take place
// in.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(t *testing.T, name string, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Unix(0, 0), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}
}

// policyHost serves h over TLS in memory and returns how to get there.
func policyHost(t *testing.T, a *authority, cert tls.Certificate, h http.HandlerFunc) Web {
	t.Helper()
	listener := make(pipes)
	server := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}}))
	}()
	t.Cleanup(func() {
		close(listener)
		server.Close()
		<-done
		time.Sleep(10 * time.Second) // of no real time, for all goodbyes to end
	})
	return Web{Roots: a.pool, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, conn := net.Pipe()
		listener <- newEager(conn)
		return client, nil
	}}
}

const forever = 1 << 33

// B08, B09: whatever the policy host does, the check ends and says what it was.
func TestB08PolicyHost(t *testing.T) {
	const text = "version: STSv1\nmode: enforce\nmx: mx1.good.example\nmx: *.good.example\nmax_age: 86400\n"
	answer := func(kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "mta-sts.good.example" || r.URL.Path != "/.well-known/mta-sts.txt" || r.Header.Get("Accept-Encoding") != "" {
				http.Error(w, "not what was asked for", http.StatusTeapot)
				return
			}
			w.Header().Set("Content-Type", kind)
			io.WriteString(w, body)
		}
	}
	plain := func(body string) http.HandlerFunc { return answer("text/plain; charset=utf-8", body) }
	tests := []struct {
		name    string
		want    string
		info    string
		verdict Verdict
		handler http.HandlerFunc
	}{
		{"enforce", "", "", Arrives, plain(text)},
		{"CRLF", "", "", Arrives, plain(strings.ReplaceAll(text, "\n", "\r\n"))},
		{"testing", "", "mtasts.mode_testing", Arrives, plain(strings.Replace(text, "enforce", "testing", 1))},
		{"none", "", "", Arrives, plain("version: STSv1\nmode: none\nmax_age: 86400\n")},
		{"one exchanger left out", "mtasts.mx_mismatch", "", Arrives, plain(strings.Replace(text, "mx: *.good.example\n", "", 1))},
		{"all exchangers left out", "mtasts.mx_mismatch", "", Held, plain(strings.ReplaceAll(text, "good.example", "other.example"))},
		{"left out in testing", "mtasts.mx_mismatch", "mtasts.mode_testing", Arrives, plain(strings.ReplaceAll(strings.Replace(text, "enforce", "testing", 1), "good.example", "other.example"))},
		{"404", "mtasts.policy_unreachable", "", Arrives, http.NotFound},
		{"redirect", "mtasts.redirect", "", Arrives, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1/internal", http.StatusFound)
		}},
		{"html", "mtasts.policy_syntax", "", Arrives, answer("text/html", text)},
		{"10 MB", "mtasts.policy_syntax", "", Arrives, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for range 10 << 10 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}},
		{"endless headers", "mtasts.policy_unreachable", "", Arrives, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, text)
		}},
		{"slow", "mtasts.policy_unreachable", "", Arrives, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			for range 1000 {
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
					panic(http.ErrAbortHandler) // returning would end the body well
				}
			}
		}},
		{"gzip", "mtasts.policy_syntax", "", Arrives, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.WriteString(z, text)
			z.Close()
		}},
		{"not a policy", "mtasts.policy_syntax", "", Arrives, plain("hello\n")},
	}
	const records = "_mta-sts.good.example. TXT \"v=STSv1; id=20260101\"\n_smtp._tls.good.example. TXT \"v=TLSRPTv1; rua=mailto:t@good.example\"\nmta-sts.good.example. A 192.0.2.3\n"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a := newAuthority(t)
				web := policyHost(t, a, a.issue(t, "mta-sts.good.example", time.Unix(forever, 0)), tt.handler)
				report, _ := checkZone(t, zoneWith(records), Options{Web: web})
				if got := said(report, StateInfo); !slices.Equal(got, strings.Fields(tt.want)) {
					t.Errorf("found %v, want %v", got, tt.want)
				}
				if got := said(report, StateFail, StateWarn, StateUnknown); !slices.Equal(got, strings.Fields(tt.info)) {
					t.Errorf("info %v, want %v", got, tt.info)
				}
				if report.Verdict != tt.verdict {
					t.Errorf("%s: %s", report.Verdict, report.Summary)
				}
			})
		})
	}
	for name, cert := range map[string]func(t *testing.T, a *authority) tls.Certificate{
		"other name": func(t *testing.T, a *authority) tls.Certificate {
			return a.issue(t, "www.good.example", time.Unix(forever, 0))
		},
		"expired": func(t *testing.T, a *authority) tls.Certificate {
			return a.issue(t, "mta-sts.good.example", time.Unix(1000, 0))
		},
		"unknown authority": func(t *testing.T, _ *authority) tls.Certificate {
			return newAuthority(t).issue(t, "mta-sts.good.example", time.Unix(forever, 0))
		},
	} {
		t.Run("certificate: "+name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a := newAuthority(t)
				report, _ := checkZone(t, zoneWith(records), Options{Web: policyHost(t, a, cert(t, a), plain(text))})
				if got := said(report); !slices.Equal(got, []string{"mtasts.cert_invalid"}) {
					t.Errorf("found %v", got)
				}
			})
		})
	}
	t.Run("inside address", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			web := Web{Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
				t.Errorf("dialled %s", addr)
				return nil, errors.New("no")
			}}
			report, _ := checkZone(t, zoneWith(strings.Replace(records, "192.0.2.3", "169.254.169.254", 1)), Options{Web: web})
			if got := said(report); !slices.Equal(got, []string{"mtasts.policy_unreachable"}) {
				t.Errorf("found %v", got)
			}
		})
	})
}

// B11: bounds and oddities of the policy file.
func TestB11ParseSTSPolicy(t *testing.T) {
	t.Parallel()
	policy := func(mode, age, more string) string {
		return fmt.Sprintf("version: STSv1\nmode: %s\nmx: mx.example.com\nmax_age: %s\n%s", mode, age, more)
	}
	for text, want := range map[string]string{
		policy("enforce", "604800", ""):                  "enforce [mx.example.com] 168h0m0s",
		policy("enforce", "604800", "future: x\n\n"):     "enforce [mx.example.com] 168h0m0s",
		policy("enforce", "31557600", ""):                "enforce [mx.example.com] 8766h0m0s",
		policy("enforce", "9999999999", ""):              "enforce [mx.example.com] 8766h0m0s",
		policy("enforce", "0", ""):                       "enforce [mx.example.com] 0s",
		policy("enforce", "60", "mode: none\n"):          "enforce [mx.example.com] 1m0s",
		policy("enforce", "60", "mx: *.Example.NET\r\n"): "enforce [mx.example.com *.example.net] 1m0s",
		policy("enforce", "-1", ""):                      "",
		policy("enforce", "1e3", ""):                     "",
		policy("enforce", "99999999999999999999", ""):    "",
		policy("strict", "60", ""):                       "",
		policy("enforce", "60", "mx: 1.2.*.example\n"):   "",
		policy("enforce", "60", "mx: a\x00b.example\n"):  "",
		policy("enforce", "60", "hello\n"):               "",
		"mode: enforce\nmx: a.example\nmax_age: 60\n":    "",
		"version: STSv1\nmode: enforce\nmax_age: 60\n":   "",
		"version: STSv2\nmode: none\nmax_age: 60\n":      "",
		"": "",
	} {
		p, err := ParseSTSPolicy(text)
		got := ""
		if err == nil {
			got = fmt.Sprint(p.Mode, " ", p.MX, " ", p.MaxAge)
		}
		if got != want {
			t.Errorf("%q: %q (%v), want %q", text, got, err, want)
		}
	}
}

// B09: a wildcard stands for one label.
func TestB09STSCovers(t *testing.T) {
	t.Parallel()
	p := STSPolicy{MX: []string{"mx.example.com", "*.x.example"}}
	for host, want := range map[string]bool{
		"mx.example.com": true, "MX.Example.com": true, "a.mx.example.com": false, "example.com": false,
		"a.x.example": true, "a.b.x.example": false, "x.example": false, "*.x.example": true, "ax.example": false,
	} {
		if p.Covers(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

func FuzzParseSTSPolicy(f *testing.F) {
	f.Add("version: STSv1\r\nmode: enforce\r\nmx: *.example.com\r\nmax_age: 604800\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseSTSPolicy(text)
		if err == nil && (p.MaxAge < 0 || p.MaxAge > maxSTSAge || p.Mode != "none" && len(p.MX) == 0) {
			t.Errorf("%+v", p)
		}
	})
}
