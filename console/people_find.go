package console

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// PeopleQuery is what people are searched by.
type PeopleQuery struct {
	// Q is an address, a person id, a reference, a message's id, a tenant's number or
	// name, a name, or parts of these: several words have to match all.
	Q       string
	Tenants []string // as in [Filter]
	Limit   int      // as in [Filter]
}

// FoundPeople is what a search found.
type FoundPeople struct {
	// People match the query: those whom it names exactly first, then whose address or
	// name begins with it, then the others; among equals the one with the newest mail.
	People []Person
	// Near are people who are spelled like the query, the likest first, at most 5; only
	// where nobody matches.
	Near []Person
}

// How well a row matches, the best first.
const (
	matchExact  = iota
	matchBegins // the address or the name begins with the query
	matchWords  // every word of the query begins one of the row
	matchWithin
	matchNone
)

const (
	// searchRows bounds the rows that one way of searching looks at: 400 are read in
	// some 2 ms, and nobody scrolls further.
	searchRows = 400
	// searchTop of the rows, or more where more people are asked for, are ordered by
	// their people's newest mail.
	searchTop = 60
	// searchWords bounds the words of a query.
	searchWords = 8
)

// FindPeople searches people.
func (v *View) FindPeople(ctx context.Context, query PeopleQuery) (FoundPeople, error) {
	s := search{v: v, tenants: query.Tenants, q: strings.TrimSpace(query.Q), rows: map[int64]personRow{}}
	s.folded = foldText(s.q)
	s.words = strings.Fields(s.folded)
	if len(s.words) == 0 || query.Tenants != nil && len(query.Tenants) == 0 {
		return FoundPeople{People: []Person{}, Near: []Person{}}, nil
	}
	s.words = s.words[:min(len(s.words), searchWords)]
	n := limit(query.Limit)
	people, err := s.matches(ctx, n)
	if err != nil {
		return FoundPeople{}, err
	}
	near := []Person{}
	if len(people) == 0 {
		if near, err = s.near(ctx); err != nil {
			return FoundPeople{}, err
		}
	}
	return FoundPeople{People: people, Near: near}, nil
}

// search is one search under way.
type search struct {
	v       *View
	tenants []string
	q       string // as typed, but for spaces around it
	folded  string
	words   []string
	rows    map[int64]personRow // found so far
}

// personRow is a row of people.
type personRow struct {
	row                             int64
	tenant, personID, address, name string
	folded                          string
	tenantName                      string // where it matters
	match                           int    // or the distance, in a search for near misses
}

const personColumns = "p.row, p.tenant, p.person_id, p.address, p.name, p.folded"

// collect reads rows, and keeps those that match says do.
func (s *search) collect(ctx context.Context, match func(*personRow) int, query string, args ...any) error {
	return s.v.query(ctx, func(rows *sql.Rows) error {
		var r personRow
		if err := rows.Scan(&r.row, &r.tenant, &r.personID, &r.address, &r.name, &r.folded); err != nil {
			return err
		}
		if s.tenants != nil && !slices.Contains(s.tenants, r.tenant) {
			return nil
		}
		r.match = match(&r)
		if old, ok := s.rows[r.row]; r.match < matchNone && (!ok || r.match < old.match) {
			s.rows[r.row] = r
		}
		return nil
	}, query, args...)
}

// settled reports whether the query is somebody's address, id or whole name, so that
// no other search is of use. A number may be a tenant's as well, and one word a part
// of other names.
func (s *search) settled() bool {
	if !strings.ContainsAny(s.q, "@_-") && len(s.words) < 2 {
		return false
	}
	for _, r := range s.rows {
		if r.match == matchExact || strings.Contains(s.q, "@") {
			return true
		}
	}
	return false
}

func exactly(*personRow) int { return matchExact }

// matches finds who matches the query.
func (s *search) matches(ctx context.Context, n int) ([]Person, error) {
	named, err := s.named(ctx)
	if err != nil || len(named) > 0 {
		return named[:min(len(named), n)], err
	}
	for _, way := range []func(context.Context) error{s.byIdentity, s.byBeginning, s.byText} {
		if err := way(ctx); err != nil {
			return nil, err
		}
		if s.settled() {
			break
		}
	}
	people, err := s.people(ctx, n)
	if err != nil || len(people) == n || s.settled() {
		return people, err
	}
	ofTenants, err := s.byTenant(ctx)
	if err != nil {
		return nil, err
	}
	return mergePeople(people, ofTenants, n), nil
}

