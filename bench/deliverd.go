package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/deliver"
)

// deliverd is configured as in production, with the sink as its relay.
type deliverd struct {
	program, label string
	keys           int // 1: RSA alone
	process        *exec.Cmd
	client         *client.Client
}

func (d *deliverd) name() string { return d.label }

func (d *deliverd) start(ctx context.Context, r *rig) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	var b strings.Builder
	fmt.Fprintf(&b, `data = %q
[listen]
http = %q
[send]
hello = "mail.acme.example"
from = "Acme <no-reply@acme.example>"
return_path_domain = "bounce.acme.example"
relay = %q
[limits]
per_tenant = 0
per_recipient = 0
`, filepath.Join(r.dir, "data"), listen, r.sink.Addr().String())
	for i, alg := range []deliver.Algorithm{deliver.RSA2048, deliver.Ed25519}[:d.keys] {
		pem, err := deliver.NewKey(alg)
		if err != nil {
			return err
		}
		file := filepath.Join(r.dir, fmt.Sprintf("%d.pem", i))
		if err := os.WriteFile(file, pem, 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&b, "[[dkim]]\ndomain = \"acme.example\"\nselector = \"s%d\"\nkey = %q\n", i, "file:"+file)
	}
	config := filepath.Join(r.dir, "deliverd.toml")
	if err := os.WriteFile(config, []byte(b.String()), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(r.dir, "log")) // on the disk, as the others' logs
	if err != nil {
		return err
	}
	defer log.Close()
	d.process = r.group.command(d.program, "serve", "-c", config)
	d.process.Stderr = log
	if err := d.process.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + listen + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) || ctx.Err() != nil {
			d.stop()
			return fmt.Errorf("it does not start: %v", err)
		}
	}
	token, err := os.ReadFile(filepath.Join(r.dir, "data", "local.token"))
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256
	d.client, err = client.New("http://"+listen, client.Token(strings.TrimSpace(string(token))), client.HTTPClient(&http.Client{Transport: transport}))
	return err
}

func (d *deliverd) send(ctx context.Context, _ int, to string, urgent bool) error {
	m := client.Message{Kind: "invite", To: to, ToName: "Kari Nordmann", Tenant: "4711", TenantName: "Nordlys Oy", PersonID: to, Locale: "en",
		Data: map[string]any{"link": "https://login.acme.example/i/0123456789abcdef0123456789abcdef", "inviter": "Lars"}}
	if urgent {
		m = client.Message{Kind: "pin", To: to, Tenant: "4711", Data: map[string]any{"code": "482913"}}
	}
	_, err := d.client.Send(ctx, m)
	return err
}

func (d *deliverd) stop() {
	_ = d.process.Process.Signal(syscall.SIGKILL) // its data are of no use any more
	_ = d.process.Wait()
}

// sampleMail is an invite as deliverd sends it, without its signatures: what the others
// are given to send.
func sampleMail(ctx context.Context, o options) ([]byte, error) {
	r, err := newRig("sample")
	if err != nil {
		return nil, err
	}
	defer r.close()
	d := &deliverd{program: o.program, keys: 1}
	if err := d.start(ctx, r); err != nil {
		return nil, err
	}
	defer d.stop()
	const to = "kari.nordmann@company0.example"
	if err := d.send(ctx, 0, to, false); err != nil {
		return nil, err
	}
	if _, err := r.arrival(ctx, to); err != nil {
		return nil, err
	}
	head, body, ok := bytes.Cut(r.sample, []byte("\r\n\r\n"))
	if !ok {
		return nil, fmt.Errorf("the sample has no body")
	}
	var kept []string
	signature := false
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			signature = strings.HasPrefix(line, "DKIM-Signature:")
		}
		if !signature {
			kept = append(kept, line)
		}
	}
	return []byte(strings.Join(kept, "\r\n") + "\r\n\r\n" + string(body)), nil
}
