package dnscheck

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// SigningKey is one DKIM key that we sign with.
type SigningKey struct {
	Domain, Selector string
	Public           crypto.PublicKey // *rsa.PublicKey or ed25519.PublicKey
}

// record is the text that has to be published for the key (RFC 6376 3.6.1, RFC
// 8463 4).
func (k *SigningKey) record() string {
	if public, ok := k.Public.(ed25519.PublicKey); ok {
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public)
	if err != nil {
		return ""
	}
	return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}

func (k *SigningKey) algorithm() string {
	if _, ok := k.Public.(ed25519.PublicKey); ok {
		return "ed25519"
	}
	return "rsa"
}

// dkim reports whether what is published fits the key that we sign with.
func (s *survey) dkim(ctx context.Context, key SigningKey) {
	name := key.Selector + "._domainkey." + key.Domain
	found, err := s.TXT(ctx, name)
	publish := txtFix(name, key.record())
	switch {
	case temporary(err):
		return
	case err != nil:
		s.add("dkim.missing", name, "There is no DKIM key at "+name+", so nobody can verify our signature.", publish)
		return
	case len(found.List) > 1:
		s.add("dkim.multiple", name, fmt.Sprintf("There are %d text records at %s; receivers may take the wrong one.", len(found.List), name), publish)
		return
	}
	text := found.List[0].String()
	whole := record(found.Answer, "TXT", text)
	values, ok := tags(text)
	if version, set := values["v"]; !ok || set && version != "DKIM1" {
		s.add("dkim.syntax", name, "The key record can't be parsed.", whole, publish)
		return
	}
	s.dkimFlags(name, values, whole, publish)
	if kind := values["k"]; kind != key.algorithm() && (kind != "" || key.algorithm() != "rsa") {
		s.add("dkim.key_type", name, fmt.Sprintf("The record is for keys of type %q, we sign with %s.", printable(kind, 40), key.algorithm()), whole, publish)
		return
	}
	s.dkimKey(name, values["p"], key, whole, publish)
}

// dkimFlags reports on the tags that restrict what the key is good for.
func (s *survey) dkimFlags(name string, values map[string]string, whole, publish detail) {
	list := func(tag string) []string {
		var words []string
		for word := range strings.SplitSeq(values[tag], ":") {
			words = append(words, trimWSP(word))
		}
		return words
	}
	if _, set := values["h"]; set && !slices.Contains(list("h"), "sha256") {
		s.add("dkim.hash_not_allowed", name, "The record allows no signatures with SHA-256, which ours are.", whole, publish)
	}
	if _, set := values["s"]; set && !slices.Contains(list("s"), "*") && !slices.Contains(list("s"), "email") {
		s.add("dkim.service_type", name, "The record's s tag excludes e-mail.", whole, publish)
	}
	if slices.Contains(list("t"), "y") {
		s.add("dkim.testing", name, "t=y says that we are only testing DKIM: receivers treat our mail as unsigned.", whole, publish)
	}
}

// dkimKey holds the published key against ours.
func (s *survey) dkimKey(name, p string, key SigningKey, whole, publish detail) {
	p = strings.Join(strings.Fields(p), "")
	if p == "" {
		s.add("dkim.revoked", name, "The record has an empty key: it is revoked.", whole, publish)
		return
	}
	der, err := base64.StdEncoding.DecodeString(p)
	if err != nil {
		s.add("dkim.syntax", name, "The key is not valid base64; it may have been cut off.", whole, publish)
		return
	}
	if ours, ok := key.Public.(ed25519.PublicKey); ok {
		switch {
		case len(der) != ed25519.PublicKeySize:
			s.add("dkim.syntax", name, fmt.Sprintf("The key has %d bytes, an Ed25519 key has 32.", len(der)), whole, publish)
		case !ours.Equal(ed25519.PublicKey(der)):
			s.add("dkim.mismatch", name, "The published key is not the one that we sign with.", whole, publish)
		}
		return
	}
	published, err := parseRSA(der)
	if err != nil {
		s.add("dkim.syntax", name, "The key can't be read; it may have been cut off.", whole, publish)
		return
	}
	switch bits := published.N.BitLen(); {
	case bits < 1024:
		s.add("dkim.short_key", name, fmt.Sprintf("The key has %d bits; receivers don't accept fewer than 1024.", bits), as(StateFail), whole)
	case bits < 2048:
		s.add("dkim.short_key", name, fmt.Sprintf("The key has %d bits; it should have 2048.", bits), whole)
	}
	if ours, ok := key.Public.(*rsa.PublicKey); !ok || !ours.Equal(published) {
		s.add("dkim.mismatch", name, "The published key is not the one that we sign with.", whole, publish)
	}
}

// parseRSA reads a public key in the form that RFC 6376 means, or in the one that
// its words say.
func parseRSA(der []byte) (*rsa.PublicKey, error) {
	if public, err := x509.ParsePKIXPublicKey(der); err == nil {
		if key, ok := public.(*rsa.PublicKey); ok {
			return key, nil
		}
	}
	return x509.ParsePKCS1PublicKey(der)
}
