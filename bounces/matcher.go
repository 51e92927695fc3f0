package bounces

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// A matcher finds which of many patterns occur in a normalised text, in one pass
// over its bytes whatever the text is: an Aho-Corasick automaton over the literals
// of all patterns, and for patterns of several steps the place where each step was
// last seen.
//
// A pattern is one to four steps in their order. Between two steps may stand a short
// word or two (" ~ "), some eight words (" .. ") or anything (" ... "). A step is a
// phrase in normalised form, with alternatives in parentheses; it begins and ends at a
// space unless "*" says otherwise:
//
//	user unknown
//	(user|mailbox) (is |)full
//	user .. (unknown|not found)
//	*spamhaus.org*
//
// The automaton's states are numbered breadth first, so that the children of a state
// are neighbours: state s has children first[s] to first[s+1]-1. It takes some 12
// bytes a state, and a step looks at few of them.
type matcher struct {
	root    [256]uint16 // the root's child by byte, 0 for none
	first   []uint16
	label   []byte    // the byte that leads to a state from its parent
	fail    []uint16  // the state of the longest proper suffix that is one
	suffix  []uint16  // of those, the longest in which a literal ends; 0 for none
	ends    []int32   // index of the literal that ends in a state, -1 for none
	literal []literal // sorted by their strings
	pattern []pattern
}

// literal is one string that patterns look for.
type literal struct {
	size uint16
	uses []use
}

// use says that a literal is an alternative of one step of a pattern.
type use struct {
	pattern uint16
	step    uint8
}

type pattern struct {
	steps  uint8
	gap    [maxSteps]int // the most bytes that may stand before the step
	slot   uint16        // of its progress, if it has several steps
	target int           // what the caller gave to add
}

const (
	maxSteps = 4
	// maxMulti and maxTargets bound what scan and its callers keep on their stacks.
	maxMulti   = 1024
	maxTargets = 4096
)

// gaps are the marks between the steps of a pattern and what they let stand there.
var gaps = [...]struct {
	mark  string
	bytes int
}{
	{" ~ ", 16},
	{" .. ", 48}, // "user <long name> at this host is unknown"
	{" ... ", math.MaxInt},
}

// builder makes a matcher.
type builder struct {
	words   map[string]string // the names that stand for a group of alternatives
	uses    map[string][]use  // by literal
	pattern []pattern
	multi   int // how many of them have several steps
}

func newBuilder() *builder {
	return &builder{words: map[string]string{}, uses: map[string][]use{}}
}

// add adds a pattern; scan reports target where it is found.
func (b *builder) add(source string, target int) error {
	p := pattern{target: target}
	id := len(b.pattern)
	if id > 0xffff || target >= maxTargets {
		return errors.New("too many patterns")
	}
	source, err := b.expandWords(source)
	if err != nil {
		return err
	}
	for rest := source; ; p.steps++ {
		step, gap, after := cutStep(rest)
		if p.steps == maxSteps {
			return fmt.Errorf("pattern %q has more than %d steps", source, maxSteps)
		}
		phrases, err := expandGroups(step)
		if err != nil {
			return fmt.Errorf("pattern %q: %w", source, err)
		}
		for _, ph := range phrases {
			if err := b.use(ph, uint16(id), p.steps); err != nil {
				return fmt.Errorf("pattern %q: %w", source, err)
			}
		}
		if gap < 0 {
			p.steps++
			break
		}
		if int(p.steps)+1 < maxSteps {
			p.gap[p.steps+1] = gap
		}
		rest = after
	}
	if p.steps > 1 {
		if b.multi == maxMulti {
			return errors.New("too many patterns of several steps")
		}
		p.slot = uint16(b.multi)
		b.multi++
	}
	b.pattern = append(b.pattern, p)
	return nil
}

// cutStep cuts the first step off a pattern, and says what may stand before the
// next; -1 if there is none.
func cutStep(s string) (step string, gap int, rest string) {
	at := len(s)
	step, gap = s, -1
	for _, g := range gaps {
		if i := strings.Index(s, g.mark); i >= 0 && i < at {
			at = i
			step, gap, rest = s[:i], g.bytes, s[i+len(g.mark):]
		}
	}
	return step, gap, rest
}

// expandWords replaces {name} by its alternatives, in parentheses unless it stands in
// some already.
func (b *builder) expandWords(s string) (string, error) {
	for {
		i := strings.IndexByte(s, '{')
		if i < 0 {
			return s, nil
		}
		j := strings.IndexByte(s[i:], '}')
		if j < 0 {
			return "", fmt.Errorf("pattern %q: no } for {", s)
		}
		alternatives, ok := b.words[s[i+1:i+j]]
		if !ok {
			return "", fmt.Errorf("pattern %q: no words are called %s", s, s[i:i+j+1])
		}
		if strings.Count(s[:i], "(") == strings.Count(s[:i], ")") {
			alternatives = "(" + alternatives + ")"
		}
		s = s[:i] + alternatives + s[i+j+1:]
	}
}

// expandGroups returns the phrases that s stands for: one for each choice of an
// alternative in each group.
func expandGroups(s string) ([]string, error) {
	phrases, rest, err := expandAlternatives(s)
	if err == nil && rest != "" {
		err = errors.New("no ( for )")
	}
	return phrases, err
}

