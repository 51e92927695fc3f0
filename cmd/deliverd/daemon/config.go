package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/deliver/tlsrpt"
	"github.com/deliverd/deliverd/mail"
)

// Config is the configuration file, with the defaults filled in. The names of its
// keys are part of the contract with users' scripts.
type Config struct {
	Data      string                `toml:"data" comment:"where everything is kept that must outlive the process"`
	Listen    ListenConfig          `toml:"listen"`
	NATS      NATSConfig            `toml:"nats"`
	Send      SendConfig            `toml:"send"`
	DKIM      []DKIMConfig          `toml:"dkim"`
	DNS       DNSConfig             `toml:"dns"`
	TLS       TLSConfig             `toml:"tls"`
	Bounces   BouncesConfig         `toml:"bounces"`
	Keys      KeysConfig            `toml:"keys"`
	SignIn    SignInConfig          `toml:"signin"`
	Templates TemplatesConfig       `toml:"templates"`
	Kinds     map[string]KindConfig `toml:"kinds"`
	Limits    LimitsConfig          `toml:"limits"`
	Log       LogConfig             `toml:"log"`
	Lab       LabConfig             `toml:"lab"`

	file string // where it was read from, "" if nowhere
}

// ListenConfig is the addresses that the daemon listens on; an empty one is off.
type ListenConfig struct {
	HTTP    string `toml:"http"`
	URL     string `toml:"url"`     // of HTTP as people reach it, for links; empty: its own address
	Metrics string `toml:"metrics"` // of its own for /metrics; empty: with the API
	Bounces string `toml:"bounces"`
	NATS    string `toml:"nats"`
}

// NATSConfig says where the queue is kept.
type NATSConfig struct {
	URL         string `toml:"url"` // empty: the embedded server
	Credentials Secret `toml:"credentials"`
	Replicas    int    `toml:"replicas"`
	Sync        string `toml:"sync"`     // "always", or a duration: how much a power loss may cost
	Shards      int    `toml:"shards"`   // fixed at first use
	Password    Secret `toml:"password"` // of user "client" at the embedded server's listener
}

// SendConfig says who we are to the servers that we deliver to.
type SendConfig struct {
	Hello            string   `toml:"hello"`
	Addresses        []string `toml:"addresses"`
	Bind             bool     `toml:"bind"`
	ReturnPathDomain string   `toml:"return_path_domain"`
	From             string   `toml:"from"`
	Relay            string   `toml:"relay"`
	RelayUser        string   `toml:"relay_user"`
	RelayPassword    Secret   `toml:"relay_password"`
	Concurrency      int      `toml:"concurrency"`
	PerDestination   int      `toml:"per_destination"`
	PrivateAddresses bool     `toml:"private_addresses"` // deliver to MX hosts on private networks

	Pools []SendPoolConfig `toml:"pool"`
}

// SendPoolConfig sends the mail of some kinds from elsewhere, under a name of its own.
type SendPoolConfig struct {
	Kinds     []string `toml:"kinds"`
	Hello     string   `toml:"hello"`     // empty: send.hello
	Addresses []string `toml:"addresses"` // bound; empty: as all other mail
}

// DKIMConfig is one signing key, or with a domain alone says that deliverd keeps the
// domain's keys itself.
type DKIMConfig struct {
	Domain   string `toml:"domain"`
	Selector string `toml:"selector"`
	Key      Secret `toml:"key"`
}

// DNSConfig says whom to ask.
type DNSConfig struct {
	Servers    []string `toml:"servers"`
	Blocklists []string `toml:"blocklists"`
	Validating bool     `toml:"validating"`
}

// TLSConfig says which policies of the recipients' domains count, and what is told of
// them.
type TLSConfig struct {
	MTASTS       bool   `toml:"mta_sts"`
	DANE         bool   `toml:"dane"`
	Reports      bool   `toml:"reports"`
	Organization string `toml:"organization"` // as reports name us; empty: the domain of send.from
	Contact      string `toml:"contact"`      // as reports name it; empty: the address in send.from
}

