package queue

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	r := NewKeyRing()
	id := mail.NewID(time.Now())
	secret := []byte("917 342")
	env, err := r.Seal(id, fieldData, secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(env, secret) {
		t.Error("the envelope shows the secret")
	}
	if got, err := r.Open(id, fieldData, env); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("opened %q, %v", got, err)
	}
	if _, err := r.Open(mail.NewID(time.Now()), fieldData, env); err == nil {
		t.Error("opened under another message's id")
	}
	if _, err := r.Open(id, fieldSigned, env); err == nil {
		t.Error("opened as another field")
	}
	for i := range env {
		bad := bytes.Clone(env)
		bad[i] ^= 1
		if _, err := r.Open(id, fieldData, bad); err == nil {
			t.Fatalf("opened with a bit of byte %d turned", i)
		}
		if _, err := r.Open(id, fieldData, env[:i]); err == nil {
			t.Fatalf("opened when cut to %d bytes", i)
		}
	}
	if _, err := NewKeyRing().Open(id, fieldData, env); !errors.Is(err, errKeyGone) {
		t.Errorf("another ring says %v", err)
	}
	again, err := r.Seal(id, fieldData, secret, time.Now())
	if err != nil || bytes.Equal(env, again) {
		t.Error("the same envelope twice")
	}
}

func TestKeyRingFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ring.json")
	r, err := OpenKeyRing(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st.Mode(), err)
	}
	id := mail.NewID(time.Now())
	now := time.Now()
	env, err := r.Seal(id, fieldData, []byte("secret"), now.Add(48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	newer, err := r.Seal(id, fieldData, []byte("secret"), now.Add(48*time.Hour))
	if err != nil || bytes.Equal(env[1:1+kidLen], newer[1:1+kidLen]) {
		t.Errorf("sealed under the old key after a rotation, %v", err)
	}
	// Every key that seals is in the file, and how long it is needed.
	reread, err := OpenKeyRing(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range [][]byte{env, newer} {
		if _, err := reread.Open(id, fieldData, e); err != nil {
			t.Error(err)
		}
	}
	if err := reread.Tend(now.Add(24*time.Hour), 1000*time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := reread.Open(id, fieldData, env); err != nil {
		t.Errorf("a key was destroyed while a message needs it: %v", err)
	}
	if err := reread.Tend(now.Add(96*time.Hour), 1000*time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, ring := range []*KeyRing{reread, mustOpen(t, path)} {
		if _, err := ring.Open(id, fieldData, env); !errors.Is(err, errKeyGone) {
			t.Errorf("the old key still opens: %v", err)
		}
		if _, err := ring.Open(id, fieldData, newer); err != nil {
			t.Errorf("the newest key is gone: %v", err)
		}
	}
	if err := reread.Tend(now.Add(2000*time.Hour), 1000*time.Hour); err != nil || len(reread.keys) != 1 {
		t.Errorf("after the newest grew old: %d keys, %v", len(reread.keys), err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyRing(path); err == nil {
		t.Error("a broken ring was opened")
	}
}

func mustOpen(t *testing.T, path string) *KeyRing {
	t.Helper()
	r, err := OpenKeyRing(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
