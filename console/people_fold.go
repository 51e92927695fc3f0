package console

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// foldText is the form under which names and addresses are searched: lower case,
// without marks over letters, one space between words. "Mäkelä" is found by
// "makela", as a name is spelled in an address.
func foldText(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] < 0x80
	}
	if plain {
		return oneSpaced(strings.ToLower(s))
	}
	var b strings.Builder
	for _, r := range norm.NFKD.String(s) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case unicode.Is(unicode.Co, r): // tenant marks are made of these
		default:
			b.WriteString(base(unicode.ToLower(r)))
		}
	}
	return oneSpaced(b.String())
}

// base spells the letters that Unicode doesn't take for a letter and a mark, as
// people do in addresses.
func base(r rune) string {
	switch r {
	case 'ø':
		return "o"
	case 'æ':
		return "ae"
	case 'œ':
		return "oe"
	case 'ß':
		return "ss"
	case 'ł':
		return "l"
	case 'đ', 'ð':
		return "d"
	case 'þ':
		return "th"
	case 'ı':
		return "i"
	}
	return string(r)
}

func oneSpaced(s string) string {
	if !strings.ContainsAny(s, "\t\n\v\f\r ") {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// writtenTo is one way in which somebody was written to, as one fact tells it. Equal
// ones are one row of people.
type writtenTo struct {
	tenant, personID, address, name string
}

// who names the row.
func (w writtenTo) who() int64 {
	return digest("who", w.tenant, w.personID, w.address, w.name)
}

// text is what the trigram index is made of: the tenant's mark, the address and the
// name, each on its line. A line's beginning is searchable as "\n".
func (w writtenTo) text(folded string) string {
	return tenantMark(w.tenant) + "\n" + foldText(w.address) + "\n" + folded + "\n"
}

// tenantMark is a trigram that stands for one tenant and is in no name: so that "this
// tenant's only" narrows a search down in the index itself. Two tenants might share
// one; rows are held against the tenant anyway.
func tenantMark(tenant string) string {
	n := uint64(digest("tenant", tenant))
	const first, size = 0xF0000, 0xFFFE // Unicode's private plane 15
	return string([]rune{rune(first + n%size), rune(first + n/size%size), rune(first + n/size/size%size)})
}

// digest is a number that names a list of strings. By chance two of a million have
// the same one in a year of ten million years.
func digest(parts ...string) int64 {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return int64(binary.BigEndian.Uint64(sum[:8]) >> 1)
}

// trigrams returns the different three-character pieces of s, in their order.
func trigrams(s string) []string {
	r := []rune(s)
	var all []string
	seen := map[string]bool{}
	for i := 0; i+3 <= len(r); i++ {
		if t := string(r[i : i+3]); !seen[t] {
			seen[t] = true
			all = append(all, t)
		}
	}
	return all
}
