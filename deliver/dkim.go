package deliver

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Signer puts DKIM signatures (RFC 6376) on messages: one for each key of the From
// domain. It is safe for concurrent use.
//
// It signs by itself rather than with go-msgauth's Sign, which puts the present time
// into t=: after a crash between a server's 250 and our record the message is
// rendered and signed anew, and law 6 promises the same bytes. go-msgauth, and two
// other verifiers, check what it makes in its tests. One pass over the body serves
// all signatures.
type Signer struct {
	keys   map[string][]*Key // by domain; RSA first
	leaked [][]byte          // how signatures by keys that leaked name their key
}

// NewSigner takes any number of keys, of any domains.
func NewSigner(keys ...*Key) (*Signer, error) {
	s := &Signer{keys: make(map[string][]*Key)}
	for _, k := range keys {
		for _, other := range s.keys[k.Domain] {
			if other.Selector == k.Selector {
				return nil, fmt.Errorf("two DKIM keys are called %s: give each its own selector", k.RecordName())
			}
		}
		s.keys[k.Domain] = append(s.keys[k.Domain], k)
	}
	for _, ks := range s.keys {
		// RSA on top: a verifier that looks at one signature only looks at the first, and
		// knows RSA.
		slices.SortStableFunc(ks, func(a, b *Key) int { return -cmp.Compare(a.Algorithm(), b.Algorithm()) })
	}
	return s, nil
}

// Distrust names a key that is in wrong hands: its record is being revoked, so that
// what was signed with it before, and still waits, has to be signed anew. Not to be
// called once the Signer is in use.
func (s *Signer) Distrust(domain, selector string) {
	s.leaked = append(s.leaked, []byte(signedBy(strings.ToLower(domain), selector)))
}

// signedBy is the part of our signatures that names the key.
func signedBy(domain, selector string) string {
	return " d=" + domain + ";\r\n\ts=" + selector + ";"
}

// Renew returns signed as it is, unless a key that leaked has signed it: then the
// signatures on top are replaced by those that Sign makes now. Law 6 promises the
// same bytes with every attempt; the header and body stay the same here as well, and
// a signature that no verifier will accept is no use to anybody.
func (s *Signer) Renew(signed []byte, domain string, at time.Time) ([]byte, error) {
	raw := signed
	for bytes.HasPrefix(raw, []byte(signatureField)) {
		raw = raw[fieldLength(raw):]
	}
	top := signed[:len(signed)-len(raw)]
	if !slices.ContainsFunc(s.leaked, func(key []byte) bool { return bytes.Contains(top, key) }) {
		return signed, nil
	}
	return s.Sign(raw, domain, at)
}

const signatureField = "DKIM-Signature:"

// fieldLength returns where the field that msg begins with ends: before a line that
// does not begin with a space or tab (RFC 5322 2.2.3).
func fieldLength(msg []byte) int {
	for n := 0; ; {
		i := bytes.Index(msg[n:], []byte("\r\n"))
		if i < 0 {
			return len(msg)
		}
		n += i + 2
		if n == len(msg) || msg[n] != ' ' && msg[n] != '\t' {
			return n
		}
	}
}

