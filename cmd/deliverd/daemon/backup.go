package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/deliverd/deliverd/cmd/deliverd/backup"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/mail"
)

// backupWrite is how long whoever fetches a backup may take to take some KiB of it.
const backupWrite = time.Minute

// backupRoutes hand out a copy of the store, one at a time: each reads all there is.
func (d *Daemon) backupRoutes() []console.Route {
	slot := make(chan struct{}, 1)
	return []console.Route{{
		Method: "GET", Pattern: "/v1/backup", Scope: console.ScopeAdmin,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if by := console.PrincipalFrom(r.Context()); !slices.Contains(by.Tenants, console.AllTenants) {
				writeProblem(w, &mail.Problem{Type: mail.ProblemNotAllowed, Title: "Not allowed", Status: http.StatusForbidden,
					Detail: "A backup holds every tenant's mail: it takes a token for all of them."})
				return
			}
			select {
			case slot <- struct{}{}:
				defer func() { <-slot }()
			default:
				writeProblem(w, &mail.Problem{Type: mail.ProblemRateLimited, Title: "A backup is under way",
					Status: http.StatusTooManyRequests, Detail: "Try again when it is done.", RetryAfter: 60})
				return
			}
			d.backup(w, r)
		}),
	}}
}

func (d *Daemon) backup(w http.ResponseWriter, r *http.Request) {
	by := console.PrincipalFrom(r.Context())
	d.serviceLog.Note(console.LogEntry{Act: "backup", By: by.Name, ByID: by.ID, Via: by.Via, Detail: "a copy of the store was begun"})
	w.Header().Set("Content-Type", "application/x-tar")
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // the request is read, and its answer may take an hour
	err := backup.Take(r.Context(), d.nc, patient{w, c}, d.version)
	if err == nil {
		return
	}
	if !errors.Is(err, context.Canceled) {
		d.log.Error("a backup broke off", "error", err)
	}
	panic(http.ErrAbortHandler) // the client must not take it for whole
}

// patient gives every write a time of its own.
type patient struct {
	w io.Writer
	c *http.ResponseController
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.c.SetWriteDeadline(time.Now().Add(backupWrite))
	return p.w.Write(b)
}

// BackupOffline copies the store in the data directory of a daemon that does not run.
func BackupOffline(ctx context.Context, dir string, w io.Writer, version string) error {
	unlock, err := lockExisting(dir)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := startEmbedded(dir, "", 0, "", discard)
	if err != nil {
		return err
	}
	defer e.stop()
	nc, err := connect(e, "", "", discard)
	if err != nil {
		return err
	}
	defer nc.Close()
	return backup.Take(ctx, nc, w, version)
}

// VerifyOffline reads the store in the data directory of a daemon that does not run.
func VerifyOffline(dir string) (backup.Report, error) {
	unlock, err := lockExisting(dir)
	if err != nil {
		return backup.Report{}, err
	}
	defer unlock()
	return backup.VerifyDir(dir)
}

// lockExisting locks a data directory that must be there.
func lockExisting(dir string) (unlock func() error, err error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	return lockData(dir)
}

// BackupKeys are the keys that a daemon with this configuration uses.
func (c *Config) BackupKeys() (k backup.Keys, err error) {
	seal := c.Keys.Seal.Path()
	if seal == "" {
		seal = c.dataFile("keys", "seal.ring")
	}
	if k.Seal, err = os.ReadFile(seal); err != nil {
		return k, err
	}
	if c.Keys.Root != "" {
		k.Root, err = c.Keys.Root.Read()
		return k, err
	}
	k.Root, err = os.ReadFile(c.dataFile("keys", "root.key"))
	return k, err
}
