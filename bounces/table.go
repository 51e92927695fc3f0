package bounces

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/deliverd/deliverd/mail"
)

//go:embed rules/*.txt
var ruleFiles embed.FS

//go:embed providers.txt
var providerFile string

// table is the compiled form of the rules and providers. It is read-only.
type table struct {
	rules     []rule
	providers []provider
	byID      map[string]int    // provider's id → its index
	family    map[string]uint64 // family → its providers
	byHost    map[string]int    // host suffix → its index
	matcher   *matcher
}

// rule is one block of a rule file: it decides where all its conditions hold.
type rule struct {
	name      string
	cause     mail.Cause
	codes     []codeRange // any of; none: any
	providers uint64      // any of; 0: any
	stages    []mail.Stage
	hasText   bool // any of its texts must be found
	weak      bool // not enough to suppress an address on
	sure      bool // nothing beside its text counts: no veto, nor that no recipient stands by it
	strength  strength
	examples  []string
}

type provider struct {
	id, name string
}

// codeRange is a condition on the codes: on the enhanced code if class is set or
// subject is not -1, else on the basic code.
type codeRange struct {
	enhanced bool
	class    int // 0: any
	subject  int
	from, to int // detail, or basic code
}

// targetVeto is the target of the words that forbid suppressing.
const targetVeto = maxTargets - 1

// The targets of a pattern, times targetKinds and the number of the rule or provider.
const (
	targetText     = iota // finding it is a condition of rule n
	targetUnless          // finding it rules rule n out
	targetProvider        // finding it tells provider n
	targetKinds
)

// compiled parses the embedded files once. A test loads them; an error in them can
// only come from a change to them.
var compiled = sync.OnceValue(func() *table {
	t, err := loadTable()
	if err != nil {
		panic(err)
	}
	return t
})

func loadTable() (*table, error) {
	t := &table{byID: map[string]int{}, family: map[string]uint64{}, byHost: map[string]int{}}
	b := newBuilder()
	if err := t.loadProviders(b, "providers.txt", providerFile); err != nil {
		return nil, err
	}
	names, err := fs.Glob(ruleFiles, "rules/*.txt")
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // the files' names begin with their place in the order
	for _, name := range names {
		text, err := ruleFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if err := t.loadRules(b, name, string(text)); err != nil {
			return nil, err
		}
	}
	t.matcher, err = b.build()
	return t, err
}

func (t *table) loadProviders(b *builder, file, text string) error {
	blocks, err := parseBlocks(file, text)
	if err != nil {
		return err
	}
	for _, bl := range blocks {
		n := len(t.providers)
		if n == 64 || bl.keyword != "provider" {
			return fmt.Errorf("%s:%d: want up to 64 blocks \"provider id\", each id once", file, bl.line)
		}
		p := provider{id: bl.name, name: bl.name}
		t.byID[p.id] = n
		for _, f := range bl.fields {
			switch f.keyword {
			case "name":
				p.name = f.value
			case "family":
				t.family[f.value] |= 1 << n
			case "host":
				for h := range strings.FieldsSeq(f.value) {
					t.byHost[h] = n
				}
			case "text":
				err = addAll(b, f.value, n*targetKinds+targetProvider)
			default:
				err = fmt.Errorf("unknown field %q", f.keyword)
			}
			if err != nil {
				return fmt.Errorf("%s:%d: %w", file, f.line, err)
			}
		}
		t.providers = append(t.providers, p)
	}
	return nil
}

func (t *table) loadRules(b *builder, file, text string) error {
	blocks, err := parseBlocks(file, text)
	if err != nil {
		return err
	}
	for _, bl := range blocks {
		switch bl.keyword {
		case "words":
			var all []string
			for _, f := range bl.fields {
				if f.keyword != "are" {
					return fmt.Errorf("%s:%d: unknown field %q", file, f.line, f.keyword)
				}
				all = append(all, splitTop(f.value)...)
			}
			b.words[bl.name] = strings.Join(all, "|")
		case "veto":
			for _, f := range bl.fields {
				if f.keyword != "text" {
					return fmt.Errorf("%s:%d: unknown field %q", file, f.line, f.keyword)
				}
				if err := addAll(b, f.value, targetVeto); err != nil {
					return fmt.Errorf("%s:%d: %w", file, f.line, err)
				}
			}
		case "rule":
			if err := t.loadRule(b, bl, fileStrength(file)); err != nil {
				return fmt.Errorf("%s:%d: rule %s: %w", file, bl.line, bl.name, err)
			}
		default:
			return fmt.Errorf("%s:%d: unknown block %q", file, bl.line, bl.keyword)
		}
	}
	return nil
}

