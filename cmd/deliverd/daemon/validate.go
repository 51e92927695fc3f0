package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/deliver/tlsrpt"
	"github.com/deliverd/deliverd/mail"
)

// A ConfigError is everything that is wrong with a configuration, so that nobody
// has to mend it one start at a time.
type ConfigError struct {
	Problems []string // one sentence each, with file, line and column where known
}

func (e *ConfigError) Error() string { return strings.Join(e.Problems, "\n") }

// Validate checks what the types can't say. Its error is a *ConfigError.
func (c *Config) Validate() error {
	var bad []string
	complain := func(format string, args ...any) {
		s := fmt.Sprintf(format, args...)
		if c.file != "" {
			s = c.file + ": " + s
		}
		bad = append(bad, s)
	}
	c.validateListen(complain)
	c.validateNATS(complain)
	c.validateSend(complain)
	c.validateBounces(complain)
	c.validateSignIn(complain)
	c.validateDKIM(complain)
	c.validateSecrets(complain)
	c.validateKinds(complain)
	c.validateRest(complain)
	if bad != nil {
		return &ConfigError{bad}
	}
	return nil
}

// validateListen checks where the daemon listens and what may reach it.
func (c *Config) validateListen(complain func(format string, args ...any)) {
	for _, l := range []struct{ key, addr string }{
		{"listen.http", c.Listen.HTTP}, {"listen.metrics", c.Listen.Metrics},
		{"listen.bounces", c.Listen.Bounces}, {"listen.nats", c.Listen.NATS},
	} {
		if l.addr == "" {
			continue
		}
		if err := checkHostPort(l.addr); err != nil {
			complain("%s: %v; write it as \"127.0.0.1:8025\" or \":8025\"", l.key, err)
		}
	}
	if c.Listen.HTTP == "" {
		complain("listen.http is empty; the API is how everybody talks to deliverd: give it an address")
	}
	if c.Listen.URL != "" {
		if u, err := url.Parse(c.Listen.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			complain("listen.url: %q is not an address that people could open; write it as \"https://mail.example.com\"", c.Listen.URL)
		}
	}
	if c.Listen.NATS != "" && c.NATS.URL != "" {
		complain("listen.nats is the embedded server's listener, and nats.url says that there is none; remove one")
	}
	if c.Listen.NATS != "" && !isLoopback(c.Listen.NATS) && c.NATS.Password == "" {
		complain("listen.nats: %q can be reached from other machines and would let anybody send; set nats.password, or listen on 127.0.0.1", c.Listen.NATS)
	}
}

// validateNATS checks where and how the queue is kept.
func (c *Config) validateNATS(complain func(format string, args ...any)) {
	if c.NATS.Replicas < 1 || c.NATS.Replicas > 5 {
		complain("nats.replicas: %d is not between 1 and 5", c.NATS.Replicas)
	}
	if c.NATS.URL == "" && c.NATS.Replicas > 1 {
		complain("nats.replicas: the embedded server is one node; set nats.url to a cluster for more")
	}
	if c.NATS.Shards < 1 || c.NATS.Shards > 64 {
		complain("nats.shards: %d is not between 1 and 64", c.NATS.Shards)
	}
	if _, err := c.NATS.syncInterval(); err != nil {
		complain("nats.sync: %v", err)
	}
}

// validateSend checks who we are to the servers that we deliver to.
func (c *Config) validateSend(complain func(format string, args ...any)) {
	if c.Send.Concurrency < 1 || c.Send.Concurrency > 10000 {
		complain("send.concurrency: %d is not between 1 and 10000", c.Send.Concurrency)
	}
	if c.Send.PerDestination < 1 || c.Send.PerDestination > 1000 {
		complain("send.per_destination: %d is not between 1 and 1000", c.Send.PerDestination)
	}
	for _, a := range c.Send.Addresses {
		if _, err := netip.ParseAddr(a); err != nil {
			complain("send.addresses: %q is not an IP address", a)
		}
	}
	if c.Send.From != "" {
		if _, _, err := mail.ParseMailbox(c.Send.From); err != nil {
			complain("send.from: %v; write it as \"Acme <no-reply@example.com>\"", err)
		}
	}
	if c.Send.Bind && len(c.Send.Addresses) == 0 {
		complain("send.bind: there is no address to bind; list them in send.addresses")
	}
	c.validatePools(complain)
	if c.Send.Relay != "" {
		if err := checkHostPort(c.Send.Relay); err != nil {
			complain("send.relay: %v; write it as \"smtp.example.com:587\"", err)
		}
	}
	if (c.Send.RelayUser == "") != (c.Send.RelayPassword == "") {
		complain("send.relay_user and send.relay_password go together: set both or none")
	}
}

// validateBounces checks what mail that comes back needs.
func (c *Config) validateBounces(complain func(format string, args ...any)) {
	if c.Listen.Bounces != "" && c.Send.ReturnPathDomain == "" {
		complain("listen.bounces needs send.return_path_domain: that is where bounces are addressed to")
	}
	if c.Bounces.Postmaster != "" {
		a, err := mail.ParseAddress(c.Bounces.Postmaster)
		if err != nil {
			complain("bounces.postmaster: %v", err)
		} else if strings.EqualFold(a.Domain(), c.Send.ReturnPathDomain) {
			complain("bounces.postmaster: mail to this domain comes back to deliverd; name somebody's mailbox elsewhere")
		}
	}
	if (c.Bounces.Certificate == "") != (c.Bounces.Key == "") {
		complain("bounces.certificate and bounces.key go together: set both or none")
	}
}

