package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/deliverd/deliverd/cmd/deliverd/signals"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
)

// TestEveryMetricIsMade: the daemon has every metric of the list.
func TestEveryMetricIsMade(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, nil)
	for _, m := range signals.Metrics() {
		if d.metrics.made[m.Name] == nil {
			t.Errorf("nothing makes %s", m.Name)
		}
	}
}

// TestGauges: what alarms of the host, the desk, and the keys stand on, with values of
// what is there.
func TestGauges(t *testing.T) {
	t.Parallel()
	ends := time.Now().Add(90 * 24 * time.Hour)
	d, _ := open(t, smtptest.SinkOptions{}, func(c *Config) {
		c.Listen.Bounces = "127.0.0.1:0"
		c.Bounces.Certificate, c.Bounces.Key = selfSigned(t, ends)
	})
	now := time.Now().UTC()
	for _, name := range []string{
		now.Add(-3*time.Hour).Format(deskTime) + "-abuse.msg_0195.eml", now.Add(-2*time.Hour).Format(deskTime) + "-abuse.eml",
		now.Add(-time.Hour).Format(deskTime) + "-postmaster.eml", now.Format(deskTime) + "-postmaster.refused.eml",
	} {
		if err := os.WriteFile(d.config.dataFile(postmasterKind, name), []byte("Subject: hello\r\n\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := d.config.ChangeRotations(func(r Rotations) (bool, error) {
		r["acme.example"] = &deliver.Rotation{Generations: []deliver.Generation{{Phase: deliver.PhaseRevoke, UnusedAt: now.Add(-40 * 24 * time.Hour)}}}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for series, want := range map[string][2]float64{ // at least, at most
		`deliverd_store_writable`:                          {1, 1},
		`deliverd_data_free_bytes`:                         {1, 1e18},
		`deliverd_data_size_bytes`:                         {1, 1e18},
		`deliverd_view_behind_events`:                      {0, 0},
		`deliverd_bounce_listener_up`:                      {1, 1},
		`deliverd_certificate_expiry_timestamp_seconds`:    {float64(ends.Unix()), float64(ends.Unix())},
		`deliverd_postmaster_mails{state="waiting"}`:       {2, 2},
		`deliverd_postmaster_mails{state="sent"}`:          {1, 1},
		`deliverd_postmaster_mails{state="undelivered"}`:   {1, 1},
		`deliverd_postmaster_oldest_seconds`:               {0, 0}, // nobody is named to pass it on to
		`deliverd_dkim_held_domains`:                       {1, 1},
		`deliverd_dkim_generation_seconds{phase="revoke"}`: {40 * 24 * 3600, 40*24*3600 + 3600},
		`deliverd_build_info{version="test"}`:              {1, 1},
		`deliverd_tls_downgrades_total`:                    {0, 0},
	} {
		text, _ := d.metric(t, series)
		if v, err := strconv.ParseFloat(text, 64); err != nil || v < want[0] || v > want[1] {
			t.Errorf("%s is %q, want %v to %v", series, text, want[0], want[1])
		}
	}
	passing := *d.config // what waits to be passed on grows old; the desk itself stays as it is
	passing.Bounces.Postmaster = "it@nordlys.example"
	var oldest float64
	gauges{d: &Daemon{config: &passing}}.postmaster(now, func(name string, v float64, _ ...string) {
		if name == "deliverd_postmaster_oldest_seconds" {
			oldest = v
		}
	})
	if oldest != (2 * time.Hour).Seconds() {
		t.Errorf("the oldest mail to postmaster is told to be %v s old", oldest)
	}
}

// selfSigned makes a certificate that is good until a time, as files.
func selfSigned(t *testing.T, until time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: until, DNSNames: []string{"mail.acme.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}
