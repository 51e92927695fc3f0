package console

import (
	"cmp"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// What a story says of a connection that did not meet its policy is for an IT manager:
// which host, what about its certificate, and who wants it otherwise.

// tlsFailed reports whether an attempt ended because of TLS.
func (n *narrator) tlsFailed(e *mail.Evidence) bool {
	return e.Stage == mail.StageTLS && e.TLS != nil && e.TLS.Failure != "" && n.has("tls."+string(e.TLS.Failure))
}

// tls tells why, in a sentence.
func (n *narrator) tls(e *mail.Evidence) string {
	t := e.TLS
	until := "?"
	if !t.Expires.IsZero() {
		until = n.clock(t.Expires)
	}
	return n.say("tls."+string(t.Failure), "host", e.Host, "names", cmp.Or(strings.Join(t.Names, ", "), "?"), "issuer", cmp.Or(t.Issuer, "?"),
		"until", until, "source", cmp.Or(t.Source, "?"), "problem", strings.TrimRight(cmp.Or(t.Problem, e.Error), "."),
		"policy", n.say("tls.by."+string(t.Policy), "source", cmp.Or(t.Source, "?")))
}

// downgrade says that a message went without TLS to a server that had it before.
func (n *narrator) downgrade(e *mail.Evidence) string {
	if e == nil || e.TLS == nil || e.TLS.Downgrade.IsZero() {
		return ""
	}
	return n.say("tls.downgrade", "last", n.clock(e.TLS.Downgrade))
}

// theirTLS reports whether it is the recipient's domain that asks for what its servers
// don't do.
func theirTLS(e *mail.Evidence) bool {
	if e == nil || e.TLS == nil || e.TLS.Failure == "" {
		return false
	}
	switch e.TLS.Policy {
	case mail.TLSByDANE, mail.TLSBySTS, mail.TLSByUnusable:
		return true
	}
	return false
}
