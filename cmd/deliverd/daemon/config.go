package daemon

import (
	"os"
	"path/filepath"
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

// hostname is what we call ourselves when the configuration doesn't say.
func hostname() string {
	if h, err := os.Hostname(); err == nil && strings.Contains(h, ".") {
		return h
	}
	return "localhost.localdomain"
}
