package bounces

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// ReturnPath makes and reads the envelope senders of our mail,
// "bounce+<token>@domain". The token is a message's id and an HMAC over it: whoever
// does not hold the key can't name a message (law 10). It is a pure function of the
// id, so that all attempts of a message have the same sender, as greylisting wants.
// It is safe for concurrent use.
type ReturnPath struct {
	key    []byte
	domain string
}

const (
	returnPathPrefix = "bounce+"
	// macSize is 12 bytes: 96 bits, over the 80 of RFC 2104 5, and a local part of
	// 52 octets, under the 64 of RFC 5321 4.5.3.1.1.
	macSize   = 12
	tokenSize = 16 + macSize
)

// tokenEncoding is lower case, and read in any case: local parts of bounces come
// back in upper case from servers that fold them.
var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewReturnPath returns a ReturnPath for addresses at domain. The key must be
// secret and have at least 16 bytes.
func NewReturnPath(key []byte, domain string) (*ReturnPath, error) {
	if len(key) < 16 {
		return nil, errors.New("return path: the key is shorter than 16 bytes")
	}
	if domain == "" {
		return nil, errors.New("return path: no domain")
	}
	return &ReturnPath{key: append([]byte(nil), key...), domain: strings.ToLower(domain)}, nil
}

// Domain returns the domain of the addresses.
func (p *ReturnPath) Domain() string { return p.domain }

// Address returns the envelope sender of the message, "" for an invalid id.
func (p *ReturnPath) Address(id mail.ID) string {
	b, err := id.Bytes()
	if err != nil {
		return ""
	}
	mac := p.mac(b)
	token := append(b[:], mac[:]...)
	return returnPathPrefix + tokenEncoding.EncodeToString(token) + "@" + p.domain
}

// Parse returns the message that a local part names, in any case, and false for
// every other local part. A bad HMAC and an unknown form take the same path.
func (p *ReturnPath) Parse(local string) (mail.ID, bool) {
	local = strings.ToLower(local)
	encoded, ok := strings.CutPrefix(local, returnPathPrefix)
	if !ok || len(encoded) != tokenEncoding.EncodedLen(tokenSize) {
		return "", false
	}
	var token [tokenSize]byte
	if n, err := tokenEncoding.Decode(token[:], []byte(encoded)); err != nil || n != tokenSize {
		return "", false
	}
	id := [16]byte(token[:16])
	mac := p.mac(id)
	// The last letter has a bit to spare: one message has one address.
	if !hmac.Equal(mac[:], token[16:]) || tokenEncoding.EncodeToString(token[:]) != encoded {
		return "", false
	}
	return mail.IDFromBytes(id), true
}

// Find returns the message whose return path stands anywhere in a mail that came back
// another way: to a mailbox, or as a complaint with the original message inside. Only
// an address that we made names one, so it does not matter where it stands. It looks
// at the first 1 MiB and at 50 candidates.
func (p *ReturnPath) Find(raw []byte) (mail.ID, bool) {
	raw = raw[:min(len(raw), maxMail)]
	size := len(returnPathPrefix) + tokenEncoding.EncodedLen(tokenSize)
	for range 50 {
		plus := bytes.IndexByte(raw, '+')
		if plus < 0 {
			return "", false
		}
		for plus >= 0 && (plus < len(returnPathPrefix)-1 || !equalFold(raw[plus-len(returnPathPrefix)+1:plus+1], returnPathPrefix)) {
			next := bytes.IndexByte(raw[plus+1:], '+')
			if next < 0 {
				return "", false
			}
			plus += 1 + next
		}
		start := plus - len(returnPathPrefix) + 1
		end := start + size
		if end < len(raw) && raw[end] == '@' && hasPrefixFold(raw[end+1:], p.domain) {
			if id, ok := p.Parse(string(raw[start:end])); ok {
				return id, true
			}
		}
		raw = raw[plus+1:]
	}
	return "", false
}

func (p *ReturnPath) mac(id [16]byte) (mac [macSize]byte) {
	h := hmac.New(sha256.New, p.key)
	h.Write([]byte("deliverd return path 1\x00")) // so that the key is of no use elsewhere
	h.Write(id[:])
	copy(mac[:], h.Sum(nil))
	return mac
}
