package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// Rotations are the domains whose DKIM keys deliverd has taken into its own hands, by
// domain. A domain that is not in it signs with the keys of its [[dkim]] sections.
//
// They are kept in the file rotation.json beside the keys. `deliverd dkim rotate`
// writes to it, and so does each daemon that has the directory: always under a lock,
// reading before writing.
type Rotations map[string]*deliver.Rotation

// DKIMDir is where keys are made and the state of rotations is kept. Nodes of one
// cluster share it.
func (c *Config) DKIMDir() string {
	if c.Keys.DKIM != "" {
		return c.Keys.DKIM
	}
	return c.dataFile("dkim")
}

func (c *Config) rotationFile() string { return filepath.Join(c.DKIMDir(), "rotation.json") }

// Rotations reads them; there are none without a file.
func (c *Config) Rotations() (Rotations, error) {
	text, err := os.ReadFile(c.rotationFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r Rotations
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; put it back from a backup, or remove it to sign with the keys of the [[dkim]] sections", c.rotationFile(), err)
	}
	for domain, rotation := range r {
		if rotation == nil {
			delete(r, domain)
		}
	}
	return r, nil
}

// ChangeRotations lets change work on what is there, and keeps the result if it
// reports true.
func (c *Config) ChangeRotations(change func(Rotations) (bool, error)) error {
	if err := os.MkdirAll(c.DKIMDir(), 0o700); err != nil {
		return err
	}
	unlock, err := lockFile(filepath.Join(c.DKIMDir(), "rotation.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	r, err := c.Rotations()
	if err != nil {
		return err
	}
	if r == nil {
		r = make(Rotations)
	}
	if changed, err := change(r); err != nil || !changed {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeFileSync(c.rotationFile(), append(text, '\n'))
}

// Take returns a domain's rotation. One that is taken into our hands begins with the
// keys of its [[dkim]] sections, which sign at present.
func (r Rotations) Take(c *Config, domain string) *deliver.Rotation {
	if has := r[domain]; has != nil {
		return has
	}
	taken := new(deliver.Rotation)
	var keys []deliver.RotatingKey
	for _, k := range c.DKIM {
		if strings.EqualFold(k.Domain, domain) && k.Selector != "" {
			keys = append(keys, deliver.RotatingKey{Selector: k.Selector, Key: string(k.Key)})
		}
	}
	if keys != nil {
		taken.Generations = append(taken.Generations, deliver.Generation{Phase: deliver.PhaseActive, Keys: keys})
	}
	r[domain] = taken
	return taken
}

// Keyring reads the DKIM keys that mail is signed with at present.
func (c *Config) Keyring() ([]*deliver.Key, error) {
	rotations, err := c.Rotations()
	if err != nil {
		return nil, err
	}
	var keys []*deliver.Key
	asked := make(map[string]bool)
	for i, k := range c.DKIM {
		domain := strings.ToLower(k.Domain)
		if r := rotations[domain]; r != nil {
			if g := r.Active(); g != nil && !asked[domain] {
				active, err := ReadKeys(domain, g)
				if err != nil {
					return nil, err
				}
				keys = append(keys, active...)
			}
			asked[domain] = true
			continue
		}
		if k.Selector == "" {
			return nil, fmt.Errorf("dkim[%d]: there is no key of %s yet; make one with `deliverd dkim rotate %s`", i, k.Domain, k.Domain)
		}
		key, err := readKey(k.Domain, k.Selector, k.Key)
		if err != nil {
			return nil, fmt.Errorf("dkim[%d].key: %w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// ReadKeys reads the keys of one generation.
func ReadKeys(domain string, g *deliver.Generation) ([]*deliver.Key, error) {
	var keys []*deliver.Key
	for _, k := range g.Keys {
		key, err := readKey(domain, k.Selector, Secret(k.Key))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func readKey(domain, selector string, ref Secret) (*deliver.Key, error) {
	pem, err := ref.Read()
	if err != nil {
		return nil, fmt.Errorf("%w; make a key with `deliverd dkim new %s`", err, domain)
	}
	return deliver.ParseKey(domain, selector, pem)
}

// signer makes a signer of the keys that sign at present; nil where mail leaves
// unsigned, as no [[dkim]] section asks for a signature. A domain whose only key
// leaked has none: its mail waits.
func (c *Config) signer() (*deliver.Signer, error) {
	if len(c.DKIM) == 0 {
		return nil, nil
	}
	keys, err := c.Keyring()
	if err != nil {
		return nil, err
	}
	s, err := deliver.NewSigner(keys...)
	if err != nil {
		return nil, err
	}
	rotations, err := c.Rotations()
	for domain, r := range rotations {
		for _, g := range r.Generations {
			for _, k := range g.Keys {
				if g.Leaked {
					s.Distrust(domain, k.Selector)
				}
			}
		}
	}
	return s, err
}

const (
	// rotationStat is how soon a change by `deliverd dkim rotate` is noticed: a key that
	// leaked must not sign for long.
	rotationStat = 2 * time.Second
	// rotationLook is how often DNS is asked for what a rotation waits for, and
	// rotationHeld where mail is held until it is there.
	rotationLook = time.Minute
	rotationHeld = 5 * time.Second
)

// tendDKIM carries rotations on, and signs with what they say.
func (d *Daemon) tendDKIM(ctx context.Context) {
	var known, next time.Time
	if info, err := os.Stat(d.config.rotationFile()); err == nil {
		known = info.ModTime()
	}
	for {
		if now := time.Now(); !now.Before(next) {
			held, err := d.lookDKIM(ctx)
			if err != nil && ctx.Err() == nil {
				d.log.Error("DKIM rotation stands still", "error", err)
			}
			next = now.Add(rotationLook)
			if held {
				next = now.Add(rotationHeld)
			}
		}
		if info, err := os.Stat(d.config.rotationFile()); err == nil && !info.ModTime().Equal(known) {
			known = info.ModTime()
			if err := d.resign(); err != nil {
				d.log.Error("the DKIM keys could not be taken over; the former ones sign on", "error", err)
			}
			next = time.Time{}
		}
		if !sleep(ctx, rotationStat) {
			return
		}
	}
}

// lookDKIM asks DNS for what the rotations wait for, and takes the steps that are due.
// held says that a domain's mail waits for its first sound key.
func (d *Daemon) lookDKIM(ctx context.Context) (held bool, err error) {
	c := d.settings.Load().config
	rotations, err := c.Rotations()
	if err != nil || len(rotations) == 0 {
		return false, err
	}
	seen := make(map[string]map[string]deliver.Sighting)
	for domain, r := range rotations {
		seen[domain] = make(map[string]deliver.Sighting)
		for _, g := range r.Generations {
			if g.Phase != deliver.PhaseNext && g.Phase != deliver.PhaseRevoke {
				continue
			}
			if s, known, _ := SeeDKIM(ctx, d.resolver, domain, &g); known {
				seen[domain][g.Name()] = s
			}
		}
	}
	err = c.ChangeRotations(func(now Rotations) (bool, error) {
		before, _ := json.Marshal(now)
		for _, domain := range slices.Sorted(maps.Keys(now)) {
			for _, n := range now[domain].Advance(time.Now().UTC(), mail.MaxLife, seen[domain]) {
				d.tellRotation(c, domain, &n)
			}
			held = held || now[domain].Active() == nil && now[domain].Next() != nil
		}
		after, err := json.Marshal(now)
		return string(before) != string(after), err
	})
	return held, err
}

// tellRotation writes a step into the service log, and removes keys that are no use
// any more.
func (d *Daemon) tellRotation(c *Config, domain string, n *deliver.News) {
	name := n.Generation.Name() + "._domainkey." + domain
	switch n.Generation.Phase {
	case deliver.PhaseActive:
		d.notice("dkim.active", name, "the new keys are published everywhere, and sign from now on")
	case deliver.PhaseOld:
		until := n.Generation.UnusedAt.Add(mail.MaxLife).Format(time.DateOnly)
		d.notice("dkim.old", name, "the former keys sign no more; leave their records until "+until)
	case deliver.PhaseRevoke:
		if !n.Dropped {
			d.notice("dkim.revoke", name, "nothing waits that these keys have signed: revoke them in DNS, as `deliverd dkim rotate --status "+domain+"` says")
			return
		}
		d.removeKeys(c, &n.Generation)
		d.notice("dkim.revoked", name, "the revoked keys are gone from DNS, and from here")
	}
}

// removeKeys removes the keys of a generation that lie in our own directory: only those
// were made by us.
func (d *Daemon) removeKeys(c *Config, g *deliver.Generation) {
	for _, k := range g.Keys {
		path := Secret(k.Key).Path()
		if path == "" || filepath.Dir(path) != c.DKIMDir() {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Error("a revoked DKIM key can't be removed", "error", err)
		}
	}
}

// resign takes over the keys that sign at present, and nothing else: the
// configuration is read again only when it is asked for.
func (d *Daemon) resign() error { return d.Reload(d.settings.Load().config) }

// SeeDKIM asks each configured resolver for a generation's records, past anything
// that is remembered. missing says in words what keeps the sighting from being right.
// It is not known where a resolver did not answer.
func SeeDKIM(ctx context.Context, r *dnscheck.Resolver, domain string, g *deliver.Generation) (s deliver.Sighting, known bool, missing []string) {
	keys, err := ReadKeys(domain, g)
	unreadable := err != nil // a key that is gone can still be revoked
	resolvers, err := r.Each()
	if err != nil {
		return s, false, []string{err.Error()}
	}
	s, known = deliver.Sighting{Right: !unreadable, Gone: true}, true
	for _, addr := range slices.Sorted(maps.Keys(resolvers)) {
		for i, k := range g.Keys {
			name := k.Selector + "._domainkey." + domain
			found, err := resolvers[addr].TXT(ctx, name)
			if e, ok := errors.AsType[*dnscheck.Error](err); ok && (e.Kind == dnscheck.NoDomain || e.Kind == dnscheck.NoData) {
				s.Right = false
				missing = append(missing, fmt.Sprintf("%s has no record at %s", addr, name))
				continue
			}
			if err != nil {
				known = false
				missing = append(missing, fmt.Sprintf("%s did not answer: %v", addr, err))
				continue
			}
			if !allRevoked(found.List) {
				s.Gone = false
			}
			if !unreadable {
				if err := anyRight(keys[i], found.List); err != nil {
					s.Right = false
					missing = append(missing, addr+": "+err.Error())
				}
			}
		}
	}
	return s, known && len(resolvers) > 0, missing
}

// anyRight reports whether one of the records is the key's.
func anyRight(k *deliver.Key, list []dnscheck.TXT) (err error) {
	err = fmt.Errorf("%s is empty", k.RecordName())
	for _, txt := range list {
		if err = k.CheckRecord(txt.String()); err == nil {
			return nil
		}
	}
	return err
}

// allRevoked reports whether no record has a key in it: an empty p= revokes (RFC 6376
// 3.6.1).
func allRevoked(list []dnscheck.TXT) bool {
	for _, txt := range list {
		for tag := range strings.SplitSeq(txt.String(), ";") {
			name, value, _ := strings.Cut(tag, "=")
			if strings.TrimSpace(name) == "p" && strings.TrimSpace(value) != "" {
				return false
			}
		}
	}
	return true
}
