package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// labDomain is a signed domain with DANE and MTA-STS; %x is its server's key.
const labDomain = `
good.example.  MX  10 mx.good.example.
mx.good.example.  A  192.0.2.25
_25._tcp.mx.good.example. TLSA 3 1 1 %x
_mta-sts.good.example. TXT "v=STSv1; id=1"
mta-sts.good.example. A 192.0.2.80
_smtp._tls.good.example. TXT "v=TLSRPTv1; rua=mailto:t@good.example"
good.example. TXT "v=spf1 mx -all"
_dmarc.good.example. TXT "v=DMARC1; p=reject; rua=mailto:d@good.example"
`

// The policy host and the exchangers are reached through the lab's ports, whatever
// their addresses, and their certificates are judged by SSL_CERT_FILE.
func TestCheckThroughTheLab(t *testing.T) {
	t.Parallel()
	cert, err := smtptest.SelfSigned(time.Now().Add(24*time.Hour), "mta-sts.good.example", "mx.good.example")
	if err != nil {
		t.Fatal(err)
	}
	var policy atomic.Value
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "mta-sts.good.example" || r.URL.Path != "/.well-known/mta-sts.txt" {
			t.Errorf("asked for %s %s", r.Host, r.URL)
		}
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, policy.Load())
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	web.StartTLS()
	defer web.Close()
	sink, err := smtptest.Listen(smtptest.SinkOptions{Certificate: &cert})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	key := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
	dns, err := dnstest.Start(fmt.Sprintf(labDomain, key), dnstest.Fault{Name: "*", Do: dnstest.Secure})
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	dir := t.TempDir()
	roots, config := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "deliverd.toml")
	for file, text := range map[string][]byte{
		roots:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw}),
		config: fmt.Appendf(nil, "[dns]\nservers = [%q]\n[lab]\ndial = { \":25\" = %q, \":443\" = %q }\n", dns.Addr, sink.Addr(), web.Listener.Addr()),
	} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(sts string, roots string, args ...string) (report dnscheck.Report, codes []string) {
		policy.Store("version: STSv1\nmode: enforce\nmx: " + sts + "\nmax_age: 86400\n")
		cmd := program(t.Context(), append([]string{"-c", config, "check", "good.example", "--json", "--smtp"}, args...)...)
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+roots, "SSL_CERT_DIR="+dir+"/none")
		out, _ := cmd.Output()
		if err := json.Unmarshal(out, &report); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, f := range report.Findings {
			codes = append(codes, f.Code)
		}
		slices.Sort(codes)
		return report, codes
	}
	report, codes := check("mx.good.example", roots)
	if want := []string{"dane.ok", "dnssec.signed"}; !slices.Equal(codes, want) || report.Verdict != dnscheck.Arrives || report.Facts["mtasts.mode"] != "enforce" {
		t.Errorf("%s: found %v, want %v", report.Verdict, codes, want)
	}
	if talks := report.SMTP; len(talks) != 1 || !talks[0].Reached || !talks[0].STARTTLS || talks[0].TLS != "TLS 1.3, TLS_AES_128_GCM_SHA256" || talks[0].Refused != "" {
		t.Errorf("%+v", talks)
	}
	if sink.Stats().Accepted != 0 {
		t.Error("the firewall test delivers mail")
	}
	if _, codes := check("mx.other.example", roots); !slices.Contains(codes, "mtasts.mx_mismatch") {
		t.Errorf("found %v", codes)
	}
	if _, codes := check("mx.good.example", filepath.Join(dir, "none.pem")); !slices.Contains(codes, "mtasts.cert_invalid") {
		t.Errorf("found %v", codes)
	}
}

