package console

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// Near misses are people who are spelled like the query. An address or a word that
// is k edits away still holds one of k+1 pieces of the query whole, so that the
// trigram index finds candidates; and addresses that are one edit away before the @
// are few enough to be looked up each. Candidates are ordered by distance.

const (
	nearMost = 5
	// nearLeast is the shortest word that a likeness means something of.
	nearLeast = 4
	// nearVariants bounds the spellings that are looked up: a local part of 25 characters
	// has some 2,000.
	nearVariants = 2_000
)

// tolerance is how many edits a word of n characters may be away.
func tolerance(n int) int {
	switch {
	case n < nearLeast:
		return 0
	case n < 8:
		return 1
	}
	return 2
}

// near finds people who are spelled like the query.
func (s *search) near(ctx context.Context) ([]Person, error) {
	s.rows = map[int64]personRow{}
	local, domain, isAddress := strings.Cut(s.folded, "@")
	var err error
	if isAddress && len(s.words) == 1 {
		err = s.nearAddress(ctx, local, domain)
	} else {
		err = s.nearWords(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.people(ctx, nearMost)
}

func (s *search) nearAddress(ctx context.Context, local, domain string) error {
	distance := func(r *personRow) int { return s.addressDistance(local, domain, r) }
	// The domain may be any other one, as long as the local part is as typed.
	if err := s.collect(ctx, distance, "SELECT "+personColumns+" FROM people p WHERE p.address >= ? AND p.address < ? LIMIT ?",
		local+"@", local+"A", searchRows); err != nil { // 'A' follows '@'
		return err
	}
	list, _ := json.Marshal(variants(local, "@"+domain)) // strings can't fail
	if err := s.collect(ctx, distance, "SELECT "+personColumns+` FROM json_each(?) j CROSS JOIN people p ON p.address = j.value LIMIT ?`,
		string(list), searchRows); err != nil {
		return err
	}
	if len(s.rows) > 0 {
		return nil
	}
	for _, piece := range pieces("\n"+local+"@", tolerance(len(local))+1) {
		if err := s.byTrigrams(ctx, []string{piece, "@" + domain}, s.tenants, distance); err != nil {
			return err
		}
	}
	for _, piece := range pieces("\n"+s.folded+"\n", 3) {
		if err := s.byTrigrams(ctx, []string{piece}, s.tenants, distance); err != nil {
			return err
		}
	}
	return nil
}

// addressDistance is how far a row's address is from the query. A domain may be
// another one of the same company: only where the rest is as typed.
func (s *search) addressDistance(local, domain string, r *personRow) int {
	rowLocal, rowDomain, _ := strings.Cut(foldText(r.address), "@")
	away, most := distance(local, rowLocal), tolerance(len(local))
	far := distance(domain, rowDomain)
	switch {
	case away > most, away > 0 && far > 2:
		return matchNone
	case far > 2: // the same name elsewhere
		return matchNone - 1
	}
	return min(away+far, matchNone-1)
}

// nearWords looks for names: every word of the query is like one of the row. First
// for one misspelled word beside the others, then for any.
func (s *search) nearWords(ctx context.Context) error {
	for i, w := range s.words {
		others := slices.Delete(slices.Clone(s.words), i, i+1)
		for _, piece := range s.wordPieces(w) {
			if err := s.byTrigrams(ctx, append(others, piece), s.tenants, s.wordsDistance); err != nil {
				return err
			}
		}
	}
	if len(s.rows) > 0 {
		return nil
	}
	if len(s.words) > 1 {
		for _, w := range s.words {
			for _, piece := range s.wordPieces(w) {
				if err := s.byTrigrams(ctx, []string{piece}, s.tenants, s.wordsDistance); err != nil {
					return err
				}
			}
		}
	}
	return s.nearBeginning(ctx, s.words[0])
}

// wordPieces are the pieces of which a word like w has one. A short word's begin and
// end count with what is before and after it.
func (s *search) wordPieces(w string) []string {
	n := len([]rune(w))
	k := s.tolerance(n)
	switch {
	case k == 0:
		return nil
	case n >= 3*(k+1):
		return pieces(w, k+1)
	}
	var all []string
	for _, edge := range []string{" ", "\n"} {
		all = append(all, pieces(edge+w, 2)[:1]...)
		all = append(all, pieces(w+edge, 2)[1:]...)
	}
	return all
}

// tolerance is how many edits a word of n characters may be away: beside other
// words, a shorter one as well.
func (s *search) tolerance(n int) int {
	if n == nearLeast-1 && len(s.words) > 1 {
		return 1
	}
	return tolerance(n)
}

// nearBeginning looks for names whose first word is one edit away from w, which for
// a short word the pieces don't find.
func (s *search) nearBeginning(ctx context.Context, w string) error {
	if s.tolerance(len(w)) == 0 {
		return nil
	}
	list, _ := json.Marshal(variants(w, " ")) // strings can't fail
	return s.collect(ctx, s.wordsDistance, "SELECT "+personColumns+` FROM json_each(?) j
		CROSS JOIN people p ON p.folded >= j.value AND p.folded < j.value || char(1114111) LIMIT ?`, string(list), searchRows)
}

// wordsDistance adds up how far each word of the query is from the row's likest one.
func (s *search) wordsDistance(r *personRow) int {
	words := strings.FieldsFunc(foldText(r.address)+" "+r.folded, func(c rune) bool { return strings.ContainsRune(" .@-_+", c) })
	sum := 0
	for _, w := range s.words {
		most := s.tolerance(len(w))
		best := most + 1
		for _, have := range words {
			best = min(best, distance(w, have))
		}
		if best > most {
			return matchNone
		}
		sum += best
	}
	return min(sum, matchNone-1)
}

// pieces cuts s into n pieces of nearly the same length.
func pieces(s string, n int) []string {
	r := []rune(s)
	var all []string
	for i := range n {
		all = append(all, string(r[i*len(r)/n:(i+1)*len(r)/n]))
	}
	return all
}

// variants are the spellings one edit away from w, each with the ending: a letter
// left out, added, changed, or two swapped.
func variants(w, ending string) []string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
	if strings.ContainsFunc(w, func(r rune) bool { return r >= 0x80 }) {
		return nil // not spelled with these
	}
	var all []string
	for i := range len(w) + 1 {
		for _, c := range letters {
			all = append(all, w[:i]+string(c)+w[i:]+ending)
			if i < len(w) {
				all = append(all, w[:i]+string(c)+w[i+1:]+ending)
			}
		}
		if i < len(w) {
			all = append(all, w[:i]+w[i+1:]+ending)
		}
		if i+1 < len(w) {
			all = append(all, w[:i]+w[i+1:i+2]+w[i:i+1]+w[i+2:]+ending)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), nearVariants)]
}

// distance is how many letters are left out, added, changed or swapped with the next
// one between a and b (optimal string alignment), or more than 3 where it is more
// than that.
func distance(a, b string) int {
	const most = 4
	if a == b {
		return 0
	}
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) >= most || len(y)-len(x) >= most {
		return most
	}
	before, last, now := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		now[0] = i
		least := i
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
			least = min(least, now[j])
		}
		if least >= most {
			return most
		}
		before, last, now = last, now, before
	}
	return min(last[len(y)], most)
}
