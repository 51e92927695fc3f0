package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/backup"
	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/mail"
)

func backupCommand(ui *ui) *cobra.Command {
	var data, keys string
	cmd := &cobra.Command{
		Use: "backup [FILE|-]", Short: "Copy the store into one file, while deliverd runs", Args: cobra.MaximumNArgs(1),
		Long: `Copy every record, the event log, the suppressions, tokens and the service log into
one file with checksums, while deliverd runs: through the daemon, with a token for all
tenants that has the scope admin. With --data it copies the directory of a daemon
that is stopped.

The file holds names and addresses, and no secret that it could open: the key ring is
not in it. Without the keys no waiting message can be sent after a restore. --keys
writes them into a file of their own, on the daemon's machine; keep it apart. Not in
either: the configuration, DKIM keys, templates, and mail kept for the postmaster.`,
		Example: "  deliverd backup /mnt/backup/deliverd-monday --keys /mnt/keys/deliverd.keys\n  deliverd backup - | ssh vault 'cat > deliverd.backup'",
		RunE: func(cmd *cobra.Command, args []string) error {
			source := ui.runningStore
			if data != "" {
				source = func(ctx context.Context, w io.Writer) error {
					return daemon.BackupOffline(ctx, data, w, buildVersion())
				}
			}
			path := time.Now().UTC().Format("deliverd-20060102-150405.backup")
			if len(args) > 0 {
				path = args[0]
			}
			if err := ui.writeBackup(cmd.Context(), path, source); err != nil {
				return err
			}
			if keys == "" {
				return nil
			}
			return ui.writeKeys(keys, data)
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "`DIR`ectory of a daemon that is stopped")
	f.StringVar(&keys, "keys", "", "write the key ring and the root key into `FILE`")
	return cmd
}

// runningStore copies what the running daemon has.
func (u *ui) runningStore(ctx context.Context, w io.Writer) error {
	c, err := u.client()
	if err != nil {
		return err
	}
	in, err := c.Open(ctx, "/v1/backup", nil)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(w, in); err != nil {
		return failed("the backup broke off: "+err.Error(), "the daemon's log says why, if it was the one to end it; try again")
	}
	return nil
}

// writeBackup writes a new file, which has its name only when it is whole.
func (u *ui) writeBackup(ctx context.Context, path string, source func(context.Context, io.Writer) error) error {
	if path == "-" {
		return source(ctx, u.out)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return failed(path+" exists, or can't be looked at", "name a file that does not exist yet")
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	counted := &counter{w: f}
	stop := u.progress(counted)
	err = source(ctx, counted)
	stop()
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if u.json {
		return u.printJSON(map[string]any{"file": path, "bytes": counted.n.Load()})
	}
	fmt.Fprintln(u.out, path)
	fmt.Fprintf(u.err, "%s. `deliverd verify %s` reads it back.\n", size(counted.n.Load()), path)
	return nil
}

func (u *ui) writeKeys(path, data string) error {
	c, err := u.loadConfig()
	if err != nil {
		return err
	}
	if data != "" {
		c.Data = data
	}
	k, err := c.BackupKeys()
	if err == nil {
		err = backup.WriteKeys(path, k)
	}
	if err != nil {
		return failed("the keys were not written: "+err.Error(), "run this on the daemon's machine, as its user, with its configuration (-c)")
	}
	fmt.Fprintf(u.err, "The keys are in %s. With both files, whatever still waits can be read: keep them apart.\n", path)
	return nil
}

func restoreCommand(ui *ui) *cobra.Command {
	var data, keys string
	var damaged bool
	cmd := &cobra.Command{
		Use: "restore FILE --data DIR", Short: "Make a data directory of a backup",
		Long: `Make a data directory of a backup. DIR must be empty. A message that waits in the
backup although its log knows the end is not tried again; what the log knows as
accepted and has neither end nor record is named. What was due is sent with the note
that it may be a duplicate: nobody knows what was handed over after the backup.

Stop the daemon that the backup is of for good before the restored one starts: two
would send everything twice.`,
		Args: exactly(1, "the file of a backup"),
		RunE: func(_ *cobra.Command, args []string) error {
			if keys != "" {
				if _, err := backup.ReadKeys(keys); err != nil {
					return failed(err.Error(), "name the file that `deliverd backup --keys` wrote")
				}
			}
			stop := ui.after(time.Second, "Reading the backup twice: once to see that it is whole.")
			r, err := backup.Restore(args[0], data, damaged)
			stop()
			if errors.Is(err, backup.ErrDamaged) {
				ui.printReport(&r, 10)
				return failed("the backup is damaged, and nothing was restored", "take another one, or restore what can be read with --damaged")
			}
			if err != nil {
				return failed("nothing was restored: "+err.Error(), "`deliverd verify` tells whether a file is whole; --data names a directory that is empty, or not there yet")
			}
			if keys != "" {
				if err := backup.RestoreKeys(keys, data); err != nil {
					return failed("the store was restored, the keys were not: "+err.Error(), "put them into "+filepath.Join(data, "keys")+" before the daemon starts")
				}
			}
			if ui.json {
				return ui.printJSON(r)
			}
			fmt.Fprintf(ui.out, "Restored: %d messages wait, %d events.\n", r.Waiting, r.Events)
			ui.printReport(&r, 0)
			if keys == "" {
				fmt.Fprintln(ui.err, "Without the keys of that time nothing that waits can be sent: put them into "+filepath.Join(data, "keys")+" before the daemon starts.")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "`DIR`ectory to make, empty or not there")
	f.StringVar(&keys, "keys", "", "`FILE` that `deliverd backup --keys` wrote")
	f.BoolVar(&damaged, "damaged", false, "restore what can be read of a damaged file")
	_ = cmd.MarkFlagRequired("data") // its error is a flag that isn't there
	return cmd
}

func verifyCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE|DIR", Short: "Check that a backup, or a stopped daemon's data directory, is whole",
		Long: `Check a backup, or the data directory of a daemon that is stopped: every checksum,
that every record can be read, that the log has no holes, and that every message which
was accepted has ended or waits. Nothing is changed. The store's server reads past a
damaged message without a word: this names it.`,
		Args: exactly(1, "a backup's file, or a data directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			check := backup.VerifyFile
			if info, err := os.Stat(args[0]); err != nil {
				return &exitError{exitNotFound, err.Error(), "name a backup's file, or a data directory"}
			} else if info.IsDir() {
				check = daemon.VerifyOffline
			}
			stop := ui.after(time.Second, "Reading all of it.")
			r, err := check(args[0])
			stop()
			if err != nil {
				return failed(err.Error(), "of a running daemon, make a backup and verify that")
			}
			if ui.json {
				if err := ui.printJSON(r); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(ui.out, "%d messages wait, %d events, %d entries of the service log.\n", r.Waiting, r.Events, r.Links)
				ui.printReport(&r, 10)
			}
			if !r.OK() {
				return failed("it is not whole", "what is missing is not sent by itself: have the auth service ask for these messages again")
			}
			return nil
		},
	}
}

// printReport says what is wrong, naming at most most of each sort; 0 names all.
func (u *ui) printReport(r *backup.Report, most int) {
	for _, d := range r.Damage {
		fmt.Fprintln(u.out, "Damaged:", d)
	}
	for _, s := range r.Streams {
		fmt.Fprintln(u.out, "Not there:", s)
	}
	if r.Holes > 0 {
		fmt.Fprintf(u.out, "The log has %d holes.\n", r.Holes)
	}
	u.printSome("Can't be read:", r.Unreadable, most)
	u.printSome("Accepted, not ended, and without a record:", texts(r.Missing), most)
	u.printSome("Accepted while the backup was made, and not in it:", texts(r.Late), most)
	if n := len(r.Ended); n > 0 {
		fmt.Fprintf(u.out, "%d records wait although the log knows their end; they are not tried again.\n", n)
	}
}

func texts(ids []mail.ID) (list []string) {
	for _, id := range ids {
		list = append(list, string(id))
	}
	return list
}

func (u *ui) printSome(what string, list []string, most int) {
	for i, s := range list {
		if most > 0 && i == most {
			fmt.Fprintf(u.out, "… and %d more; --json lists them.\n", len(list)-most)
			return
		}
		fmt.Fprintln(u.out, what, s)
	}
}
