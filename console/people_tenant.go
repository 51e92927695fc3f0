package console

import (
	"context"
	"database/sql"
	"slices"
	"strings"
)

const (
	// searchTenants bounds the tenants that a search looks into.
	searchTenants = 10
	// tenantPeople bounds the newest messages that people are taken from, of all of them.
	tenantPeople = 100
)

// tenantRow is a row of tenants.
type tenantRow struct{ tenant, name string }

// byTenant finds people of the tenants that words of the query name: all words, or
// some of them where the others are in the person's address or name.
func (s *search) byTenant(ctx context.Context) ([]Person, error) {
	whole, err := s.tenantsWith(ctx, s.words)
	if err != nil {
		return nil, err
	}
	var found []Summary
	for _, t := range whole {
		part, err := s.v.summaries(ctx, "tenant = ?", []any{t.tenant}, "ORDER BY id DESC", tenantPeople/len(whole))
		if err != nil {
			return nil, err
		}
		found = append(found, part...)
	}
	rows := rowsOf(found)
	people, err := s.v.peopleOfRows(ctx, rows[:min(len(rows), searchTop)], MaxLimit)
	if err != nil || len(s.words) < 2 || len(whole) > 0 {
		return people, err
	}
	mixed, err := s.byTenantAndText(ctx)
	return mergePeople(mixed, people, MaxLimit), err
}

// byTenantAndText finds "kari nordlys": one word of the query in the tenant's number
// or name, the others in the person's address or name, or there too.
func (s *search) byTenantAndText(ctx context.Context) ([]Person, error) {
	s.rows = map[int64]personRow{}
	for i, w := range s.words {
		tenants, err := s.tenantsWith(ctx, []string{w})
		if err != nil {
			return nil, err
		}
		if len(tenants) == 0 {
			continue
		}
		var numbers []string
		names := map[string]string{}
		for _, t := range tenants {
			numbers = append(numbers, t.tenant)
			names[t.tenant] += "\n" + t.name
		}
		others := slices.Delete(slices.Clone(s.words), i, i+1)
		err = s.byTrigrams(ctx, others, numbers, func(r *personRow) int {
			r.tenantName = names[r.tenant]
			return s.matchOf(r)
		})
		if err != nil {
			return nil, err
		}
	}
	return s.people(ctx, MaxLimit)
}

// tenantsWith returns tenants whose number or name holds all words, those first whose
// number it is, at most searchTenants of them.
func (s *search) tenantsWith(ctx context.Context, words []string) ([]tenantRow, error) {
	var found []tenantRow
	keep := func(rows *sql.Rows) error {
		var t tenantRow
		if err := rows.Scan(&t.tenant, &t.name); err != nil {
			return err
		}
		text := foldText(t.tenant) + "\n" + foldText(t.name)
		for _, w := range words {
			if !strings.Contains(text, w) {
				return nil
			}
		}
		if len(found) < searchTenants && (s.tenants == nil || slices.Contains(s.tenants, t.tenant)) && !slices.Contains(found, t) {
			found = append(found, t)
		}
		return nil
	}
	if len(words) == 1 { // as typed: numbers may have upper-case letters
		err := s.v.query(ctx, keep, "SELECT tenant, name FROM tenants WHERE tenant = ? OR tenant = ?", words[0], s.q)
		if err != nil {
			return nil, err
		}
	}
	expression, err := s.v.trigramQuery(ctx, tenantsText, words, nil)
	if err != nil || expression == "" {
		return distinctTenants(found), err
	}
	err = s.v.query(ctx, keep, `SELECT t.tenant, t.name FROM
		(SELECT rowid AS row FROM tenants_text WHERE tenants_text MATCH ? ORDER BY rowid DESC LIMIT ?) JOIN tenants t USING (row)`,
		expression, searchRows)
	return distinctTenants(found), err
}

// distinctTenants joins the rows of one tenant.
func distinctTenants(rows []tenantRow) []tenantRow {
	var all []tenantRow
	for _, r := range rows {
		if i := slices.IndexFunc(all, func(t tenantRow) bool { return t.tenant == r.tenant }); i >= 0 {
			all[i].name += "\n" + r.name
		} else {
			all = append(all, r)
		}
	}
	return all
}
