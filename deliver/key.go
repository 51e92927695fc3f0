package deliver

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Algorithm is a kind of DKIM key.
type Algorithm string

// The algorithms that DKIM has. Every verifier knows RSA; Ed25519 (RFC 8463) is
// short, fast, and known to some, so a domain wants one key of each.
const (
	RSA2048 Algorithm = "rsa-2048"
	Ed25519 Algorithm = "ed25519"
)

// NewKey makes a private key, as PKCS #8 in PEM.
func NewKey(alg Algorithm) ([]byte, error) {
	var private any
	var err error
	switch alg {
	case RSA2048:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case Ed25519:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("no such DKIM algorithm: %q; use %q or %q", alg, RSA2048, Ed25519)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Key signs for one domain under one selector.
type Key struct {
	Domain   string // lower case
	Selector string
	private  crypto.Signer
}

// ParseKey reads a private key from PEM, PKCS #8 or PKCS #1. Its errors say what to
// do, and nothing of the key.
func ParseKey(domain, selector string, pemBytes []byte) (*Key, error) {
	name := selector + "._domainkey." + domain
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if !domainOK(domain) || !strings.Contains(domain, ".") || !domainOK(selector) {
		return nil, fmt.Errorf("DKIM key %q: domain and selector must be host names, e.g. example.com and d2026a", name)
	}
	block, _ := pem.Decode(pemBytes)
	if block == nil {
		return nil, fmt.Errorf("DKIM key %s: the file is not PEM; make a key with: deliverd dkim new", name)
	}
	private, err := parsePrivate(block)
	if err != nil {
		return nil, fmt.Errorf("DKIM key %s: %w", name, err)
	}
	return &Key{Domain: domain, Selector: selector, private: private}, nil
}

func parsePrivate(block *pem.Block) (crypto.Signer, error) {
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("it is encrypted; decrypt it with: openssl pkey -in FILE -out NEW")
	default:
		return nil, fmt.Errorf("the PEM block is a %q, and must be a PRIVATE KEY", cleanText(block.Type))
	}
	if err != nil {
		return nil, errors.New("the key is damaged; make a new one with: deliverd dkim new")
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		// RFC 8301 3.2: at least 1024, and 2048 in earnest; above 4096 a TXT record
		// outgrows what verifiers must take.
		if n := k.N.BitLen(); n < 2048 || n > 4096 {
			return nil, fmt.Errorf("it has %d bits, and RSA keys for DKIM need 2048 (RFC 8301); make one with: deliverd dkim new", n)
		}
		return signerOf(k)
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, errors.New("it is neither RSA nor Ed25519, the algorithms that DKIM has")
}

// domainOK takes letters, digits, hyphens, underscores and dots in labels of 1 to 63:
// what may stand in d= and s= without any quoting.
func domainOK(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) < 1 || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if (c|0x20 < 'a' || c|0x20 > 'z') && !isDigit(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// Public returns the public half, an *rsa.PublicKey or an ed25519.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.private.Public() }

// Algorithm returns what the signatures say in a=, e.g. "rsa-sha256".
func (k *Key) Algorithm() string {
	if _, ok := k.private.(ed25519.PrivateKey); ok {
		return "ed25519-sha256"
	}
	return "rsa-sha256"
}

// RecordName returns where the public key is to be published, without a final dot.
func (k *Key) RecordName() string { return k.Selector + "._domainkey." + k.Domain }

// Record returns the TXT record's whole text (RFC 6376 3.6.1).
func (k *Key) Record() string { return "v=DKIM1; k=" + k.keyType() + "; p=" + k.public() }

func (k *Key) keyType() string {
	name, _, _ := strings.Cut(k.Algorithm(), "-")
	return name
}

func (k *Key) public() string {
	switch pub := k.private.Public().(type) {
	case ed25519.PublicKey:
		return base64.StdEncoding.EncodeToString(pub) // RFC 8463 4: the bare key
	default:
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			panic("deliver: an RSA key that was parsed can't be marshalled: " + err.Error())
		}
		return base64.StdEncoding.EncodeToString(der)
	}
}

// ZoneLine returns the record as one line of a zone file: a TXT record's strings
// have at most 255 bytes (RFC 1035 3.3), and verifiers join them.
func (k *Key) ZoneLine() string {
	var b strings.Builder
	b.WriteString(k.RecordName() + ". IN TXT")
	for rest := k.Record(); rest != ""; {
		n := min(len(rest), 255)
		b.WriteString(` "` + rest[:n] + `"`)
		rest = rest[n:]
	}
	return b.String()
}

// CheckRecord says what is wrong with a published TXT record, its strings joined:
// nil where verifiers will find this key in it.
func (k *Key) CheckRecord(txt string) error {
	tags := make(map[string]string)
	for tag := range strings.SplitSeq(txt, ";") {
		name, value, ok := strings.Cut(tag, "=")
		if ok {
			tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
		}
	}
	keyType := tags["k"]
	if keyType == "" {
		keyType = "rsa"
	}
	p, published := tags["p"]
	switch {
	case tags["v"] != "" && tags["v"] != "DKIM1":
		return fmt.Errorf("%s is not a DKIM record: v=%q", k.RecordName(), clip([]byte(tags["v"]), 20))
	case !published:
		return fmt.Errorf("%s has no p=: publish the record that deliverd dkim dns prints", k.RecordName())
	case p == "":
		return fmt.Errorf("%s says that this key was revoked (p= is empty): make a new one with deliverd dkim new", k.RecordName())
	case keyType != k.keyType() || p != k.public():
		return fmt.Errorf("%s publishes another key: publish the record that deliverd dkim dns prints", k.RecordName())
	case tags["h"] != "" && !strings.Contains(":"+tags["h"]+":", ":sha256:"):
		return fmt.Errorf("%s allows only the hash %q, and deliverd signs with sha256", k.RecordName(), clip([]byte(tags["h"]), 20))
	}
	return nil
}
