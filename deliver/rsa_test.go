package deliver

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"strconv"
	"sync"
	"testing"
)

// Whoever signs (see the tag openssl), the bytes are those of Go's RSA: a message that
// is signed afresh after an upgrade is still the same (law 6).
func TestAllRSASignersMakeTheSameBytes(t *testing.T) {
	t.Parallel()
	for _, bits := range []int{2048, 3072} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		s, err := signerOf(k)
		if err != nil {
			t.Fatal(err)
		}
		if !k.PublicKey.Equal(s.Public()) {
			t.Errorf("%d bits: another public key", bits)
		}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				digest := sha256.Sum256([]byte(strconv.Itoa(i)))
				want, err := rsa.SignPKCS1v15(nil, k, crypto.SHA256, digest[:])
				if err != nil {
					t.Error(err)
				}
				got, err := s.Sign(nil, digest[:], crypto.SHA256)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bits, digest %d: %x, %v, want %x", bits, i, got, err, want)
				}
			})
		}
		wg.Wait()
	}
}
