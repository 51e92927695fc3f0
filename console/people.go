package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

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
}

// People is the answer to GET /v1/people.
type People struct {
	People []Person `json:"people"`
}

// PersonStory is the answer to GET /v1/people/{id}: the newest message told, and the
// list of all.
type PersonStory struct {
	Person
	Message  Message   `json:"message"`
	Messages []Summary `json:"messages"` // the newest first, at most MaxLimit
}

// ReplyText is the answer to GET /v1/people/{id}/reply.
type ReplyText struct {
	Lang string `json:"lang"`
	Text string `json:"text"`
}

// FindPeople returns those whom q names, exactly: an address, a person id, a
// reference, a message's id or a tenant; or whose address or name begins with it. The
// one with the newest mail comes first.
func (v *View) FindPeople(ctx context.Context, q string, tenants []string, n int) ([]Person, error) {
	q = strings.TrimSpace(q)
	if q == "" {
		return []Person{}, nil
	}
	found := []Summary{}
	among, tenantArgs := amongTenants(tenants)
	for _, way := range waysToFind(q) {
		part, err := v.summaries(ctx, way.where+" AND "+among, append(way.args, tenantArgs...), "ORDER BY id DESC", MaxLimit)
		if err != nil {
			return nil, err
		}
		found = append(found, part...)
	}
	people := peopleOf(found)
	return people[:min(len(people), limit(n))], nil
}

// way is one index to find messages by.
type way struct {
	where string
	args  []any
}

func waysToFind(q string) []way {
	key := strings.ToLower(q)
	ways := []way{
		{"address >= ? AND address < ?", []any{key, key + "\U0010ffff"}},
		{"tenant = ?", []any{q}},
		{"name >= ? AND name < ?", []any{nameKey(q), nameKey(q) + "\U0010ffff"}},
		{"person_id = ?", []any{q}},
	}
	if ref, ok := mail.ParseRef(q); ok {
		ways = append(ways, way{"ref = ?", []any{string(ref)}})
	}
	if _, err := mail.ID(key).Bytes(); err == nil {
		ways = append(ways, way{"id = ?", []any{key}})
	}
	return ways
}

// peopleOf gathers messages by person.
func peopleOf(found []Summary) []Person {
	slices.SortFunc(found, func(a, b Summary) int { return cmp.Compare(b.ID, a.ID) })
	people := []Person{}
	at := map[string]int{}
	for _, s := range found {
		i, known := at[s.Person]
		if !known {
			i = len(people)
			at[s.Person] = i
			people = append(people, Person{ID: s.Person, Tenant: s.Tenant, Latest: s})
		}
		p := &people[i]
		p.TenantName = cmp.Or(p.TenantName, s.TenantName)
		p.PersonID = cmp.Or(p.PersonID, s.PersonID)
		p.Name = cmp.Or(p.Name, s.ToName)
		if !slices.ContainsFunc(p.Addresses, func(a mail.Address) bool { return a.Key() == s.To.Key() }) {
			p.Addresses = append(p.Addresses, s.To)
		}
	}
	return people
}

func (a *API) findPeople(w http.ResponseWriter, r *http.Request, by *Principal) error {
	n, err := limitParam(r, defaultLimit)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if len(q.Get("q")) > 320 {
		return invalid("q", "At most 320 characters.")
	}
	a.fresh(r.Context())
	people, err := a.View.FindPeople(r.Context(), q.Get("q"), by.visible(q.Get("tenant")), n)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, People{people})
	return nil
}

func (a *API) getPerson(w http.ResponseWriter, r *http.Request, by *Principal) error {
	story, err := a.person(r, by)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, story)
	return nil
}

func (a *API) getReply(w http.ResponseWriter, r *http.Request, by *Principal) error {
	story, err := a.person(r, by)
	if err != nil {
		return err
	}
	text := cmp.Or(story.Message.Reply, story.Message.Verdict+" "+story.Message.NextStep)
	writeJSON(w, http.StatusOK, ReplyText{story.Message.Lang, text})
	return nil
}

func (a *API) person(r *http.Request, by *Principal) (PersonStory, error) {
	t, err := a.telling(r)
	if err != nil {
		return PersonStory{}, err
	}
	a.fresh(r.Context())
	found, err := a.View.List(r.Context(), Filter{Person: r.PathValue("person"), Tenants: by.visible("")})
	if err != nil {
		return PersonStory{}, err
	}
	if len(found) == 0 {
		return PersonStory{}, ErrNotFound
	}
	m, err := a.tell(r.Context(), found[0].ID, t)
	if err != nil {
		return PersonStory{}, err
	}
	return PersonStory{Person: peopleOf(slices.Clone(found))[0], Message: m, Messages: found}, nil
}
