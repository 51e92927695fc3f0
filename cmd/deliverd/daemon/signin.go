package daemon

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/queue"
)

// SignInConfig says who may use the pages.
type SignInConfig struct {
	Idle     Duration      `toml:"idle"`
	Lifetime Duration      `toml:"lifetime"`
	OIDC     OIDCConfig    `toml:"oidc"`
	Proxy    ProxyConfig   `toml:"proxy"`
	Grants   []GrantConfig `toml:"grants"`
}

// OIDCConfig names the OpenID Connect provider; an empty issuer means none.
type OIDCConfig struct {
	Issuer       string   `toml:"issuer"`
	ClientID     string   `toml:"client_id"`
	ClientSecret Secret   `toml:"client_secret"`
	Scopes       []string `toml:"scopes"`
	NameClaim    string   `toml:"name_claim"`
	GroupsClaim  string   `toml:"groups_claim"`
}

// ProxyConfig names the proxy before us, by its addresses.
type ProxyConfig struct {
	Addresses    []string `toml:"addresses"`
	UserHeader   string   `toml:"user_header"` // empty: the proxy signs nobody in
	GroupsHeader string   `toml:"groups_header"`
}

// GrantConfig gives a group a role.
type GrantConfig struct {
	Group   string   `toml:"group"`
	Role    string   `toml:"role"`
	Tenants []string `toml:"tenants"` // empty: all
}

func defaultSignIn() SignInConfig {
	return SignInConfig{
		Idle: Duration(4 * time.Hour), Lifetime: Duration(12 * time.Hour),
		OIDC: OIDCConfig{Scopes: []string{"profile", "email"}, NameClaim: "email", GroupsClaim: "groups"},
	}
}

// validateSignIn is the part of Validate that is about signing in.
func (c *Config) validateSignIn(complain func(format string, args ...any)) {
	s := &c.SignIn
	if s.Idle < Duration(time.Minute) || s.Lifetime < s.Idle || s.Lifetime > Duration(30*24*time.Hour) {
		complain("signin: idle is at least 1m, and lifetime no shorter than idle and at most 30d")
	}
	if o := &s.OIDC; o.Issuer != "" {
		if u, err := url.Parse(o.Issuer); err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(withPort(u.Host, "80"))) {
			complain("signin.oidc.issuer: %q is not an https address, as in \"https://login.example.com\"", o.Issuer)
		}
		if o.ClientID == "" || o.NameClaim == "" || o.GroupsClaim == "" {
			complain("signin.oidc: client_id, name_claim and groups_claim are all needed")
		}
		if c.Listen.URL == "" {
			complain("signin.oidc needs listen.url: the sign-in system sends people back to its /sign-in/callback")
		}
	}
	if _, err := s.Proxy.prefixes(); err != nil {
		complain("signin.proxy.addresses: %v; write them as \"127.0.0.1\" or \"10.0.0.0/28\"", err)
	}
	if p := &s.Proxy; (p.UserHeader != "" || p.GroupsHeader != "") && len(p.Addresses) == 0 {
		complain("signin.proxy.addresses: name the proxy whose headers count; anybody could send them")
	}
	if p := &s.Proxy; p.UserHeader != "" && strings.EqualFold(p.UserHeader, p.GroupsHeader) {
		complain("signin.proxy: user_header and groups_header are the same")
	}
	for i, g := range s.Grants {
		if g.Group == "" {
			complain("signin.grants[%d]: a group is needed", i)
		}
		if !slices.Contains(console.Roles[:], console.Role(g.Role)) {
			complain("signin.grants[%d].role: %q is none of support, operator, admin", i, g.Role)
		}
		if slices.Contains(g.Tenants, "") || slices.Contains(g.Tenants, console.AllTenants) {
			complain("signin.grants[%d].tenants: name tenants, or leave it out for all", i)
		}
	}
}

func (p *ProxyConfig) prefixes() ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range p.Addresses {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return nil, errors.New("not an address or a network: " + s)
			}
			prefix = netip.PrefixFrom(a, a.BitLen())
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

// grants are the configuration's, in the console's words.
func (s *SignInConfig) grants() []console.Grant {
	var grants []console.Grant
	for _, g := range s.Grants {
		tenants := g.Tenants
		if len(tenants) == 0 {
			tenants = []string{console.AllTenants}
		}
		grants = append(grants, console.Grant{Group: g.Group, Role: console.Role(g.Role), Tenants: tenants})
	}
	return grants
}

// withoutGrants is what only a restart changes.
func (s SignInConfig) withoutGrants() SignInConfig {
	s.Grants = nil
	return s
}

// baseURL is the address that people reach us by.
func (d *Daemon) baseURL() string {
	return cmp.Or(d.config.Listen.URL, "http://"+dialable(d.http.Addr().String()))
}

// signIn makes the ways in.
func (d *Daemon) signIn(ctx context.Context) (*console.SignIn, error) {
	sessions, err := d.queue.Shared(ctx, "sessions")
	if err != nil {
		return nil, err
	}
	links, err := d.queue.Shared(ctx, "login-links")
	if err != nil {
		return nil, err
	}
	c := &d.config.SignIn
	s := &console.SignIn{
		Sessions: console.NewSessions(lapsingStore{tokenStore{sessions}}, console.SessionLimits{
			Idle: time.Duration(c.Idle), Life: time.Duration(c.Lifetime)}, nil),
		Links:   console.NewLoginLinks(lapsingStore{tokenStore{links}}, nil),
		Grants:  func() []console.Grant { return d.settings.Load().config.SignIn.grants() },
		BaseURL: d.baseURL(), Now: time.Now, Note: d.serviceLog.Append, Log: d.log,
	}
	if len(c.Proxy.Addresses) > 0 {
		prefixes, err := c.Proxy.prefixes()
		if err != nil {
			return nil, err
		}
		s.Proxy = &console.Proxy{Addresses: prefixes, UserHeader: c.Proxy.UserHeader, GroupsHeader: c.Proxy.GroupsHeader}
	}
	if c.OIDC.Issuer != "" {
		if s.OIDC, err = d.oidc(&c.OIDC); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (d *Daemon) oidc(c *OIDCConfig) (*console.OIDC, error) {
	root, err := d.config.rootKey()
	if err != nil {
		return nil, err
	}
	key, err := derive(root, "sign-in")
	if err != nil {
		return nil, err
	}
	secret, err := c.ClientSecret.read()
	if err != nil {
		return nil, errors.New("signin.oidc.client_secret: " + err.Error())
	}
	return &console.OIDC{
		Issuer: c.Issuer, ClientID: c.ClientID, ClientSecret: string(secret), Scopes: c.Scopes,
		RedirectURL: strings.TrimSuffix(d.baseURL(), "/") + "/sign-in/callback",
		NameClaim:   c.NameClaim, GroupsClaim: c.GroupsClaim, Key: key, Now: time.Now,
	}, nil
}

// lapsingStore keeps sessions and login links where every node sees them.
type lapsingStore struct{ tokenStore }

func (s lapsingStore) Create(ctx context.Context, key string, value []byte, life time.Duration) (bool, error) {
	err := s.CreateFor(ctx, key, value, life)
	if errors.Is(err, queue.ErrExists) {
		return false, nil
	}
	return err == nil, err
}