// named finds the people of the message that the query names by reference or id.
func (s *search) named(ctx context.Context) ([]Person, error) {
	id, ref, ok := nameOf(s.q)
	if !ok {
		return nil, nil
	}
	among, args := amongTenants(s.tenants)
	where, value := "ref = ?", string(ref)
	if id != "" {
		where, value = "id = ?", string(id)
	}
	found, err := s.v.summaries(ctx, where+" AND "+among, append([]any{value}, args...), "ORDER BY id DESC", MaxLimit)
	if err != nil {
		return nil, err
	}
	return s.v.peopleOfRows(ctx, rowsOf(found), limit(0))
}

// rowsOf are the people of messages, once each, as rows.
func rowsOf(messages []Summary) []personRow {
	var rows []personRow
	seen := map[somebody]bool{}
	for _, m := range messages {
		r := personRow{tenant: m.Tenant, personID: m.PersonID, address: m.To.Key()}
		if i := r.somebody(); !seen[i] {
			seen[i] = true
			rows = append(rows, r)
		}
	}
	return rows
}

// byIdentity finds an address or a person id that the query is.
func (s *search) byIdentity(ctx context.Context) error {
	const query = "SELECT " + personColumns + " FROM people p WHERE "
	if err := s.collect(ctx, exactly, query+"p.address = ? LIMIT ?", strings.ToLower(s.q), searchRows); err != nil {
		return err
	}
	return s.collect(ctx, exactly, query+"p.person_id = ? AND p.person_id <> '' LIMIT ?", s.q, searchRows)
}

// byBeginning finds addresses, names and person ids that begin with the query. The
// rows of many tenants are narrowed down to the caller's by collect, which may find
// them too late: byText finds them then.
func (s *search) byBeginning(ctx context.Context) error {
	for _, way := range []struct{ where, begin string }{
		{"p.address >= ? AND p.address < ?", strings.ToLower(s.q)},
		{"p.folded >= ? AND p.folded < ?", s.folded},
		{"p.person_id >= ? AND p.person_id < ? AND p.person_id <> ''", s.q},
	} {
		err := s.collect(ctx, s.matchOf, "SELECT "+personColumns+" FROM people p WHERE "+way.where+" LIMIT ?",
			way.begin, way.begin+"\U0010ffff", searchRows)
		if err != nil {
			return err
		}
	}
	return nil
}

// byText finds every word of the query anywhere in address and name; or in the
// tenant's number and name, for the words that are there.
func (s *search) byText(ctx context.Context) error {
	pieces := s.words
	if !slices.ContainsFunc(pieces, func(w string) bool { return len(trigrams(w)) > 0 }) {
		pieces = []string{s.folded} // words this short are found as they were typed
	}
	return s.byTrigrams(ctx, pieces, s.tenants, s.matchOf)
}

// byTrigrams finds rows that hold all pieces, of these tenants.
func (s *search) byTrigrams(ctx context.Context, pieces, tenants []string, match func(*personRow) int) error {
	expression, err := s.v.trigramQuery(ctx, peopleText, pieces, tenants)
	if err != nil || expression == "" {
		return err
	}
	return s.collect(ctx, match, `SELECT `+personColumns+` FROM
		(SELECT rowid AS row FROM people_text WHERE people_text MATCH ? ORDER BY rowid DESC LIMIT ?) t
		JOIN people p USING (row)`, expression, searchRows)
}

// matchOf holds a row against the query.
func (s *search) matchOf(r *personRow) int {
	address, name := foldText(r.address), r.folded
	switch {
	case address == s.folded, name == s.folded, r.personID == s.q:
		return matchExact
	case strings.HasPrefix(address, s.folded), strings.HasPrefix(name, s.folded), r.personID != "" && strings.HasPrefix(r.personID, s.q):
		return matchBegins
	}
	match := matchWords
	text := address + "\n" + name + "\n" + foldText(r.tenant+"\n"+r.tenantName)
	for _, w := range s.words {
		at := strings.Index(text, w)
		if at < 0 {
			return matchNone
		}
		if !beginsWord(text, w) {
			match = matchWithin
		}
	}
	return match
}

// beginsWord reports whether a word of text begins with w.
func beginsWord(text, w string) bool {
	for from := 0; ; {
		at := strings.Index(text[from:], w)
		if at < 0 {
			return false
		}
		at += from
		if at == 0 || strings.IndexByte(" \n.@-_+", text[at-1]) >= 0 {
			return true
		}
		from = at + 1
	}
}

