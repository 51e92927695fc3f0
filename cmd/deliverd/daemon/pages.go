package daemon

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/mail"
)

// pageParts is what the pages show beside what the API knows.
func (d *Daemon) pageParts(domains *console.Domains) console.PageParts {
	parts := console.PageParts{
		Hints: d.hints, Sample: d.sample.Load, Domains: domains,
		Templates: func() *mail.Templates { return d.settings.Load().templates },
		Kinds:     d.config.kinds(), From: d.config.Send.From, Health: d.healthParts,
	}
	if d.catch != nil {
		parts.Caught = caught{d.catch}
	}
	return parts
}

// healthParts looks at this installation from inside: it asks nobody outside, and
// changes nothing. What `deliverd doctor` asks beyond that takes longer.
func (d *Daemon) healthParts(ctx context.Context) []console.HealthPart {
	return []console.HealthPart{d.identityHealth(), d.keysHealth(), d.queueHealth(ctx), d.natsHealth(), d.viewHealth(ctx), d.diskHealth()}
}

func value(name, text string) console.HealthValue {
	return console.HealthValue{Name: name, Value: text}
}

func (d *Daemon) identityHealth() console.HealthPart {
	c := d.settings.Load().config
	part := console.HealthPart{Name: "Identity", State: console.HealthOK, Text: "Who we are to the servers that we talk to.", Values: []console.HealthValue{
		value("From", c.Send.From), value("Name (EHLO)", c.hello()), value("Return path", c.Send.ReturnPathDomain),
		value("Addresses", strings.Join(c.Send.Addresses, ", ")), value("Version", d.version),
	}}
	part.Values = filled(part.Values)
	if c.Send.ReturnPathDomain == "" {
		part.State, part.Text = console.HealthWarn, "Mail that comes back goes to the sender's address, and is not noticed here."
		part.Cure = "Set send.return_path_domain, and listen.bounces on the host that its MX names."
	}
	return part
}

// filled leaves out what there is nothing of.
func filled(all []console.HealthValue) []console.HealthValue {
	var there []console.HealthValue
	for _, v := range all {
		if v.Value != "" {
			there = append(there, v)
		}
	}
	return there
}

func (d *Daemon) keysHealth() console.HealthPart {
	part := console.HealthPart{Name: "Keys", State: console.HealthOK}
	for _, k := range d.settings.Load().config.DKIM {
		part.Values = append(part.Values, value("DKIM", k.Selector+"._domainkey."+k.Domain))
	}
	switch n := len(part.Values); n {
	case 0:
		part.State, part.Text = console.HealthWarn, "Mail goes out without a signature."
		part.Cure = "Make keys with `deliverd dkim new`, and publish them."
	case 1:
		part.Text = "Every mail is signed with one key."
	default:
		part.Text = "Every mail is signed with " + strconv.Itoa(n) + " keys."
	}
	return part
}

func (d *Daemon) queueHealth(ctx context.Context) console.HealthPart {
	part := console.HealthPart{Name: "Queue", State: console.HealthOK}
	s := d.queue.WaitingHere()
	part.Values = []console.HealthValue{
		value("Waiting", strconv.Itoa(s.All.Total())), value("Under way", strconv.Itoa(s.All.Sending)),
		value("Delayed", strconv.Itoa(s.All.Delayed)), value("Shards of this node", strconv.Itoa(s.Shards)),
	}
	switch err := d.queue.Healthy(ctx); {
	case err != nil:
		part.State, part.Text = console.HealthFail, "The store takes no writes: new mail is refused. "+err.Error()
		part.Cure = "Look at the disk first; with a NATS server elsewhere, at that one."
	case !s.Scanned:
		part.State, part.Text = console.HealthWarn, "What waited before the start is still being read."
	default:
		part.Text = "It takes mail, and knows all that waits."
	}
	return part
}

func (d *Daemon) natsHealth() console.HealthPart {
	part := console.HealthPart{Name: "NATS", State: console.HealthOK, Text: "Connected to a server elsewhere."}
	if d.embedded != nil {
		part.Text = "The server inside of this process is up."
	}
	part.Values = filled([]console.HealthValue{value("Server", d.nc.ConnectedServerName()), value("Server version", d.nc.ConnectedServerVersion())})
	if !d.nc.IsConnected() {
		part.State, part.Text, part.Cure = console.HealthFail, "There is no connection.", "Look at the server's log, and at what lies between."
	}
	return part
}

func (d *Daemon) viewHealth(ctx context.Context) console.HealthPart {
	part := console.HealthPart{Name: "Index", State: console.HealthOK, Text: "What these pages show is up to date."}
	last, err := d.queue.LastSeq(ctx)
	place := d.view.Place()
	part.Values = []console.HealthValue{value("Place in the event log", strconv.FormatUint(place, 10)+" / "+strconv.FormatUint(last, 10))}
	if err != nil || last > place+1000 {
		part.State, part.Text = console.HealthWarn, "What these pages show is behind what happened. Mail goes on."
	}
	return part
}

func (d *Daemon) diskHealth() console.HealthPart {
	part := console.HealthPart{Name: "Disk", State: console.HealthOK, Values: []console.HealthValue{value("Data", d.config.Data)}}
	free, _, err := diskSpace(d.config.Data)
	part.Text = fmt.Sprintf("%.1f GiB are free.", float64(free)/(1<<30))
	switch {
	case err != nil:
		part.State, part.Text = console.HealthWarn, "Can't tell how much space is free."
	case free < 1<<30:
		part.State, part.Cure = console.HealthFail, "Free some space: intake stops when the disk is full."
	case free < 5<<30:
		part.State, part.Cure = console.HealthWarn, "A million waiting messages take some 4 GiB."
	}
	return part
}
