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

// credentials is the variable that says where systemd puts a service's credentials.
const credentials = "CREDENTIALS_DIRECTORY"

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

// Path returns the file behind a file: or cred: reference, "" for env: and none, and
// for cred: where the process has no credentials.
func (s Secret) Path() string {
	if p, ok := strings.CutPrefix(string(s), "file:"); ok {
		return p
	}
	if name, ok := strings.CutPrefix(string(s), "cred:"); ok && os.Getenv(credentials) != "" {
		return filepath.Join(os.Getenv(credentials), name)
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
	path := s.Path()
	if path == "" {
		return nil, fmt.Errorf("%s is a credential of the service, and this process has none: systemd gives them with LoadCredential=", s)
	}
	b, err := os.ReadFile(path)
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
