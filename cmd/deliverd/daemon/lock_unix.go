//go:build unix

package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockData makes sure that one daemon at a time uses a data directory: two
// embedded servers on one store would destroy it. The lock goes with the process,
// however it ends.
func lockData(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("can't make the data directory: %w; choose another with `data` or --data", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("can't use the data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("another deliverd uses %s; stop it, or give this one a data directory of its own", dir)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("can't lock %s: %w", dir, err)
	}
	return f.Close, nil
}

// lockFile waits for a lock that processes, on all nodes that share the directory,
// hold while they read and write.
func lockFile(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("can't lock %s: %w", path, err)
	}
	return f.Close, nil
}