// fileStrength is how much the rules of a file go by: the vague ones are in files of
// their own, the last.
func fileStrength(file string) strength {
	switch {
	case strings.Contains(file, "/8"):
		return strengthVague
	case strings.Contains(file, "/9"):
		return strengthLeast
	}
	return strengthText
}

func (t *table) loadRule(b *builder, bl block, s strength) error {
	r := rule{name: bl.name, strength: s}
	n := len(t.rules)
	for _, f := range bl.fields {
		var err error
		switch f.keyword {
		case "cause":
			r.cause = mail.Cause(f.value)
			if !slices.Contains(mail.Causes[:], r.cause) {
				err = fmt.Errorf("no such cause: %q", f.value)
			}
		case "code":
			for s := range strings.FieldsSeq(f.value) {
				c, cerr := parseCodeRange(s)
				if cerr != nil {
					err = cerr
				}
				r.codes = append(r.codes, c)
			}
		case "provider":
			for id := range strings.FieldsSeq(f.value) {
				mask := t.family[id]
				if p, ok := t.byID[id]; ok {
					mask |= 1 << p
				}
				if mask == 0 {
					err = fmt.Errorf("no such provider: %q", id)
				}
				r.providers |= mask
			}
		case "stage":
			for s := range strings.FieldsSeq(f.value) {
				r.stages = append(r.stages, mail.Stage(s))
			}
		case "text":
			r.hasText = true
			err = addAll(b, f.value, n*targetKinds+targetText)
		case "unless":
			err = addAll(b, f.value, n*targetKinds+targetUnless)
		case "weak":
			r.weak = true
		case "sure":
			r.sure = true
		case "example":
			r.examples = append(r.examples, f.value)
		default:
			err = fmt.Errorf("unknown field %q", f.keyword)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", f.line, err)
		}
	}
	if r.cause == "" || !r.hasText && r.codes == nil {
		return fmt.Errorf("wants a cause, and a text or a code")
	}
	if !r.hasText && s == strengthText {
		r.strength = strengthCode
	}
	t.rules = append(t.rules, r)
	return nil
}

func addAll(b *builder, patterns string, target int) error {
	for _, p := range splitTop(patterns) {
		if err := b.add(p, target); err != nil {
			return err
		}
	}
	return nil
}

// parseCodeRange reads "550", "5xx", "500-504", "5.1.1", "x.1.1", "5.7.x" or
// "5.7.500-599".
func parseCodeRange(s string) (codeRange, error) {
	bad := fmt.Errorf("not a code: %q", s)
	parts := strings.Split(s, ".")
	if len(parts) == 1 {
		if len(s) == 3 && s[1:] == "xx" {
			c := int(s[0] - '0')
			return codeRange{from: c * 100, to: c*100 + 99}, nil
		}
		from, to, err := parseRange(s)
		if err != nil {
			return codeRange{}, bad
		}
		return codeRange{from: from, to: to}, nil
	}
	if len(parts) != 3 {
		return codeRange{}, bad
	}
	c := codeRange{enhanced: true}
	var err error
	if parts[0] != "x" {
		if c.class, err = strconv.Atoi(parts[0]); err != nil {
			return codeRange{}, bad
		}
	}
	if c.subject, err = strconv.Atoi(parts[1]); err != nil {
		return codeRange{}, bad
	}
	if parts[2] == "x" {
		c.to = 999
		return c, nil
	}
	if c.from, c.to, err = parseRange(parts[2]); err != nil {
		return codeRange{}, bad
	}
	return c, nil
}

func parseRange(s string) (from, to int, err error) {
	a, b, ok := strings.Cut(s, "-")
	if from, err = strconv.Atoi(a); err != nil {
		return 0, 0, err
	}
	if !ok {
		return from, from, nil
	}
	to, err = strconv.Atoi(b)
	return from, to, err
}

func (c codeRange) holds(code int, e mail.EnhancedCode) bool {
	if !c.enhanced {
		return c.from <= code && code <= c.to
	}
	return e != (mail.EnhancedCode{}) && (c.class == 0 || c.class == e[0]) &&
		c.subject == e[1] && c.from <= e[2] && e[2] <= c.to
}
