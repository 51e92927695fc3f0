package console

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Sentences that were made elsewhere, for programs too, come to a page in English with
// something filled in: why an act was not taken, how a part of this installation is.

// sentencePattern is an English sentence with placeholders, which finds what stands in
// them.
type sentencePattern struct {
	english string
	find    *regexp.Regexp
	names   []string
}

var placeholder = regexp.MustCompile(`\{([a-z]+)\}`)

// sentencePatterns are the sentences with placeholders among the words of pages, the
// most particular first.
var sentencePatterns = sync.OnceValue(func() []sentencePattern {
	var all []sentencePattern
	for _, english := range slices.Sorted(maps.Keys(loadPageWords()[languages[1]])) {
		if !placeholder.MatchString(english) || !strings.Contains(english, ".") {
			continue
		}
		p := sentencePattern{english: english}
		for _, m := range placeholder.FindAllStringSubmatch(english, -1) {
			p.names = append(p.names, m[1])
		}
		var find strings.Builder
		last := 0
		for _, at := range placeholder.FindAllStringIndex(english, -1) {
			find.WriteString(regexp.QuoteMeta(english[last:at[0]]) + "(.+?)")
			last = at[1]
		}
		p.find = regexp.MustCompile(`(?s)^` + find.String() + regexp.QuoteMeta(english[last:]) + `$`)
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b sentencePattern) int { return cmp.Compare(len(b.english), len(a.english)) })
	return all
})

// pageSentence returns an English sentence in a language, as it is where it has no
// words there.
func pageSentence(lang, english string) string {
	there := loadPageWords()[lang]
	if there == nil || english == "" {
		return english
	}
	if said, ok := there[english]; ok {
		return said
	}
	for _, p := range sentencePatterns() {
		found := p.find.FindStringSubmatch(english)
		if found == nil {
			continue
		}
		var fill []any
		for i, name := range p.names {
			fill = append(fill, name, cmp.Or(there[found[i+1]], found[i+1]))
		}
		return pageWord(lang, p.english, fill...)
	}
	return english
}
