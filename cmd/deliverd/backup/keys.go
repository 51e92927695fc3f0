package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/deliverd/deliverd/queue"
)

// Keys are what a backup does not hold: without Seal nothing sealed can be opened, and
// without Root no return path and no idempotency key of earlier mail is known again.
type Keys struct {
	Format int    `json:"format"`
	Seal   []byte `json:"seal"` // the key ring's file
	Root   []byte `json:"root"` // the root key's file
}

// WriteKeys writes the keys into a new file that only its owner can read. Call it after
// the backup: what the backup holds may be sealed with a key that was made meanwhile.
func WriteKeys(path string, k Keys) error {
	k.Format = format
	b, err := json.Marshal(k)
	if err != nil {
		return errors.New("the keys can't be written as JSON")
	}
	return writeNew(path, b)
}

// RestoreKeys puts the keys where a daemon with that data directory looks for them,
// unless its configuration names other places. It overwrites nothing.
func RestoreKeys(path, dir string) error {
	k, err := ReadKeys(path)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, "keys")
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	for name, b := range map[string][]byte{"seal.ring": k.Seal, "root.key": k.Root} {
		if err := writeNew(filepath.Join(at, name), b); err != nil {
			return err
		}
	}
	if _, err := queue.OpenKeyRing(filepath.Join(at, "seal.ring")); err != nil {
		return err
	}
	return syncPath(at)
}

// ReadKeys reads what WriteKeys wrote. Its errors quote nothing of it.
func ReadKeys(path string) (k Keys, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(b, &k); err != nil || k.Format != format || len(k.Seal) == 0 || len(k.Root) == 0 {
		return Keys{}, fmt.Errorf("%s: not the keys of a backup", path)
	}
	return k, nil
}

func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists, and is not overwritten", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