// Results come in the order of the inputs, however long each takes, and no more are
// worked on at once than may be.
func TestInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var under, most atomic.Int64
		numbers := func(yield func(string) bool) {
			for i := range 2000 {
				if !yield(strconv.Itoa(i)) {
					return
				}
			}
		}
		work := func(ctx context.Context, s string) string {
			n := under.Add(1)
			defer under.Add(-1)
			if n > most.Load() {
				most.Store(n)
			}
			i, _ := strconv.Atoi(s)
			wait := time.Duration(i*7919%50) * time.Millisecond
			if i%500 == 0 {
				wait = 5 * time.Second
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			return s
		}
		began, want := time.Now(), 0
		for got := range inOrder(t.Context(), iter.Seq[string](numbers), work) {
			if got != strconv.Itoa(want) {
				t.Fatalf("got %s, want %d", got, want)
			}
			want++
		}
		if want != 2000 || most.Load() != abreast {
			t.Errorf("%d results, %d at once", want, most.Load())
		}
		// Four slow ones, and a 32nd of the rest: nearly all goes on beside them.
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("took %v", took)
		}
		for got := range inOrder(t.Context(), iter.Seq[string](numbers), work) {
			if got == "3" {
				break // whatever is under way ends, or the bubble would say so
			}
		}
	})
}

// Work of more than a second says so on standard error, and nothing else does.
func TestCheckProgress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		in   string
		took time.Duration
		want string
	}{
		{[]string{"a.example"}, "", 900 * time.Millisecond, ""},
		{[]string{"a.example"}, "", 2500 * time.Millisecond, "checking a.example ...\n"},
		{[]string{"a.example", "b.example"}, "", 1500 * time.Millisecond, "0 domains checked\n"},
		{[]string{"-"}, strings.Repeat("a.example\n", 3*abreast), 2500 * time.Millisecond, "0 domains checked\n64 domains checked\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out, errs strings.Builder
			run := checkRun{
				ui: &ui{in: strings.NewReader(c.in), out: &out, err: &errs}, flags: &checkFlags{failOn: "fail"},
				check: func(_ context.Context, domain string) dnscheck.Report {
					time.Sleep(c.took)
					return dnscheck.Report{Domain: domain, Verdict: dnscheck.Arrives}
				},
			}
			if err := run.all(t.Context(), c.args); err != nil {
				t.Error(err)
			}
			if errs.String() != c.want {
				t.Errorf("%q for %v says %q, want %q", c.args, c.took, errs.String(), c.want)
			}
		})
	}
}

func TestCheckStatus(t *testing.T) {
	t.Parallel()
	report := func(v dnscheck.Verdict, states ...dnscheck.State) *dnscheck.Report {
		r := &dnscheck.Report{Verdict: v}
		for _, s := range states {
			r.Findings = append(r.Findings, dnscheck.Finding{State: s})
		}
		return r
	}
	for _, c := range []struct {
		failOn string
		report *dnscheck.Report
		want   int
	}{
		{"fail", report(dnscheck.Arrives), 0},
		{"fail", report(dnscheck.Arrives, dnscheck.StateWarn, dnscheck.StateInfo, dnscheck.StateOK, dnscheck.StateUnknown), 0},
		{"fail", report(dnscheck.Arrives, dnscheck.StateInfo, dnscheck.StateFail), exitFailed},
		{"warn", report(dnscheck.Arrives, dnscheck.StateInfo), 0},
		{"warn", report(dnscheck.Arrives, dnscheck.StateWarn), exitFailed},
		{"warn", report(dnscheck.Arrives, dnscheck.StateFail), exitFailed},
		{"info", report(dnscheck.Arrives, dnscheck.StateInfo), exitFailed},
		{"info", report(dnscheck.Arrives, dnscheck.StateOK), 0},
		{"fail", report(dnscheck.Unknown, dnscheck.StateUnknown), exitNotFound},
		{"fail", report(dnscheck.Unknown, dnscheck.StateFail), exitNotFound},
		{"fail", report(dnscheck.Undeliverable, dnscheck.StateFail), exitFailed},
	} {
		run := checkRun{flags: &checkFlags{failOn: c.failOn}, failOn: true}
		if got := run.status(c.report); got != c.want {
			t.Errorf("--fail-on %s, %s %v: %d, want %d", c.failOn, c.report.Verdict, c.report.Findings, got, c.want)
		}
	}
	for _, c := range [][3]int{{0, exitNotFound, exitNotFound}, {exitNotFound, exitFailed, exitFailed}, {exitFailed, exitNotFound, exitFailed}, {0, 0, 0}} {
		if got := worse(c[0], c[1]); got != c[2] {
			t.Errorf("worse(%d, %d) = %d", c[0], c[1], got)
		}
	}
}
