package console

import (
	"context"
	"database/sql"
	"slices"
	"strings"
)

const (
	// trigramsAsked is how many trigrams a search looks up: the rarest ones narrow it down,
	// and the rows are held against the whole query afterwards.
	trigramsAsked = 5
	// trigramsWeighed bounds those whose rarity is looked at.
	trigramsWeighed = 40
	// trigramWindow of the newest rows tell how rare a trigram is, and trigramCommon of them
	// in there make it as common as any.
	trigramWindow = 20_000
	trigramCommon = 200
	// marksAsked bounds the tenants that the index is asked for; with more, rows are held
	// against them only.
	marksAsked = 50
)

// trigramQuery returns the expression that finds rows with all pieces in one of the
// trigram indexes, "" where no piece is as long as three characters.
func (v *View) trigramQuery(ctx context.Context, index string, pieces, tenants []string) (string, error) {
	var all []string
	for _, p := range pieces {
		all = append(all, trigrams(p)...)
	}
	if len(all) == 0 {
		return "", nil
	}
	if len(all) > trigramsAsked {
		var err error
		if all, err = v.rarest(ctx, index, all); err != nil {
			return "", err
		}
	}
	terms := make([]string, 0, len(all)+1)
	for _, t := range all {
		terms = append(terms, ftsString(t))
	}
	if len(tenants) > 0 && len(tenants) <= marksAsked {
		marks := make([]string, 0, len(tenants))
		for _, t := range tenants {
			marks = append(marks, ftsString(tenantMark(t)))
		}
		terms = append(terms, "("+strings.Join(marks, " OR ")+")")
	}
	return strings.Join(terms, " AND "), nil
}

// ftsString quotes a string for FTS5.
func ftsString(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// rarest returns the trigrams that the fewest of the newest rows have.
func (v *View) rarest(ctx context.Context, index string, all []string) ([]string, error) {
	slices.Sort(all)
	all = slices.Compact(all)
	all = all[:min(len(all), trigramsWeighed)]
	count := map[string]int{}
	set := map[string]bool{}
	for _, t := range all {
		set[ftsString(t)] = true
	}
	err := v.query(ctx, func(rows *sql.Rows) error {
		var t string
		var n int
		if err := rows.Scan(&t, &n); err != nil {
			return err
		}
		count[t] = n
		return nil
	}, `SELECT value, (SELECT count(*) FROM (SELECT 1 FROM `+index+` WHERE `+index+` MATCH value AND rowid > last LIMIT ?))
		FROM json_each(?), (SELECT coalesce(max(row), 0) - ? AS last FROM `+strings.TrimSuffix(index, "_text")+`)`,
		trigramCommon, jsonList(set), trigramWindow)
	slices.SortStableFunc(all, func(a, b string) int { return count[ftsString(a)] - count[ftsString(b)] })
	return all[:min(len(all), trigramsAsked)], err
}
