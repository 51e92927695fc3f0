package sample

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// tenant is a customer of the made-up company.
type tenant struct{ id, name string }

// person is somebody who waits for mail.
type person struct {
	name, address, locale string
	tenant                tenant
}

// request is mail that is sent now.
func request(kind string, who person) mail.Request {
	r := mail.Request{
		Kind: kind, To: who.address, ToName: who.name, Tenant: who.tenant.id, TenantName: who.tenant.name,
		Locale: who.locale, Tags: []string{Tag}, Data: map[string]any{"timezone": "Europe/Helsinki"},
	}
	switch kind {
	case "pin":
		r.Data["code"], r.Data["device"] = "482913", "Pixel 10"
	case "invite":
		r.Data["link"], r.Data["inviter"] = "https://login.acme.example/i/sample", "Lars Lindqvist"
	default:
		r.Data["link"] = "https://login.acme.example/r/sample"
	}
	return r
}

// life is a message that was asked for some time ago, and what became of it.
type life struct {
	kind  string
	who   person
	ago   time.Duration // when it was asked for
	valid time.Duration // 0: as long as its kind is
	turns []turn
}

// turn is one thing that happened to a message.
type turn struct {
	after time.Duration // since it was asked for
	state mail.State
	cause mail.Cause
	reply mail.Reply
	// suppress: it is about the address itself.
	suppress bool
	seen     string // what was seen instead of a reply
	stage    mail.Stage
}

// facts are what the event log says of a message that was asked for before now.
func (l life) facts(now time.Time) []mail.Event {
	at := now.Add(-l.ago)
	valid := l.valid
	if valid == 0 {
		valid = mail.DefaultKinds()[l.kind].ValidFor
	}
	m := mail.Message{
		ID: mail.NewID(at), Kind: l.kind, Template: l.kind, Tenant: l.who.tenant.id, TenantName: l.who.tenant.name,
		To: mail.Address(l.who.address), ToName: l.who.name, Locale: l.who.locale, Tags: []string{Tag}, Source: "login",
		QueuedAt: at, ExpiresAt: at.Add(valid),
	}
	m.Ref = m.ID.Ref()
	facts := []mail.Event{mail.NewEvent(&m, mail.StateQueued, 0, at)}
	attempt := 0
	for i, t := range l.turns {
		if t.attempted() {
			attempt++
		}
		e := mail.NewEvent(&m, t.state, attempt, at.Add(t.after))
		e.Cause, e.Suppress = t.cause, t.suppress
		if t.attempted() || t.state == mail.StateReturned {
			e.Evidence = l.evidence(&e, t)
		}
		if t.state == mail.StateDelayed && i+1 < len(l.turns) {
			e.NextAttempt = at.Add(l.turns[i+1].after)
		}
		facts = append(facts, e)
	}
	return facts
}

func (t turn) attempted() bool {
	return t.state == mail.StateDelayed || t.state == mail.StateAccepted || t.state == mail.StateRefused
}

// evidence is what an attempt saw at the mail server of the person's domain.
func (l life) evidence(e *mail.Event, t turn) *mail.Evidence {
	s := hosts[e.To.Domain()]
	const took = 640 * time.Millisecond
	v := &mail.Evidence{
		StartedAt: e.At.Add(-took), Took: took, Provider: s.provider, Host: s.host, IP: s.ip, Stage: t.stage, Error: t.seen,
		TLS: &mail.TLS{
			Version: "TLS 1.3", Cipher: "TLS_AES_256_GCM_SHA384", Verified: true, Names: []string{s.host}, Issuer: "Example Trust CA 3",
			Expires: e.At.Add(71 * 24 * time.Hour).Truncate(24 * time.Hour), Policy: mail.TLSOpportunistic,
		},
	}
	if t.reply.Code != 0 {
		v.Reply = &t.reply
	}
	if t.state == mail.StateAccepted {
		v.Stage, v.Bytes, v.QueueID = mail.StageDot, 7411, string(e.Ref[:4])+"4b8C2z"
		v.Reply = &mail.Reply{Code: 250, Enhanced: mail.EnhancedCode{2, 0, 0}, Text: "Ok: queued as " + v.QueueID}
	}
	if v.Stage == mail.StageConnect {
		v.TLS = nil
		return v
	}
	v.Capabilities, v.Conversation = offers, talk(e, v)
	return v
}
