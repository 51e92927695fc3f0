package console

import "net/http"

// HealthPart is one part of this installation, and how it is.
type HealthPart struct {
	Name   string // identity, keys, queue, NATS, disk …
	State  string // ok, warn, fail
	Text   string // what was found, a sentence
	Cure   string // what to do, where there is something
	Values []HealthValue
}

// HealthValue is a fact about a part.
type HealthValue struct{ Name, Value string }

// The states of a part.
const (
	HealthOK   = "ok"
	HealthWarn = "warn"
	HealthFail = "fail"
)

// healthPage is the content of the page about this installation.
type healthPage struct {
	Parts       []HealthPart
	Fails, Warn int
}

func (p *Pages) health(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if !by.seesAll() {
		return notAllowed("This is every tenant's matter, and your role is bound to some.")
	}
	content := healthPage{Parts: p.with.Health(r.Context())}
	for _, part := range content.Parts {
		switch part.State {
		case HealthFail:
			content.Fails++
		case HealthWarn:
			content.Warn++
		}
	}
	return p.show(w, r, http.StatusOK, shell{Title: pageWord(langOfPage(r), "Health") + " – deliverd", Page: "health", Content: content})
}
