package console

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"sync"
	"time"
)

// The trigram indexes.
const (
	peopleText  = "people_text"
	tenantsText = "tenants_text" // small
)

const (
	// trigramsAsked is how many trigrams a search looks up: the rarest ones narrow it down,
	// and the rows are held against the whole query afterwards.
	trigramsAsked = 5
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
	if len(all) > trigramsAsked && index == tenantsText {
		all = all[:trigramsAsked]
	}
	if len(all) > trigramsAsked {
		var err error
		if all, err = v.rarest(ctx, all); err != nil {
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

// rarity is how common trigrams are among people, as a sample tells.
type rarity struct {
	mu    sync.Mutex
	count map[string]int // guarded by mu; of people who have the trigram
	at    time.Time      // guarded by mu; when the sample was taken
}

const (
	// raritySample people tell it: what one in a thousand has is rare enough.
	raritySample = 1_000
	// rarityLasts: names don't change, but the first thousand people are no picture of
	// the rest.
	rarityLasts = 10 * time.Minute
)

// rarest returns the trigrams that the fewest people have.
func (v *View) rarest(ctx context.Context, all []string) ([]string, error) {
	v.rarity.mu.Lock()
	defer v.rarity.mu.Unlock()
	if now := v.now(); v.rarity.count == nil || now.Sub(v.rarity.at) > rarityLasts {
		count, err := v.sampleTrigrams(ctx)
		if err != nil {
			return nil, err
		}
		v.rarity.count, v.rarity.at = count, now
	}
	slices.Sort(all)
	all = slices.Compact(all)
	slices.SortStableFunc(all, func(a, b string) int { return v.rarity.count[a] - v.rarity.count[b] })
	return all[:min(len(all), trigramsAsked)], nil
}

// sampleTrigrams counts the trigrams of people spread over all rows.
func (v *View) sampleTrigrams(ctx context.Context) (map[string]int, error) {
	count := map[string]int{}
	err := v.query(ctx, func(rows *sql.Rows) error {
		var w writtenTo
		var folded string
		if err := rows.Scan(&w.address, &folded); err != nil {
			return err
		}
		for _, t := range trigrams(w.text(folded)) {
			count[t]++
		}
		return nil
	}, `WITH RECURSIVE last AS (SELECT max(row) AS row FROM people),
		spread(n, row) AS (SELECT 1, row FROM last UNION ALL
			SELECT n + 1, (SELECT row FROM last) - n * (SELECT row FROM last) / ?1 FROM spread WHERE n < ?1)
		SELECT p.address, p.folded FROM (SELECT DISTINCT row FROM spread) JOIN people p USING (row)`, raritySample)
	return count, err
}
