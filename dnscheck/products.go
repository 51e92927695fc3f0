package dnscheck

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
)

// products are files so that one can be added, or a menu that moved be corrected,
// by whoever sees it: products/README.md says how.
//
//go:embed products/*.json clients.json
var productFiles embed.FS

// product is what a file says about something that receives or filters mail.
type product struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Kind is gateway (filters, then hands on), mailbox, hosting, forwarder,
	// self_hosted or api_overlay (reads mailboxes from within).
	Kind string `json:"kind"`
	// How it is recognised: names below which its hosts are, with "*" for one
	// label; and beginnings of verification records.
	MX           []string `json:"mx,omitempty"`
	SPF          []string `json:"spf,omitempty"`
	Autodiscover []string `json:"autodiscover,omitempty"`
	TXT          []string `json:"txt,omitempty"`
	Header       string   `json:"header,omitempty"`
	Verified     string   `json:"verified"` // official, third_party or unverified
	Source       string   `json:"source,omitempty"`
	Methods      []method `json:"methods"`
	// Behind is what to do here when a gateway stands in front.
	Behind map[string]*steps `json:"behind,omitempty"`
}

// method is one way to allow a sender.
type method struct {
	Rank        int               `json:"rank"`
	Recommended bool              `json:"recommended,omitempty"`
	Identifier  []string          `json:"identifier"` // keys of values
	Source      string            `json:"source,omitempty"`
	Words       map[string]*steps `json:"words"` // by language
}

// steps are a method's words in one language. {from}, {return_path}, {dkim},
// {ip}, {hello} and {links} stand for our values.
type steps struct {
	Method  string   `json:"method,omitempty"`
	Steps   []string `json:"steps"`
	Skips   string   `json:"skips,omitempty"`
	Applies string   `json:"applies,omitempty"`
	Caveats []string `json:"caveats,omitempty"`
}

// client is what a file says about a person's mail program.
type client struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Verified string            `json:"verified"`
	Source   string            `json:"source,omitempty"`
	Words    map[string]*steps `json:"words"`
}

// catalogue is all products and clients, by id in order. It is read once, from
// files that the tests have read before.
var catalogue = sync.OnceValues(func() ([]*product, []*client) {
	names, err := productFiles.ReadDir("products")
	if err != nil {
		panic(err)
	}
	var all []*product
	for _, name := range names {
		all = append(all, decode[product](path.Join("products", name.Name())))
	}
	return all, *decode[[]*client]("clients.json")
})

// Products lists the products that advice can be asked for, by id.
func Products() []Product {
	all, _ := catalogue()
	list := make([]Product, len(all))
	for i, p := range all {
		list[i] = Product{p.ID, p.Name}
	}
	return list
}

// decode reads an embedded file; a broken one is a broken build.
func decode[T any](name string) *T {
	data, err := productFiles.ReadFile(name)
	if err != nil {
		panic(err)
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		panic(fmt.Sprintf("%s: %v", name, err))
	}
	return v
}

// detection is which products the domain's mail goes through.
type detection struct {
	front  *product // that the MX leads to
	behind *product // the mailboxes behind a gateway
	forced *product // that the caller asked for
}

func (d detection) named() (front, behind *Product) {
	name := func(p *product) *Product {
		if p == nil {
			return nil
		}
		return &Product{p.ID, p.Name}
	}
	return name(d.front), name(d.behind)
}

