package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/tlsrpt"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// settings is what a reload (SIGHUP) may change while messages are under way: a
// reload makes a new value and swaps the whole.
type settings struct {
	config    *Config
	templates *mail.Templates
	preparer  *mail.Preparer
	deliverer *deliver.Deliverer
}

// newSettings reads everything that the configuration names, so that a mistake is
// found before anything is swapped.
func (d *Daemon) newSettings(c *Config) (*settings, error) {
	s := &settings{config: c}
	var err error
	if s.templates, err = mail.LoadTemplates(c.Templates.Dir); err != nil {
		return nil, fmt.Errorf("templates.dir: %w", err)
	}
	s.preparer = &mail.Preparer{
		Kinds:     d.config.kinds(), // the queue's, which stay until a restart
		Templates: s.templates, From: c.Send.From, FromDomains: c.fromDomains(),
		TenantDomains: d.tenantDomains,
	}
	if s.deliverer, err = d.newDeliverer(c, s.templates); err != nil {
		return nil, err
	}
	return s, nil
}

// openSettings makes the first settings.
func (d *Daemon) openSettings(ctx context.Context) error {
	var err error
	if d.resolver, err = d.config.Resolver(); err != nil {
		return err
	}
	if err := d.openTLS(ctx); err != nil {
		return err
	}
	s, err := d.newSettings(d.config)
	if err != nil {
		return err
	}
	d.settings.Store(s)
	d.start("DKIM keys", d.tendDKIM)
	d.cleanups.add("connections", func(context.Context) error {
		d.settings.Load().deliverer.Close()
		return nil
	})
	d.watchGauges()
	return nil
}

// Reload takes over what a new configuration changes, or nothing if it is not valid.
// What only a restart can change is said and stays as it was.
func (d *Daemon) Reload(c *Config) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	old := d.settings.Load()
	s, err := d.newSettings(c)
	if err != nil {
		return err
	}
	d.settings.Store(s)
	for _, name := range restartOnly(d.config, c) {
		d.log.Warn("this change takes a restart", "section", name)
	}
	// Attempts under way keep their connections; those that wait are closed.
	old.deliverer.Close()
	changed := changedSections(old.config, c)
	if len(changed) == 0 {
		changed = []string{"nothing but what the named files hold"}
	}
	d.notice("config.reload", "", "changed: "+strings.Join(changed, ", "))
	return nil
}

// changedSections names the top-level keys whose values differ.
func changedSections(a, b *Config) (names []string) {
	va, vb := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for f := range va.Type().Fields() {
		if name := keyName(f); name != "" && !reflect.DeepEqual(va.FieldByIndex(f.Index).Interface(), vb.FieldByIndex(f.Index).Interface()) {
			names = append(names, name)
		}
	}
	return names
}

// restartOnly names the changed sections, and keys of others, that a reload leaves as
// they were.
func restartOnly(a, b *Config) (names []string) {
	for _, name := range changedSections(a, b) {
		switch name {
		case "data", "listen", "bounces", "nats", "keys", "log", "lab", "dns", "limits", "kinds", "tls":
			names = append(names, name)
		}
	}
	for _, key := range []struct {
		name    string
		changed bool
	}{
		{"send.concurrency", a.Send.Concurrency != b.Send.Concurrency},
		{"send.per_destination", a.Send.PerDestination != b.Send.PerDestination},
		{"send.private_addresses", a.Send.PrivateAddresses != b.Send.PrivateAddresses},
		{"signin (but for grants)", !reflect.DeepEqual(a.SignIn.withoutGrants(), b.SignIn.withoutGrants())},
		{"send.return_path_domain", a.Send.ReturnPathDomain != b.Send.ReturnPathDomain},
	} {
		if key.changed {
			names = append(names, key.name)
		}
	}
	return names
}

