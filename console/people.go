package console

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Person is somebody whom mail was for: a tenant's person id, or a tenant's address
// where the auth service gave none.
type Person struct {
	ID         string         `json:"id"` // a [PersonKey]
	Tenant     string         `json:"tenant,omitempty"`
	TenantName string         `json:"tenant_name,omitempty"`
	PersonID   string         `json:"person_id,omitempty"`
	Name       string         `json:"name,omitempty"`
	Addresses  []mail.Address `json:"addresses"` // the latest one first
	// Latest is the newest message.
	Latest Summary `json:"latest"`

	// Verdict is one sentence about it, and WhoActs who has to do something.
	Verdict     string     `json:"verdict,omitempty"`
	WhoActs     mail.Actor `json:"who_acts,omitempty"`
	WhoActsText string     `json:"who_acts_text,omitempty"`
}

// People is the answer to GET /v1/people.
type People struct {
	People []Person `json:"people"`
	// Near are people who are spelled like the query, the likest first: did you mean …?
	// Only where nobody matches.
	Near []Person `json:"near"`
	// Answer is what to say when nobody matches, in the language asked for.
	Answer string `json:"answer,omitempty"`
	// Since is how far back this looks: the time of the oldest event that is kept. Zero
	// where there is none.
	Since time.Time `json:"since,omitzero"`
}

// maxQuery bounds a search: an address may be 320 characters long, by RFC 3696's
// count.
const maxQuery = 320

func (a *API) findPeople(w http.ResponseWriter, r *http.Request, by *Principal) error {
	n, err := limitParam(r, defaultLimit)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if len(q.Get("q")) > maxQuery {
		return invalid("q", "At most 320 characters.")
	}
	t, err := a.telling(r)
	if err != nil {
		return err
	}
	people, err := a.SearchPeople(r.Context(), by, PeopleQuery{Q: q.Get("q"), Tenants: by.visible(q.Get("tenant")), Limit: n}, t)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, people)
	return nil
}

// SearchPeople finds people as the principal may see them, each with the verdict on
// the newest message; and says in words that there is nobody.
func (a *API) SearchPeople(ctx context.Context, by *Principal, q PeopleQuery, t Telling) (People, error) {
	fresh := a.fresh(ctx)
	found, err := a.View.FindPeople(ctx, q)
	if err != nil {
		return People{}, err
	}
	for _, list := range [][]Person{found.People, found.Near} {
		if err := a.View.judge(ctx, list, t); err != nil {
			return People{}, err
		}
	}
	people := People{People: found.People, Near: found.Near}
	if people.Since, err = a.View.Oldest(ctx); err != nil {
		return People{}, err
	}
	if len(found.People) == 0 && strings.TrimSpace(q.Q) != "" {
		people.Answer = nobody(q.Q, people, by, fresh, t)
	}
	return people, nil
}

// Oldest returns the time of the oldest event that is kept, zero if there is none.
func (v *View) Oldest(ctx context.Context) (oldest time.Time, err error) {
	err = v.query(ctx, func(rows *sql.Rows) error {
		var at int64
		err := rows.Scan(&at)
		oldest = fromMicros(at)
		return err
	}, "SELECT at FROM events ORDER BY seq LIMIT 1")
	return oldest, err
}

// judge tells each one's newest message in a sentence.
func (v *View) judge(ctx context.Context, people []Person, t Telling) error {
	latest := make([]Summary, len(people))
	for i := range people {
		latest[i] = people[i].Latest
	}
	facts, err := v.factsOf(ctx, latest)
	if err != nil {
		return err
	}
	if t.Incidents, err = v.Incidents(ctx); err != nil {
		return err
	}
	for i := range people {
		m := Tell(Facts{Summary: latest[i], Events: facts[latest[i].ID]}, t)
		people[i].Verdict, people[i].WhoActs, people[i].WhoActsText = m.Verdict, m.WhoActs, m.WhoActsText
	}
	return nil
}

// factsOf returns the events of messages, in the order of their time.
func (v *View) factsOf(ctx context.Context, messages []Summary) (map[mail.ID][]mail.Event, error) {
	ids := make([]mail.ID, len(messages))
	for i, m := range messages {
		ids[i] = m.ID
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	logged, err := v.events(ctx, "message IN (SELECT value FROM json_each(?)) ORDER BY at, seq", string(list))
	facts := map[mail.ID][]mail.Event{}
	for _, e := range logged {
		facts[e.Message] = append(facts[e.Message], e.Event)
	}
	return facts, err
}

// nobody says in words that a search found nobody, how far back that is true, and
// what to do.
func nobody(q string, found People, by *Principal, fresh bool, t Telling) string {
	w := newWords(t.Lang, t.Now, t.Zone)
	q = strings.TrimSpace(q)
	if !fresh {
		return w.say("nobody.stale")
	}
	if found.Since.IsZero() {
		return w.say("nobody.empty")
	}
	name := "nobody.other"
	if _, _, ok := nameOf(q); ok {
		name = "nobody.message"
	} else if strings.Contains(q, "@") {
		name = "nobody.address"
	}
	bound, next := "", w.say("nobody.next")
	if !by.seesAll() {
		bound = w.say("nobody.bound")
	}
	if len(found.Near) > 0 {
		next = w.say("nobody.near")
	}
	return sentences(w.say(name, "q", q, "since", w.clock(found.Since)), bound, next)
}