// BouncesConfig is about listen.bounces.
type BouncesConfig struct {
	Certificate string `toml:"certificate"` // PEM file, for STARTTLS; empty: in clear
	Key         string `toml:"key"`         // PEM file
	Postmaster  string `toml:"postmaster"`  // who gets mail to postmaster and abuse; empty: it is kept as files
}

// KeysConfig names the key ring.
type KeysConfig struct {
	Seal Secret `toml:"seal"`
	Root Secret `toml:"root"` // what return paths and request hashes are keyed with
	DKIM string `toml:"dkim"` // directory of the keys that `dkim new` and `dkim rotate` make; empty: in data
}

// TemplatesConfig names the operator's own templates.
type TemplatesConfig struct {
	Dir string `toml:"dir"`
}

// KindConfig changes a kind or makes a new one; nil keeps what was.
type KindConfig struct {
	Lane       *int       `toml:"lane"`
	ValidFor   *Duration  `toml:"valid_for"`
	Retries    []Duration `toml:"retries"`
	Supersede  *bool      `toml:"supersede"`
	ResendSame *bool      `toml:"resend_same"`
	AtMostOnce *bool      `toml:"at_most_once"`
	TLS        *string    `toml:"tls"`
}

// LimitsConfig bounds what one caller can do to the others. Rates are a minute's.
type LimitsConfig struct {
	PerTenant    int `toml:"per_tenant"`
	PerRecipient int `toml:"per_recipient"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text, json
}

// LabConfig is for tests and rehearsals only.
type LabConfig struct {
	// Dial sends outgoing connections for a port, ":25", to a loopback address.
	Dial map[string]string `toml:"dial,inline"`
}

// Defaults returns the configuration of a daemon that was told nothing.
func Defaults() *Config {
	return &Config{
		Data:   defaultData(),
		Listen: ListenConfig{HTTP: "127.0.0.1:8025"},
		NATS:   NATSConfig{Replicas: 1, Sync: "always", Shards: 8},
		Send:   SendConfig{Concurrency: 200, PerDestination: 20},
		SignIn: defaultSignIn(),
		TLS:    TLSConfig{MTASTS: true, DANE: true, Reports: true},
		Limits: LimitsConfig{PerTenant: 6000, PerRecipient: 20},
		Log:    LogConfig{Level: "info", Format: "text"},
	}
}

func defaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/deliverd"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "deliverd")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "data"
	}
	return filepath.Join(home, ".local", "state", "deliverd")
}

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
	if (c.Send.RelayUser == "") != (c.Send.RelayPassword == "") {
		complain("send.relay_user and send.relay_password go together: set both or none")
	}
	c.validateSignIn(complain)
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
	for _, s := range c.DNS.Servers {
		if err := checkHostPort(withPort(s, "53")); err != nil {
			complain("dns.servers: %v; write it as \"127.0.0.1:53\"", err)
		}
	}
	for name, ref := range map[string]Secret{
		"nats.credentials": c.NATS.Credentials, "nats.password": c.NATS.Password,
		"send.relay_password": c.Send.RelayPassword, "keys.seal": c.Keys.Seal, "keys.root": c.Keys.Root,
		"signin.oidc.client_secret": c.SignIn.OIDC.ClientSecret,
	} {
		if err := ref.check(); err != nil {
			complain("%s: %v", name, err)
		}
	}
	if strings.HasPrefix(string(c.Keys.Seal), "env:") {
		complain("keys.seal: the key ring is a file that deliverd writes to; use \"file:PATH\"")
	}
	for i, k := range c.DKIM {
		if err := k.Key.check(); err != nil {
			complain("dkim[%d].key: %v", i, err)
		}
	}
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
	if bad != nil {
		return &ConfigError{bad}
	}
	return nil
}

// kinds returns the built-in kinds as the configuration changes and extends them.
func (c *Config) kinds() map[string]mail.Kind {
	kinds := mail.DefaultKinds()
	for name, change := range c.Kinds {
		k, known := kinds[name]
		if !known {
			k = mail.Kind{Name: name, Lane: 3, ValidFor: 24 * time.Hour,
				Retries: kinds["invite"].Retries}
		}
		if change.Lane != nil {
			k.Lane = *change.Lane
		}
		if change.ValidFor != nil {
			k.ValidFor = time.Duration(*change.ValidFor)
		}
		if change.Retries != nil {
			k.Retries = nil
			for _, r := range change.Retries {
				k.Retries = append(k.Retries, time.Duration(r))
			}
		}
		if change.Supersede != nil {
			k.Supersede = *change.Supersede
		}
		if change.ResendSame != nil {
			k.ResendSame = *change.ResendSame
		}
		if change.AtMostOnce != nil {
			k.AtMostOnce = *change.AtMostOnce
		}
		if change.TLS != nil {
			k.TLS = mail.TLSFloor(*change.TLS)
		}
		kinds[name] = k
	}
	if c.Bounces.Postmaster != "" {
		kinds[postmasterKind] = mail.Kind{Name: postmasterKind, Lane: 5, ValidFor: 5 * 24 * time.Hour, Retries: kinds["invite"].Retries}
	}
	return kinds
}

// queueKinds are the kinds and those that no request can ask for.
func (c *Config) queueKinds() map[string]mail.Kind {
	kinds := c.kinds()
	kinds[tlsrpt.Kind] = tlsrpt.Rules()
	return kinds
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

// Duration is a time.Duration that reads days as well: "7d", "1d12h", "15m".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) {
	v := time.Duration(d)
	if v >= 24*time.Hour && v%(24*time.Hour) == 0 {
		return []byte(strconv.Itoa(int(v/(24*time.Hour))) + "d"), nil
	}
	s := v.String() // "1h0m0s"
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

// ParseDuration reads what time.ParseDuration reads, and days before it.
func ParseDuration(s string) (time.Duration, error) {
	var days time.Duration
	rest := s
	if n, after, ok := strings.Cut(s, "d"); ok {
		v, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, errDuration(s)
		}
		days, rest = time.Duration(v)*24*time.Hour, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, errDuration(s)
	}
	return days + d, nil
}

func errDuration(s string) error {
	return fmt.Errorf("%q is not a duration; write it as \"90s\", \"15m\", \"2h\" or \"7d\"", s)
}

// Secret is a reference to a secret: "file:PATH", "env:NAME", or "cred:NAME" for a
// systemd credential. The configuration never holds a secret itself.
type Secret string

func (s Secret) check() error {
	if s == "" {
		return nil
	}
	scheme, name, ok := strings.Cut(string(s), ":")
	if !ok || name == "" || scheme != "file" && scheme != "env" && scheme != "cred" {
		// Whatever stands here may be the secret itself: don't repeat it.
		return errors.New("a secret is named, not written here: use \"file:PATH\", \"env:NAME\" or \"cred:NAME\"")
	}
	return nil
}

// Path returns the file behind a file: or cred: reference, "" for env: and none.
func (s Secret) Path() string {
	if p, ok := strings.CutPrefix(string(s), "file:"); ok {
		return p
	}
	if name, ok := strings.CutPrefix(string(s), "cred:"); ok {
		return filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), name)
	}
	return ""
}

// Read returns the secret without trailing newlines.
func (s Secret) Read() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if name, ok := strings.CutPrefix(string(s), "env:"); ok {
		v, ok := os.LookupEnv(name)
		if !ok {
			return nil, fmt.Errorf("the environment has no %s", name)
		}
		return []byte(v), nil
	}
	b, err := os.ReadFile(s.Path())
	if err != nil {
		return nil, err
	}
	return []byte(strings.TrimRight(string(b), "\r\n")), nil
}

// read is Read for a secret that may be absent: nil then.
func (s Secret) read() ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	return s.Read()
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

// hostname is what we call ourselves when the configuration doesn't say.
func hostname() string {
	if h, err := os.Hostname(); err == nil && strings.Contains(h, ".") {
		return h
	}
	return "localhost.localdomain"
}