// detect recognises the products. The exchangers of the best preference decide;
// what stands behind a gateway shows in SPF, autodiscover and verification
// records. Add-ons that read mailboxes over an API leave no trace in the DNS.
func detect(s *survey, found *sights) detection {
	all, _ := catalogue()
	var d detection
	if i := slices.IndexFunc(all, func(p *product) bool { return p.ID == s.options.Product }); i >= 0 {
		d.forced = all[i]
	}
	m := found.reception
	seen := map[string]string{}
	for i := range m.hosts {
		h := &m.hosts[i]
		p := byHost(all, h)
		if p == nil || m.implicit {
			continue
		}
		if d.front == nil && h.Pref == m.hosts[0].Pref {
			d.front = p
		}
		if seen[p.ID] == "" {
			seen[p.ID] = h.Name
		}
	}
	if len(seen) > 1 {
		var hosts []string
		for id, host := range seen {
			hosts = append(hosts, host+" ("+id+")")
		}
		slices.Sort(hosts)
		s.add("mx.mixed_providers", s.domain, "The exchangers belong to different products, so mail takes different filters by chance or when one is down.", shown(hosts...))
	}
	if d.front == nil || d.front.Kind != "mailbox" && d.front.Kind != "hosting" {
		d.behind = standsBehind(all, found, d.front)
	}
	return d
}

// byHost finds the product that a host, or the host that it is an alias of,
// belongs to: the one with the longest matching name.
func byHost(all []*product, h *Host) *product {
	for _, host := range append([]string{h.Name}, h.Aliases...) {
		if p := longest(all, host, func(p *product) []string { return p.MX }); p != nil {
			return p
		}
	}
	return nil
}

// longest finds the product that has the longest of its names above host.
func longest(all []*product, host string, names func(*product) []string) *product {
	var best *product
	length := 0
	for _, p := range all {
		for _, suffix := range names(p) {
			if len(suffix) > length && belongs(host, suffix) {
				best, length = p, len(suffix)
			}
		}
	}
	return best
}

// belongs reports whether host is suffix or below it, label by label; "*" in
// suffix is any one label.
func belongs(host, suffix string) bool {
	have, want := strings.Split(host, "."), strings.Split(suffix, ".")
	if len(have) < len(want) {
		return false
	}
	have = have[len(have)-len(want):]
	for i := range want {
		if want[i] != "*" && want[i] != have[i] {
			return false
		}
	}
	return true
}

// standsBehind finds the mailbox product behind front, by the strength of the
// trace: autodiscover leads Outlook to the mailboxes, SPF names who sends, and
// a verification record may be left from a trial.
func standsBehind(all []*product, found *sights, front *product) *product {
	mailboxes := slices.DeleteFunc(slices.Clone(all), func(p *product) bool { return p == front || p.Kind != "mailbox" })
	for _, target := range found.discover.List {
		if p := longest(mailboxes, target, func(p *product) []string { return p.Autodiscover }); p != nil {
			return p
		}
	}
	for _, name := range found.spf.named() {
		if p := longest(mailboxes, name, func(p *product) []string { return p.SPF }); p != nil {
			return p
		}
	}
	if front == nil {
		return nil
	}
	for _, txt := range found.spf.root().texts {
		for _, p := range mailboxes {
			if slices.ContainsFunc(p.TXT, func(start string) bool { return strings.HasPrefix(lowerASCII(txt.String()), lowerASCII(start)) }) {
				return p
			}
		}
	}
	return nil
}

// root is the domain's own policy.
func (t *spfTree) root() *spfNode { return t.nodes[t.dns.domain] }

// named lists the domains that the domain's own policy includes, in its order.
func (t *spfTree) named() []string {
	var names []string
	for i := range t.root().steps {
		if st := &t.root().steps[i]; st.term.name == "include" || st.term.name == "redirect" {
			names = append(names, lowerASCII(st.target))
		}
	}
	return names
}

// advice is how the products can be told to let our mail in: from the outside in,
// what we recommend first.
func (d detection) advice(o *Options) []Advice {
	front := d.front
	if d.forced != nil {
		front = d.forced
	}
	out := []Advice{}
	if front != nil {
		out = append(out, front.advice(o)...)
	}
	if d.behind == nil || d.forced != nil {
		return out
	}
	if words := inLanguage(d.behind.Behind, o.Lang); front != nil && words != nil {
		return append(out, d.behind.fill(&method{Rank: 1, Source: d.behind.Source}, words, o))
	}
	return append(out, d.behind.advice(o)...)
}

