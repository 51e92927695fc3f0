//go:build openssl && cgo

package deliver

// #cgo LDFLAGS: -lcrypto
// #include <openssl/evp.h>
//
// static int sign_sha256(EVP_PKEY *key, const unsigned char *digest, unsigned char *sig, size_t *n) {
// 	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
// 	int ok = ctx && EVP_PKEY_sign_init(ctx) > 0 &&
// 		EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) > 0 && // PKCS #1 v1.5 is the default padding
// 		EVP_PKEY_sign(ctx, sig, n, digest, 32) > 0;
// 	EVP_PKEY_CTX_free(ctx);
// 	return ok;
// }
//
// static EVP_PKEY *parse_pkcs1(const unsigned char *der, long n) {
// 	return d2i_PrivateKey(EVP_PKEY_RSA, NULL, &der, n);
// }
import "C"

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io"
	"runtime"
)

// signerOf signs with OpenSSL's libcrypto, whose assembler does RSA-2048 in a fraction
// of the time that Go takes. The bytes are the same: PKCS #1 v1.5 knows no chance.
func signerOf(k *rsa.PrivateKey) (crypto.Signer, error) {
	der := x509.MarshalPKCS1PrivateKey(k)
	defer clear(der)
	key := C.parse_pkcs1((*C.uchar)(&der[0]), C.long(len(der)))
	if key == nil {
		return nil, errors.New("OpenSSL does not take the key; make a new one with: deliverd dkim new")
	}
	s := &opensslRSA{public: k.Public(), size: k.Size(), key: key}
	runtime.AddCleanup(s, func(key *C.EVP_PKEY) { C.EVP_PKEY_free(key) }, key)
	return s, nil
}

// opensslRSA is safe for concurrent use: each signature has a context of its own.
type opensslRSA struct {
	public crypto.PublicKey
	size   int
	key    *C.EVP_PKEY
}

func (s *opensslRSA) Public() crypto.PublicKey { return s.public }

func (s *opensslRSA) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, errors.New("DKIM signs SHA-256 digests only")
	}
	sig, n := make([]byte, s.size), C.size_t(s.size)
	ok := C.sign_sha256(s.key, (*C.uchar)(&digest[0]), (*C.uchar)(&sig[0]), &n)
	runtime.KeepAlive(s)
	if ok == 0 || int(n) != s.size {
		return nil, errors.New("OpenSSL could not sign")
	}
	return sig, nil
}