// newDeliverer makes what attempts are made with.
func (d *Daemon) newDeliverer(c *Config, templates *mail.Templates) (*deliver.Deliverer, error) {
	signer, err := c.signer()
	if err != nil {
		return nil, err
	}
	plan, err := d.planner(c)
	if err != nil {
		return nil, err
	}
	o := deliver.Options{
		Hello:       c.hello(),
		Render:      render(templates),
		ReturnPath:  d.returnPath,
		Sign:        signer,
		RequireDKIM: signer != nil,
		Plan:        plan,
		Floor:       d.floors(),
		Seen:        d.seen,
		Sessions:    d.tlsSession,
		Dial:        c.labDial(),
		Sources:     c.sources(),
		Origins:     c.origins(),
		Signers:     d.signers,
		Log:         d.log,
	}
	if c.Send.Relay != "" {
		// Our own relay gets all the mail there is, and its connections are worth keeping.
		o.Pool.PerHost = c.Send.Concurrency
	}
	if d.catch != nil {
		o.RootCAs = d.catch.Roots()
	}
	return deliver.New(o)
}

// render makes the bytes of messages: of templates, but for reports of our own.
func render(templates *mail.Templates) func(*mail.Message) ([]byte, error) {
	return func(m *mail.Message) ([]byte, error) {
		if m.Kind == tlsrpt.Kind {
			return tlsrpt.Render(m)
		}
		return templates.Render(m)
	}
}

// returnPath is the envelope sender of a message, which names it by a token where
// there is a domain for bounces.
func (d *Daemon) returnPath(id mail.ID) string {
	if d.returns == nil {
		return string(addrSpec(d.config.Send.From))
	}
	return d.returns.Address(id)
}

// addrSpec is the address in "Acme <no-reply@example.com>", "" if there is none.
func addrSpec(from string) mail.Address {
	_, a, err := mail.ParseMailbox(from)
	if err != nil {
		return ""
	}
	return a
}

// planner decides where mail goes: to the catching server, to the relay, or where
// the MX says.
func (d *Daemon) planner(c *Config) (deliver.Planner, error) {
	if d.catch != nil {
		return deliver.Fixed("catch.acme.example", d.catch.Addr(), deliver.TLSOpportunistic), nil
	}
	if c.Send.Relay == "" {
		return deliver.ByMX(d.resolver.Route, d.policies.Find), nil
	}
	host, port, err := net.SplitHostPort(c.Send.Relay)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	relay := deliver.Plan{Port: uint16(n), TLS: deliver.TLSOpportunistic}
	if port == "465" {
		relay.TLS = deliver.TLSImplicit
	}
	if c.Send.RelayUser != "" {
		password, err := c.Send.RelayPassword.Read()
		if err != nil {
			return nil, fmt.Errorf("send.relay_password: %w", err)
		}
		relay.Login = &deliver.Login{User: c.Send.RelayUser, Password: string(password)}
		if relay.TLS == deliver.TLSOpportunistic {
			relay.TLS = deliver.TLSVerified // a password goes to the host that we mean, or nowhere
		}
	}
	return deliver.ByRelay(relay, host, d.relayAddrs), nil
}

// relayAddrs finds our own relay, which may well be on a private network.
func (d *Daemon) relayAddrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	v4, err4 := d.resolver.A(ctx, host)
	v6, err6 := d.resolver.AAAA(ctx, host)
	if addrs := append(v4.List, v6.List...); len(addrs) > 0 {
		return addrs, nil
	}
	if err4 != nil {
		return nil, err4
	}
	return nil, err6
}

// sources are the addresses to bind, none unless the configuration says so.
func (c *Config) sources() []netip.Addr {
	if !c.Send.Bind {
		return nil
	}
	return parsedAddrs(c.Send.Addresses)
}

// fromDomains are the domains that a request may send from: those that we sign for,
// and that of the configured sender.
func (c *Config) fromDomains() []string {
	var domains []string
	for _, k := range c.DKIM {
		domains = append(domains, strings.ToLower(k.Domain))
	}
	if a := addrSpec(c.Send.From); a != "" {
		domains = append(domains, a.Domain())
	}
	return domains
}

var discard = slog.New(slog.DiscardHandler)

// Resolver makes the resolver that deliveries, checks and the doctor share.
func (c *Config) Resolver() (*dnscheck.Resolver, error) {
	return dnscheck.NewResolver(dnscheck.ResolverOptions{
		Servers: c.DNS.Servers, Validating: c.DNS.Validating, Private: c.Send.PrivateAddresses,
	})
}

// hello is the name that we greet with.
func (c *Config) hello() string {
	if c.Send.Hello != "" {
		return c.Send.Hello
	}
	return hostname()
}

// dataFile is a path in the data directory.
func (c *Config) dataFile(name ...string) string {
	return filepath.Join(append([]string{c.Data}, name...)...)
}
