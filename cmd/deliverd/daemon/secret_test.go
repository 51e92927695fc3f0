package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCredential: "cred:" is a file among the service's credentials, and nothing else:
// without any, no file of that name in the working directory is taken for it.
func TestCredential(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "relay"), []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(credentials, dir)
	if got, err := Secret("cred:relay").Read(); err != nil || string(got) != "hunter2" {
		t.Errorf("%q, %v", got, err)
	}
	t.Chdir(dir)
	t.Setenv(credentials, "")
	if got, err := Secret("cred:relay").Read(); err == nil || !strings.Contains(err.Error(), "LoadCredential=") {
		t.Errorf("without credentials: %q, %v", got, err)
	}
}