// KeysFor returns the keys that sign for a From domain: its own, else those of the
// nearest parent, which DMARC takes as aligned unless adkim=s (RFC 7489 3.1.1).
func (s *Signer) KeysFor(domain string) []*Key {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	for domain != "" {
		if ks := s.keys[domain]; len(ks) > 0 {
			return ks
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
	return nil
}

// errNoKey is a From domain that nobody signs for.
var errNoKey = errors.New("no DKIM key for its From domain")

// Sign returns raw with a signature for each key of domain on top, and whatever its
// line endings were, with CRLF at the end of every line. at goes into t=: the time
// when the message was queued, which is in its Date as well, so that the bytes are a
// function of the message alone and never of a clock that jumps. There is no x=: a
// message's own expiry is not its signature's, and forwarding may take days.
//
// A message that could not arrive unchanged is an error: 8-bit bytes, NUL, lines over
// 998 bytes (RFC 5322 2.1.1), a malformed header.
func (s *Signer) Sign(raw []byte, domain string, at time.Time) ([]byte, error) {
	raw, err := normalise(raw)
	if err != nil {
		return nil, err
	}
	keys := s.KeysFor(domain)
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w %s: add a [[dkim]] section for it; make a key with: deliverd dkim new", errNoKey, cleanText(domain))
	}
	head, body := splitMessage(raw)
	fields, err := parseFields(head)
	if err != nil {
		return nil, err
	}
	names, signedFields := selectFields(fields)
	bodyHash := sha256.Sum256(relaxedBody(body))
	out := make([]byte, 0, len(raw)+len(keys)*1024)
	for _, k := range keys {
		field, err := k.signature(names, signedFields, bodyHash[:], at)
		if err != nil {
			return nil, fmt.Errorf("DKIM key %s: %w", k.RecordName(), err)
		}
		out = append(out, field...)
	}
	return append(out, raw...), nil
}

// signature makes one DKIM-Signature field.
func (k *Key) signature(names []string, signed, bodyHash []byte, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(signatureField + " v=1; a=" + k.Algorithm() + "; c=relaxed/relaxed;" + signedBy(k.Domain, k.Selector))
	if !at.IsZero() {
		b.WriteString(" t=" + strconv.FormatInt(at.Unix(), 10) + ";")
	}
	b.WriteString("\r\n\th=")
	column := len("\th=")
	for i, n := range names {
		if i > 0 {
			b.WriteByte(':')
			column++
			if column+len(n) > 74 {
				b.WriteString("\r\n\t ")
				column = 2
			}
		}
		b.WriteString(n)
		column += len(n)
	}
	b.WriteString(";\r\n\tbh=" + base64.StdEncoding.EncodeToString(bodyHash) + ";\r\n\tb=")

	h := sha256.New()
	h.Write(signed)
	h.Write(bytes.TrimSuffix(relaxedField(b.Bytes()), []byte("\r\n"))) // RFC 6376 3.7: without its CRLF
	var opts crypto.SignerOpts = crypto.SHA256
	if _, ok := k.private.(ed25519.PrivateKey); ok {
		opts = crypto.Hash(0) // RFC 8463 3: PureEdDSA over the SHA-256 digest
	}
	sig, err := k.private.Sign(nil, h.Sum(nil), opts) // PKCS #1 v1.5 and Ed25519 need no randomness
	if err != nil {
		return nil, err
	}
	for b64 := base64.StdEncoding.EncodeToString(sig); ; b.WriteString("\r\n\t ") {
		n := min(len(b64), 72)
		b.WriteString(b64[:n])
		if b64 = b64[n:]; b64 == "" {
			break
		}
	}
	b.WriteString("\r\n")
	return b.Bytes(), nil
}

// sign signs for the message's From domain, or gives raw back where nothing asks for
// a signature.
func (d *Deliverer) sign(m *mail.Message, raw []byte) ([]byte, error) {
	domain, err := fromDomain(raw)
	if err != nil {
		return nil, err
	}
	if d.options.Sign == nil || !d.options.RequireDKIM && len(d.options.Sign.KeysFor(domain)) == 0 {
		return normalise(raw)
	}
	return d.options.Sign.Sign(raw, domain, m.QueuedAt)
}

// renew gives the bytes of an earlier attempt back, signed anew where that must be.
func (d *Deliverer) renew(a *mail.Attempt) ([]byte, error) {
	if d.options.Sign == nil || len(d.options.Sign.leaked) == 0 {
		return a.Signed, nil
	}
	domain, err := fromDomain(a.Signed)
	if err != nil {
		return nil, err
	}
	return d.options.Sign.Renew(a.Signed, domain, a.Message.QueuedAt)
}

// fromDomain finds the domain of the From field. Rendering writes one strict address,
// with or without a name: the last "@" before the last ">" or the end is its.
func fromDomain(raw []byte) (string, error) {
	head, _ := splitMessage(raw)
	fields, err := parseFields(head)
	if err != nil {
		return "", err
	}
	for _, f := range fields {
		if !strings.EqualFold(f.name, "From") {
			continue
		}
		v := strings.TrimSpace(string(f.raw[len(f.name)+1:]))
		v = strings.TrimSuffix(v, ">")
		at := strings.LastIndexByte(v, '@')
		if at < 0 || !domainOK(v[at+1:]) {
			break
		}
		return strings.ToLower(v[at+1:]), nil
	}
	return "", errors.New("the rendered message has no From that can be signed for")
}
