package deliver

import (
	_ "embed"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/dnscheck"
)

// Mail is grouped by where it really goes. The name of a destination is that of its
// provider, where destinations.txt has one, for ten thousand companies whose mail goes
// to one provider are one destination, whatever host names it gave them; and else the
// set of the domain's MX hosts.

//go:embed destinations.txt
var destinationFile string

// DestinationLimits are what a destination is known to take; 0: nothing is known.
type DestinationLimits struct {
	Connections int // at once
	Messages    int // on one connection
	PerMinute   int // messages
}

// destination is one paragraph of destinations.txt.
type destination struct {
	name      string
	providers []string
	apart     bool
	limits    DestinationLimits
	source    string
}

// destinations are the embedded file's, by provider. A broken file is a broken build: a
// test has read it before.
var destinations = sync.OnceValue(func() map[string]*destination {
	all, err := parseDestinations(destinationFile)
	if err != nil {
		panic("deliver: destinations.txt: " + err.Error())
	}
	by := map[string]*destination{}
	for _, d := range all {
		for _, p := range d.providers {
			by[p] = d
		}
	}
	return by
})

func parseDestinations(text string) (all []*destination, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		if word == "" || word[0] == '#' {
			continue
		}
		if word == "destination" {
			all = append(all, &destination{name: value})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("line %d: %s before the first destination", n, word)
		}
		if err := all[len(all)-1].set(word, value); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	for _, d := range all {
		if d.limits != (DestinationLimits{}) && d.source == "" {
			return nil, fmt.Errorf("%s: numbers without a source", d.name)
		}
	}
	return all, nil
}

func (d *destination) set(word, value string) (err error) {
	var number *int
	switch word {
	case "provider":
		d.providers = strings.Fields(value)
		return nil
	case "apart":
		d.apart = true
		return nil
	case "source":
		d.source = value
		return nil
	case "connections":
		number = &d.limits.Connections
	case "messages":
		number = &d.limits.Messages
	case "rate":
		number = &d.limits.PerMinute
	default:
		return fmt.Errorf("%s is no word of this file", word)
	}
	if *number, err = strconv.Atoi(value); err != nil || *number < 1 {
		return fmt.Errorf("%s %q: want a number", word, value)
	}
	return nil
}

// KnownLimits returns what a destination is known to take, by its name.
func KnownLimits(name string) DestinationLimits {
	for _, d := range destinations() {
		if d.name == name {
			return d.limits
		}
	}
	host, _, _ := strings.Cut(name, ",") // of a set of hosts
	if d := destinations()[bounces.Provider(host)]; d != nil {
		return d.limits
	}
	return DestinationLimits{}
}

// Destinations lists the names that destinations.txt gives.
func Destinations() (names []string) {
	for _, d := range destinations() {
		if !d.apart && !slices.Contains(names, d.name) {
			names = append(names, d.name)
		}
	}
	slices.Sort(names)
	return names
}

// The bounds of a set's name: more hosts are counted, and told apart by a hash.
const (
	namedHosts = 3
	namedBytes = 120
)

// destinationOf names where a route leads, and the provider that its best hosts belong
// to, "" if they belong to none or to several.
func destinationOf(r *dnscheck.Route) (name, provider string) {
	if len(r.Hosts) == 0 {
		return "", ""
	}
	best := r.Hosts[0].Pref
	provider = bounces.Provider(r.Hosts[0].Name)
	hosts := make([]string, 0, len(r.Hosts))
	for _, h := range r.Hosts {
		if h.Pref == best && bounces.Provider(h.Name) != provider {
			provider = ""
		}
		hosts = append(hosts, h.Name)
	}
	if d := destinations()[provider]; d != nil && !d.apart {
		return d.name, provider
	}
	if r.Dropped > 0 {
		return "", provider // which hosts are left is chance
	}
	slices.Sort(hosts)
	name = strings.Join(hosts, ",")
	if len(hosts) <= namedHosts && len(name) <= namedBytes {
		return name, provider
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	return fmt.Sprintf("%s,+%d-%08x", hosts[0], len(hosts)-1, h.Sum32()), provider
}