func (p *product) advice(o *Options) []Advice {
	var out []Advice
	for i := range p.Methods {
		out = append(out, p.fill(&p.Methods[i], inLanguage(p.Methods[i].Words, o.Lang), o))
	}
	slices.SortStableFunc(out, func(a, b Advice) int { return cmp.Compare(a.Rank, b.Rank) })
	return out
}

func inLanguage(words map[string]*steps, lang string) *steps {
	if w := words[lang]; w != nil {
		return w
	}
	return words["en"]
}

// fill writes our values into a method.
func (p *product) fill(m *method, w *steps, o *Options) Advice {
	values := ourValues(o)
	a := Advice{
		Product: p.ID, Method: w.Method, Rank: m.Rank, Recommended: m.Recommended, Identifier: m.Identifier,
		Values: map[string][]string{}, Skips: w.Skips, Applies: w.Applies, Header: p.Header,
		Source: cmp.Or(m.Source, p.Source), Verified: p.Verified == "official", Caveats: w.Caveats,
	}
	for _, key := range m.Identifier {
		if len(values[key]) > 0 {
			a.Values[key] = values[key]
		}
	}
	replace := values.replacer(o.Lang)
	for _, step := range w.Steps {
		a.Steps = append(a.Steps, replace.Replace(step))
	}
	return a
}

// senderValues are the values that a rule may recognise us by.
type senderValues map[string][]string

func ourValues(o *Options) senderValues {
	v := senderValues{}
	u := o.Sender
	if u == nil {
		return v
	}
	for _, addr := range u.Addresses {
		v["ip"] = append(v["ip"], addr.String())
	}
	for key, value := range map[string]string{"from": u.From, "return_path": u.ReturnPath, "hello": u.Hello} {
		if value != "" {
			v[key] = []string{value}
		}
	}
	for _, key := range u.Keys {
		if !slices.Contains(v["dkim"], key.Domain) {
			v["dkim"] = append(v["dkim"], key.Domain)
		}
	}
	v["links"] = u.LinkHosts
	return v
}

// unnamed stand for values that are not configured.
var unnamed = map[string]map[string]string{
	"en": {"ip": "<our sending addresses>", "from": "<our From domain>", "return_path": "<our envelope domain>", "dkim": "<our DKIM domain>", "hello": "<our server's name>", "links": "<the hosts of our links>"},
	"fi": {"ip": "<lähettävät osoitteemme>", "from": "<lähettäjän verkkotunnuksemme>", "return_path": "<kirjekuoren verkkotunnuksemme>", "dkim": "<DKIM-verkkotunnuksemme>", "hello": "<palvelimemme nimi>", "links": "<linkkiemme palvelimet>"},
}

func (v senderValues) replacer(lang string) *strings.Replacer {
	names := unnamed[lang]
	if names == nil {
		names = unnamed["en"]
	}
	var pairs []string
	for key, instead := range names {
		if len(v[key]) > 0 {
			instead = strings.Join(v[key], ", ")
		}
		pairs = append(pairs, "{"+key+"}", instead)
	}
	return strings.NewReplacer(pairs...)
}

// clientAdvice is what a person can do in a mail program.
func clientAdvice(o *Options) []ClientAdvice {
	_, clients := catalogue()
	replace := ourValues(o).replacer(o.Lang)
	var out []ClientAdvice
	for _, c := range clients {
		w := inLanguage(c.Words, o.Lang)
		a := ClientAdvice{ID: c.ID, Name: c.Name, Limits: w.Applies, Source: c.Source, Verified: c.Verified == "official"}
		for _, step := range w.Steps {
			a.Steps = append(a.Steps, replace.Replace(step))
		}
		out = append(out, a)
	}
	return out
}