// expandAlternatives expands s up to the ")" that closes it, or to its end.
func expandAlternatives(s string) (all []string, rest string, err error) {
	now := []string{""}
	for {
		i := strings.IndexAny(s, "(|)")
		if i < 0 {
			i = len(s)
		}
		group := []string{s[:i]}
		if i < len(s) && s[i] == '(' {
			inner, after, err := expandAlternatives(s[i+1:])
			if err != nil {
				return nil, "", err
			}
			if !strings.HasPrefix(after, ")") {
				return nil, "", errors.New("no ) for (")
			}
			for j, alternative := range inner {
				inner[j] = s[:i] + alternative
			}
			group, s = inner, after[1:]
		} else {
			s = s[i:]
		}
		now = product(now, group)
		if len(now)+len(all) > 300 {
			return nil, "", errors.New("stands for more than 300 phrases: use \" ~ \"")
		}
		switch {
		case s == "" || s[0] == ')':
			return append(all, now...), s, nil
		case s[0] == '|':
			all, now, s = append(all, now...), []string{""}, s[1:]
		}
	}
}

func product(heads, tails []string) []string {
	out := make([]string, 0, len(heads)*len(tails))
	for _, h := range heads {
		for _, t := range tails {
			out = append(out, h+t)
		}
	}
	return out
}

// use notes that a phrase is an alternative of a step.
func (b *builder) use(phrase string, pattern uint16, step uint8) error {
	lit := strings.Join(strings.Fields(phrase), " ")
	if after, ok := strings.CutPrefix(lit, "*"); ok {
		lit = after
	} else {
		lit = " " + lit
	}
	if before, ok := strings.CutSuffix(lit, "*"); ok {
		lit = before
	} else {
		lit += " "
	}
	if len(strings.TrimSpace(lit)) < 2 && strings.TrimSpace(lit) != "@" {
		return fmt.Errorf("phrase %q is too short", phrase)
	}
	for i := range len(lit) {
		if c := lit[i]; c < 0x80 && !isDigit(c) && (c < 'a' || c > 'z') && strings.IndexByte(" .@/", c) < 0 {
			return fmt.Errorf("phrase %q is not in normalised form: it has %q", phrase, c)
		}
	}
	u := use{pattern, step}
	if !slices.Contains(b.uses[lit], u) {
		b.uses[lit] = append(b.uses[lit], u)
	}
	return nil
}

// build makes the automaton (Aho and Corasick, 1975).
func (b *builder) build() (*matcher, error) {
	m := &matcher{pattern: b.pattern}
	text := slices.Sorted(maps.Keys(b.uses))
	for _, lit := range text {
		m.literal = append(m.literal, literal{size: uint16(len(lit)), uses: b.uses[lit]})
	}
	// A state is the literals that share its prefix: a range of the sorted text.
	type prefix struct{ from, to, size int }
	states := []prefix{{0, len(text), 0}}
	m.addState(0, 0)
	for s := 0; s < len(states); s++ {
		p := states[s]
		m.first[s] = uint16(len(states))
		if p.from < p.to && len(text[p.from]) == p.size {
			m.ends[s] = int32(p.from)
			p.from++
		}
		for p.from < p.to {
			c := text[p.from][p.size]
			to := p.from
			for to < p.to && text[to][p.size] == c {
				to++
			}
			if len(states) == 0xffff {
				return nil, errors.New("too many patterns: the automaton has more than 65,535 states")
			}
			if s == 0 {
				m.root[c] = uint16(len(states))
				m.addState(c, 0)
			} else {
				m.addState(c, m.step(m.fail[s], c))
			}
			states = append(states, prefix{p.from, to, p.size + 1})
			p.from = to
		}
	}
	m.first = append(m.first, uint16(len(states)))
	for s := range states {
		// fail leads to a shorter prefix, which comes earlier and has its suffix.
		f := m.fail[s]
		m.suffix[s] = f
		if m.ends[f] < 0 {
			m.suffix[s] = m.suffix[f]
		}
	}
	return m, nil
}

func (m *matcher) addState(label byte, fail uint16) {
	m.first = append(m.first, 0)
	m.label = append(m.label, label)
	m.fail = append(m.fail, fail)
	m.suffix = append(m.suffix, 0)
	m.ends = append(m.ends, -1)
}

// step returns the state after s and c. Each step but the last makes the prefix
// shorter, so that a text of n bytes takes at most 2n of them.
func (m *matcher) step(s uint16, c byte) uint16 {
	for s != 0 {
		for child := m.first[s]; child < m.first[s+1]; child++ {
			if m.label[child] == c {
				return child
			}
		}
		s = m.fail[s]
	}
	return m.root[c]
}

// bits is a set of targets.
type bits [maxTargets / 64]uint64

func (b *bits) set(n int)      { b[n/64] |= 1 << (n % 64) }
func (b *bits) has(n int) bool { return b[n/64]&(1<<(n%64)) != 0 }

// scan adds to found the targets of the patterns that occur in text, which is at
// most 64 KiB. It allocates nothing.
func (m *matcher) scan(text []byte, found *bits) {
	// The end of each step's last occurrence, 0 for none.
	var progress [maxMulti][maxSteps - 1]uint16
	state := uint16(0)
	for i, c := range text {
		state = m.step(state, c)
		s := state
		if m.ends[s] < 0 {
			s = m.suffix[s]
		}
		for s != 0 {
			lit := &m.literal[m.ends[s]]
			start := i + 1 - int(lit.size)
			// Later steps first, so that one occurrence is not two steps of a pattern.
			for _, u := range slices.Backward(lit.uses) {
				p := &m.pattern[u.pattern]
				if p.steps == 1 {
					found.set(p.target)
					continue
				}
				if u.step > 0 {
					before := int(progress[p.slot][u.step-1])
					// Neighbours share the space between them.
					if before == 0 || start+1 < before || start-before > p.gap[u.step] {
						continue
					}
				}
				if u.step == p.steps-1 {
					found.set(p.target)
				} else {
					progress[p.slot][u.step] = uint16(i + 1)
				}
			}
			s = m.suffix[s]
		}
	}
}