// validateDKIM checks that each signing key is named once, and whole.
func (c *Config) validateDKIM(complain func(format string, args ...any)) {
	seen := map[[2]string]bool{}
	for i, k := range c.DKIM {
		if k.Domain == "" || (k.Selector == "") != (k.Key == "") {
			complain("dkim[%d]: give domain, selector and key, which `deliverd dkim new` makes, or the domain alone, for keys that `deliverd dkim rotate` makes", i)
		}
		if id := [2]string{strings.ToLower(k.Domain), k.Selector}; seen[id] {
			complain("dkim[%d]: selector %q of %s is there twice", i, k.Selector, k.Domain)
		} else {
			seen[id] = true
		}
	}
}

// validateSecrets checks that secrets are named, and none is written out.
func (c *Config) validateSecrets(complain func(format string, args ...any)) {
	for name, ref := range map[string]Secret{
		"nats.credentials": c.NATS.Credentials, "nats.password": c.NATS.Password,
		"send.relay_password": c.Send.RelayPassword, "keys.seal": c.Keys.Seal, "keys.root": c.Keys.Root,
		"signin.oidc.client_secret": c.SignIn.OIDC.ClientSecret,
	} {
		if err := ref.check(); err != nil {
			complain("%s: %v", name, err)
		}
	}
	if scheme, _, _ := strings.Cut(string(c.Keys.Seal), ":"); scheme == "env" || scheme == "cred" {
		complain("keys.seal: the key ring is a file that deliverd writes to; use \"file:PATH\"")
	}
	for i, k := range c.DKIM {
		if err := k.Key.check(); err != nil {
			complain("dkim[%d].key: %v", i, err)
		}
	}
}

// validateKinds checks the kinds as they are after all changes.
func (c *Config) validateKinds(complain func(format string, args ...any)) {
	for name, k := range c.kinds() {
		switch {
		case name == tlsrpt.Kind:
			complain("kinds.%s: this name is deliverd's own; choose another", name)
		case !isToken(name):
			complain("kinds.%s: a kind's name has letters, digits, - and _ only, at most 32", name)
		case k.Lane < 1 || k.Lane > 9:
			complain("kinds.%s.lane: %d is not between 1 (most urgent) and 9", name, k.Lane)
		case k.ValidFor < 10*time.Second || k.ValidFor > 30*24*time.Hour:
			complain("kinds.%s.valid_for is not between 10s and 30d", name)
		case len(k.Retries) == 0:
			complain("kinds.%s.retries: give at least one wait, for example [\"1m\", \"5m\"]", name)
		}
		switch k.TLS {
		case mail.TLSFloorNone, mail.TLSFloorRequired, mail.TLSFloorVerified, mail.TLSFloorRequire:
		default:
			complain("kinds.%s.tls: %q is none of \"\" (what the recipient's domain asks for), \"required\", \"verified\", \"requiretls\"", name, k.TLS)
		}
		for _, r := range k.Retries {
			if r < time.Second {
				complain("kinds.%s.retries: a wait is at least 1s", name)
				break
			}
		}
	}
}

// validateRest checks the small sections: dns, limits, log and lab.
func (c *Config) validateRest(complain func(format string, args ...any)) {
	for _, s := range c.DNS.Servers {
		if err := checkHostPort(withPort(s, "53")); err != nil {
			complain("dns.servers: %v; write it as \"127.0.0.1:53\"", err)
		}
	}
	if c.Limits.PerTenant < 0 || c.Limits.PerRecipient < 0 {
		complain("limits: a limit is a number of messages a minute; 0 means none")
	}
	switch c.Log.Level {
	case "debug", "info", "warn", "error":
	default:
		complain("log.level: %q is none of debug, info, warn, error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		complain("log.format: %q is none of text, json", c.Log.Format)
	}
	for from, to := range c.Lab.Dial {
		if port, ok := strings.CutPrefix(from, ":"); !ok || !isPort(port) {
			complain("lab.dial: %q is not a port; write it as \":25\"", from)
		}
		if !isLoopback(to) {
			complain("lab.dial: %q is not a loopback address and port; the lab sends nothing off this machine", to)
		}
	}
}

// syncInterval returns 0 for an fsync before every acknowledgement.
func (n *NATSConfig) syncInterval() (time.Duration, error) {
	if n.Sync == "always" {
		return 0, nil
	}
	d, err := ParseDuration(n.Sync)
	if err != nil || d < 100*time.Millisecond || d > 2*time.Minute {
		return 0, fmt.Errorf("%q is neither \"always\" nor a duration from 100ms to 2m", n.Sync)
	}
	return d, nil
}

func checkHostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address with a port", s)
	}
	if !isPort(port) {
		return fmt.Errorf("%q has no port number from 0 to 65535", s)
	}
	return nil
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost"
}

func isToken(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
