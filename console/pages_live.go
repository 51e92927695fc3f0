package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// live is the feed of a page: it says how many new facts there are of what the page
// shows, and what the newest of them is. The facts themselves are in the page, which
// its reader loads again when it suits.
//
//	event: facts
//	id: 4711
//	data: {"n": 2, "said": "refused: kari@nordlys.example"}
func (p *Pages) live(w http.ResponseWriter, r *http.Request, by *Principal) error {
	after, err := p.api.streamStart(r)
	if err != nil {
		return err
	}
	wanted, err := p.watched(r, by)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	s := stream{w: w, c: http.NewResponseController(w)}
	s.write(": the facts after place " + fmt.Sprint(after) + "\n\n")
	lang := langOfPage(r)
	p.api.follow(r.Context(), &s, after, EventFilter{Tenants: by.visible("")}, func(events []mail.LoggedEvent) {
		events = slices.DeleteFunc(events, func(e mail.LoggedEvent) bool { return !wanted(r.Context(), &e.Event) })
		if len(events) == 0 {
			return
		}
		last := events[len(events)-1]
		said := pageWord(lang, stateWords[last.State]) + ": " + string(last.To)
		s.write(fmt.Sprintf("id: %d\nevent: facts\ndata: {\"n\": %d, \"said\": %s}\n\n", last.Seq, len(events), jsonText(said)))
	})
	return nil
}

// watched returns what chooses the facts that a page shows.
func (p *Pages) watched(r *http.Request, by *Principal) (func(context.Context, *mail.Event) bool, error) {
	q := r.URL.Query()
	switch {
	case q.Get("message") != "":
		id := mail.ID(q.Get("message"))
		s, err := p.api.View.Summary(r.Context(), id)
		if err != nil {
			return nil, err
		}
		if !by.Sees(s.Tenant) {
			return nil, ErrNotFound
		}
		return func(_ context.Context, e *mail.Event) bool { return e.Message == id }, nil
	case strings.HasPrefix(q.Get("person"), "per_"):
		c, err := p.api.View.circleOf(r.Context(), q.Get("person"), by.visible(""))
		if err != nil {
			return nil, err
		}
		return func(_ context.Context, e *mail.Event) bool {
			return slices.Contains(c.keys, PersonKey(e.Tenant, e.PersonID, e.To))
		}, nil
	case q.Get("all") == "1":
		return func(context.Context, *mail.Event) bool { return true }, nil
	}
	return nil, invalid("", "Say what to watch.")
}

// jsonText is a text as JSON, on one line.
func jsonText(s string) string {
	b, _ := json.Marshal(s) // a string always can be
	return string(b)
}
