package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestFullDisk fills a small disk of its own. New mail is refused, clearly, and what
// was taken is safe; when there is space again, all goes on by itself (F16).
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root can mount a disk, and CI has to run this")
		}
		t.Skip("only root can mount a disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "size=32m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no disk of its own, and CI has to run this: %v", err)
		}
		t.Skipf("no disk of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d, sink := open(t, smtptest.SinkOptions{Ledger: true, Keep: -1}, func(c *Config) { c.Data = dir })
	d.start("store watch of the test", func(ctx context.Context) { d.tendStore(ctx, 100*time.Millisecond, 2*time.Second, 8<<20) })
	var ids []mail.ID
	take := func() error {
		r, err := d.submit(t.Context(), anInvite("4711", fmt.Sprintf("kari%d@nordlys.example", len(ids))))
		if err == nil {
			ids = append(ids, r.ID)
		}
		return err
	}
	for range 10 {
		if err := take(); err != nil {
			t.Fatal(err)
		}
	}

	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	var err error
	for range 1000 { // there is some room left in blocks that are half full
		if err = take(); err != nil {
			break
		}
	}
	if p, ok := errors.AsType[*mail.Problem](err); !ok || p.Type != mail.ProblemUnavailable || p.Status != http.StatusServiceUnavailable || p.RetryAfter == 0 || p.Detail == "" {
		t.Fatalf("on a full disk: %v", err)
	}
	waitFor(t, "it was not ready", func() bool {
		status, _ := d.call(t, "", "GET", "/readyz", "")
		return status == http.StatusServiceUnavailable
	})

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	// Who balances load sends nothing until it says so.
	waitFor(t, "it was ready again", func() bool { status, _ := d.call(t, "", "GET", "/readyz", ""); return status == http.StatusOK })
	waitFor(t, "mail was taken again", func() bool { return take() == nil })
	d.settled(t, sink, ids)
}

// fill writes until nothing more fits.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 64<<10); len(piece) > 0; {
		if _, err := f.Write(piece); errors.Is(err, unix.ENOSPC) {
			piece = piece[:len(piece)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
