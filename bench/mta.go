package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/template"

	"github.com/deliverd/deliverd/deliver"
)

//go:embed config
var configs embed.FS

// fill writes a configuration.
func fill(name, to string, values any) error {
	t, err := template.ParseFS(configs, "config/"+name)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, values); err != nil {
		return err
	}
	return os.WriteFile(to, b.Bytes(), 0o644)
}

// signingKey writes an RSA-2048 key that a user can read.
func signingKey(path, owner string) error {
	pem, err := deliver.NewKey(deliver.RSA2048)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, pem, 0o600); err != nil {
		return err
	}
	return give(path, owner)
}

func give(path, owner string) error {
	u, err := user.Lookup(owner)
	if err != nil {
		return fmt.Errorf("%w: make deps", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, -1)
}

// postfix is Postfix, with OpenDKIM as its milter.
type postfix struct {
	injection
	text   []byte
	reuse  bool // many mails over one TLS connection: more mail, and later
	dir    string
	milter *exec.Cmd
}

func (p *postfix) name() string {
	if p.reuse {
		return "Postfix with OpenDKIM, RSA"
	}
	return "the same, a TLS connection for each mail"
}

func (p *postfix) start(ctx context.Context, r *rig) error {
	p.dir = r.dir
	port, err := freePort()
	if err != nil {
		return err
	}
	key := filepath.Join(r.dir, "dkim.pem")
	if err := signingKey(key, "opendkim"); err != nil {
		return err
	}
	for sub, owner := range map[string]string{"queue": "root", "data": "postfix", "milter": "opendkim"} {
		if err := os.Mkdir(filepath.Join(r.dir, sub), 0o755); err != nil {
			return err
		}
		if err := give(filepath.Join(r.dir, sub), owner); err != nil {
			return err
		}
	}
	milter := filepath.Join(r.dir, "milter", "socket")
	values := map[string]any{"Dir": r.dir, "Port": port, "Milter": milter, "Reuse": p.reuse, "Sink": r.sink.Addr().Port(), "Key": key}
	for name, to := range map[string]string{"postfix-main.cf": "main.cf", "postfix-master.cf": "master.cf", "opendkim.conf": "opendkim.conf"} {
		if err := fill(name, filepath.Join(r.dir, to), values); err != nil {
			return err
		}
	}
	p.milter = r.group.command("/usr/sbin/opendkim", "-f", "-x", filepath.Join(r.dir, "opendkim.conf"))
	p.milter.Stderr = os.Stderr
	if err := p.milter.Start(); err != nil {
		return err
	}
	if err := listening(ctx, "unix", milter); err != nil {
		p.stop()
		return fmt.Errorf("opendkim: %w", err)
	}
	if out, err := r.group.command("/usr/sbin/postfix", "-c", r.dir, "start").CombinedOutput(); err != nil {
		p.stop()
		return fmt.Errorf("postfix start: %w: %s", err, out)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p.open(addr, p.text)
	return listening(ctx, "tcp", addr)
}

func (p *postfix) stop() {
	p.close()
	_ = exec.Command("/usr/sbin/postfix", "-c", p.dir, "stop").Run() // it may not have started
	_ = p.milter.Process.Kill()
	_ = p.milter.Wait()
}

// exim is Exim, which signs by itself.
type exim struct {
	injection
	program string
	text    []byte
	daemon  *exec.Cmd
}

func (e *exim) name() string { return "Exim, RSA" }

func (e *exim) start(ctx context.Context, r *rig) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	program, err := filepath.Abs(e.program)
	if err != nil {
		return err
	}
	key := filepath.Join(r.dir, "dkim.pem")
	if err := signingKey(key, "Debian-exim"); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(r.dir, "spool"), 0o755); err != nil {
		return err
	}
	for _, path := range []string{r.dir, filepath.Join(r.dir, "spool")} {
		if err := give(path, "Debian-exim"); err != nil {
			return err
		}
	}
	config := filepath.Join(r.dir, "exim.conf")
	values := map[string]any{"Dir": r.dir, "Program": program, "Port": port, "Sink": r.sink.Addr().Port(), "Key": key}
	if err := fill("exim.conf", config, values); err != nil {
		return err
	}
	e.daemon = r.group.command(program, "-C", config, "-bdf", "-q1m")
	if err := e.daemon.Start(); err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	e.open(addr, e.text)
	return listening(ctx, "tcp", addr)
}

func (e *exim) stop() {
	e.close()
	_ = e.daemon.Process.Signal(os.Interrupt)
	_ = e.daemon.Wait()
}

// versions says what is compared.
func versions(o options) string {
	line := func(program string, args ...string) string {
		out, _ := exec.Command(program, args...).CombinedOutput() // what it said says it
		for text := range strings.Lines(string(out)) {
			if strings.Contains(strings.ToLower(text), "version") || !strings.Contains(program, "exim") {
				return strings.TrimSpace(text)
			}
		}
		return "?"
	}
	return strings.Join([]string{line(o.program, "version"), "Postfix " + line("postconf", "-dh", "mail_version"),
		strings.TrimPrefix(line("/usr/sbin/opendkim", "-V"), "opendkim: "), line(o.exim, "-bV")}, "; ")
}

// machine says what it ran on, and what else did.
func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, model, _ := strings.Cut(string(info), "model name")
	model, _, _ = strings.Cut(strings.TrimLeft(model, "\t :"), "\n")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d cores, %s; load over the last 1, 5, 15 minutes: %s", runtime.NumCPU(), model, strings.Join(strings.Fields(string(load))[:3], ", "))
}
