package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// deployed is where the files of an installation are kept.
var deployed = filepath.Join("..", "..", "deploy")

// lacking ends a test that can't run here: it is skipped, and fails where every test
// has to run.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("this needs " + what)
	}
	t.Skip("for this: " + what)
}

// TestDebianPackage builds the package, twice with the same bytes; installs it into a
// directory, uses it, and removes it. What it leaves behind is what was never its own:
// mail. The maintainer's scripts run for real, with the directory as their root. The
// program in it is this test's.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		lacking(t, "dpkg-deb, to build the package")
	}
	dir := t.TempDir()
	build := func(out string) (path string, content []byte) {
		cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(deployed, "debian", "build.sh"), os.Args[0], "v1.2-3-gabc", filepath.Join(dir, out))
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", runAsProgram+"=1")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		printed, err := cmd.Output()
		if err != nil {
			t.Fatalf("build.sh: %v\n%s", err, errs.String())
		}
		path = strings.TrimSpace(string(printed))
		if content, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		return path, content
	}
	deb, first := build("1")
	if _, second := build("2"); !bytes.Equal(first, second) {
		t.Error("the same input makes different packages")
	}
	if got, want := filepath.Base(deb), "deliverd_1.2+3+gabc_"; !strings.HasPrefix(got, want) {
		t.Errorf("it is called %s, want %s…", got, want)
	}
	if os.Geteuid() != 0 {
		lacking(t, "root, to install the package")
	}
	if _, err := exec.LookPath("systemd-sysusers"); err != nil {
		lacking(t, "systemd-sysusers, to install the package: apt-get install systemd")
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"var/lib/dpkg/updates", "var/lib/dpkg/info", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) string {
		return command(t, "dpkg", append([]string{"--root=" + root, "--force-script-chrootless", "--force-depends", "--log=" + filepath.Join(dir, "dpkg.log")}, args...)...)
	}
	at := func(path string) string { return filepath.Join(root, filepath.FromSlash(path)) }
	dpkg("--install", deb)
	if got := command(t, at("usr/bin/deliverd"), "version"); !strings.HasPrefix(got, "deliverd ") {
		t.Errorf("it says it is %q", got)
	}
	command(t, at("usr/bin/deliverd"), "config", "check", at("etc/deliverd/deliverd.toml"))
	for _, path := range []string{"usr/share/man/man1/deliverd.1.gz", "usr/share/man/man1/deliverd-serve.1.gz", "usr/share/bash-completion/completions/deliverd",
		"lib/systemd/system/deliverd.service", "usr/share/doc/deliverd/operate.md", "usr/share/deliverd/alerts.yml"} {
		if _, err := os.Stat(at(path)); err != nil {
			t.Error(err)
		}
	}
	if passwd, err := os.ReadFile(at("etc/passwd")); err != nil || !strings.Contains(string(passwd), "deliverd:") {
		t.Errorf("there is no user of its own: %v\n%s", err, passwd)
	}
	if info, err := os.Stat(at("var/lib/deliverd")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory: %v %v", info, err)
	}

	waiting := at("var/lib/deliverd/waiting")
	if err := os.WriteFile(waiting, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	dpkg("--remove", "deliverd")
	if _, err := os.Stat(at("usr/bin/deliverd")); err == nil {
		t.Error("the program is still there after it was removed")
	}
	if _, err := os.Stat(at("etc/deliverd/deliverd.toml")); err != nil {
		t.Errorf("removing, not purging, took the configuration: %v", err)
	}
	if said := dpkg("--purge", "deliverd"); !strings.Contains(said, "/var/lib/deliverd is left as it is") {
		t.Errorf("purging with mail there says only %q", said)
	}
	if _, err := os.Stat(waiting); err != nil {
		t.Errorf("purging deleted mail: %v", err)
	}
	if _, err := os.Stat(at("etc/deliverd/deliverd.toml")); err == nil {
		t.Error("purging left the configuration")
	}
}

// TestUnits: systemd finds nothing wrong with the units, and the service next to
// nothing exposed.
func TestUnits(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		lacking(t, "systemd-analyze, to verify the units: apt-get install systemd")
	}
	dir := t.TempDir()
	units := []string{"deliverd.service", "deliverd.socket", "deliverd-bounces.socket"}
	var paths []string
	for _, unit := range units {
		text, err := os.ReadFile(filepath.Join(deployed, "systemd", unit))
		if err != nil {
			t.Fatal(err)
		}
		// The program has to exist for verify.
		text = bytes.ReplaceAll(text, []byte("/usr/bin/deliverd"), []byte(os.Args[0]))
		path := filepath.Join(dir, unit)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	if said := command(t, "systemd-analyze", append([]string{"verify", "--man=no"}, paths...)...); said != "" {
		t.Errorf("systemd-analyze verify says\n%s", said)
	}
	// In tenths: 15 is what a service may have that talks to the whole net.
	command(t, "systemd-analyze", "security", "--offline=true", "--threshold=15", paths[0])
}

// command runs a program that has to succeed and returns what it printed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), runAsProgram+"=1") // of no meaning to others
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