// people returns the n best of the rows found, each with its newest message.
func (s *search) people(ctx context.Context, n int) ([]Person, error) {
	rows := make([]personRow, 0, len(s.rows))
	for _, r := range s.rows {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b personRow) int {
		return cmp.Or(cmp.Compare(a.match, b.match), cmp.Compare(b.row, a.row))
	})
	// What lies under the limit by far can't come up any more by having newer mail.
	rows = rows[:min(len(rows), max(2*n, searchTop))]
	return s.v.peopleOfRows(ctx, rows, n)
}

// peopleOfRows returns the n best people of rows, each with the newest message: by
// match, then by that message.
func (v *View) peopleOfRows(ctx context.Context, rows []personRow, n int) ([]Person, error) {
	of := make([]somebody, len(rows))
	for i := range rows {
		of[i] = rows[i].somebody()
	}
	circles, err := v.circles(ctx, of)
	if err != nil {
		return nil, err
	}
	found := map[string]*foundPerson{}
	for i, r := range rows {
		c := circles[of[i]]
		f := found[c.key()]
		if f == nil {
			f = &foundPerson{circle: c, match: r.match}
			found[c.key()] = f
		}
		f.match = min(f.match, r.match)
	}
	list, err := v.withNewest(ctx, found)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *foundPerson) int {
		return cmp.Or(cmp.Compare(a.match, b.match), cmp.Compare(b.newest, a.newest))
	})
	return v.tellWho(ctx, list[:min(len(list), n)])
}

// foundPerson is a person whom rows lead to.
type foundPerson struct {
	circle
	match  int
	newest mail.ID
}

// withNewest looks up everybody's newest message. People without any, as retention
// leaves them for a while, are left out.
func (v *View) withNewest(ctx context.Context, found map[string]*foundPerson) ([]*foundPerson, error) {
	var list [][2]string
	for key, f := range found {
		for _, k := range f.keys {
			list = append(list, [2]string{key, k})
		}
	}
	err := v.query(ctx, func(rows *sql.Rows) error {
		var key string
		var id mail.ID
		err := rows.Scan(&key, &id)
		found[key].newest = max(found[key].newest, id)
		return err
	}, `SELECT key, id FROM (SELECT value ->> 0 AS key, (SELECT max(id) FROM messages WHERE person = value ->> 1) AS id
		FROM json_each(?)) WHERE id IS NOT NULL`, pairs(list))
	all := make([]*foundPerson, 0, len(found))
	for _, f := range found {
		if f.newest != "" {
			all = append(all, f)
		}
	}
	return all, err
}

// tellWho makes people of what was found, in its order.
func (v *View) tellWho(ctx context.Context, list []*foundPerson) ([]Person, error) {
	ids := make([]string, len(list))
	for i, f := range list {
		ids[i] = string(f.newest)
	}
	newest := map[mail.ID]Summary{}
	b, _ := json.Marshal(ids) // strings can't fail
	found, err := v.summaries(ctx, "id IN (SELECT value FROM json_each(?))", []any{string(b)}, "", MaxLimit)
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		newest[s.ID] = s
	}
	people := make([]Person, 0, len(list))
	for _, f := range list {
		s, ok := newest[f.newest]
		if !ok {
			continue // pruned between two readings
		}
		people = append(people, f.person(s))
	}
	return people, nil
}

func (c *circle) person(newest Summary) Person {
	p := Person{ID: c.key(), Tenant: c.tenant, TenantName: newest.TenantName, PersonID: c.personID, Name: newest.ToName, Latest: newest}
	p.Addresses = append(p.Addresses, newest.To)
	for _, a := range c.addresses {
		if a != newest.To.Key() {
			p.Addresses = append(p.Addresses, mail.Address(a))
		}
	}
	return p
}

// mergePeople adds those of more who are not among people, up to n.
func mergePeople(people, more []Person, n int) []Person {
	for _, p := range more {
		if len(people) >= n {
			break
		}
		if !slices.ContainsFunc(people, func(q Person) bool { return q.ID == p.ID }) {
			people = append(people, p)
		}
	}
	return people
}

// jsonList is the JSON of a set, for json_each.
func jsonList(set map[string]bool) string {
	b, _ := json.Marshal(slices.Sorted(maps.Keys(set))) // strings can't fail
	return string(b)
}
