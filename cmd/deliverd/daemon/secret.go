package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Secret is a reference to a secret: "file:PATH", "env:NAME", or "cred:NAME" for a
// systemd credential. The configuration never holds a secret itself.
type Secret string

func (s Secret) check() error {
	if s == "" {
		return nil
	}
	scheme, name, ok := strings.Cut(string(s), ":")
	if !ok || name == "" || scheme != "file" && scheme != "env" && scheme != "cred" {
		// Whatever stands here may be the secret itself: don't repeat it.
		return errors.New("a secret is named, not written here: use \"file:PATH\", \"env:NAME\" or \"cred:NAME\"")
	}
	return nil
}

// Path returns the file behind a file: or cred: reference, "" for env: and none.
func (s Secret) Path() string {
	if p, ok := strings.CutPrefix(string(s), "file:"); ok {
		return p
	}
	if name, ok := strings.CutPrefix(string(s), "cred:"); ok {
		return filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), name)
	}
	return ""
}

// Read returns the secret without trailing newlines.
func (s Secret) Read() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if name, ok := strings.CutPrefix(string(s), "env:"); ok {
		v, ok := os.LookupEnv(name)
		if !ok {
			return nil, fmt.Errorf("the environment has no %s", name)
		}
		return []byte(v), nil
	}
	b, err := os.ReadFile(s.Path())
	if err != nil {
		return nil, err
	}
	return []byte(strings.TrimRight(string(b), "\r\n")), nil
}

// read is Read for a secret that may be absent: nil then.
func (s Secret) read() ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	return s.Read()
}
