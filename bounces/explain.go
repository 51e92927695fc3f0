package bounces

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

//go:embed causes/*.txt
var causeFiles embed.FS

// Explanation is what people are told of a cause, in one language. Its texts have
// placeholders until Fill replaces them.
type Explanation struct {
	Plain    string     // what happened, a sentence, for whoever looks at the message
	NextStep string     // what to do now, for support
	Reply    string     // text to paste to the customer, paragraphs parted by an empty line
	Who      mail.Actor // who acts

	time string // the language's layout of a time
}

// Facts are what an explanation can be filled with. What is not known stays empty and
// is left out of the text.
type Facts struct {
	To       string // the address
	Domain   string
	Provider string    // the name of the mail product there, see ProviderName
	Time     time.Time // when it was said, in the reader's time zone
	Said     string    // the server's own words
	Ref      string    // the message's reference
}

// Explain returns what to tell of a cause in the language of lang ("en", "fi",
// "fi-FI"), in English where that language is missing. An unknown cause is explained
// as mail.CauseUnknown.
func Explain(cause mail.Cause, lang string) Explanation {
	c := catalogue()
	lang = strings.ToLower(lang)
	if i := strings.IndexAny(lang, "-_"); i >= 0 {
		lang = lang[:i]
	}
	texts, ok := c[lang]
	if !ok {
		texts = c["en"]
	}
	if e, ok := texts[cause]; ok {
		return e
	}
	return texts[mail.CauseUnknown]
}

// Languages returns the languages of the catalogue, sorted.
func Languages() []string {
	var langs []string
	for l := range catalogue() {
		langs = append(langs, l)
	}
	slices.Sort(langs)
	return langs
}

// ProviderName returns the name of the provider with this id as people know it, and
// id itself for an unknown one.
func ProviderName(id string) string {
	t := compiled()
	if n, ok := t.byID[id]; ok {
		return t.providers[n].name
	}
	return id
}

// Fill returns e with its placeholders replaced. Values are put in as they are: text,
// not HTML.
func (e Explanation) Fill(f Facts) Explanation {
	values := map[string]string{
		"to": f.To, "domain": f.Domain, "provider": f.Provider, "said": f.Said, "ref": f.Ref,
	}
	if !f.Time.IsZero() {
		values["time"] = f.Time.Format(e.time)
	}
	e.Plain = fill(e.Plain, values)
	e.NextStep = fill(e.NextStep, values)
	e.Reply = fill(e.Reply, values)
	return e
}

// fill replaces each [bracket] of s by the first of its alternatives whose
// placeholders all have a value, or by nothing.
func fill(s string, values map[string]string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "[")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		bracket, after, _ := strings.Cut(rest, "]")
		for alternative := range strings.SplitSeq(bracket, "|") {
			if text, ok := fillAll(alternative, values); ok {
				out.WriteString(text)
				break
			}
		}
		s = after
	}
}

func fillAll(s string, values map[string]string) (string, bool) {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "{")
		out.WriteString(before)
		if !ok {
			return out.String(), true
		}
		name, after, _ := strings.Cut(rest, "}")
		if values[name] == "" {
			return "", false
		}
		out.WriteString(values[name])
		s = after
	}
}

// catalogue parses the embedded files once: language → cause → explanation. A test
// loads them and holds every language complete.
var catalogue = sync.OnceValue(func() map[string]map[mail.Cause]Explanation {
	c, err := loadCatalogue(causeFiles)
	if err != nil {
		panic(err)
	}
	return c
})

func loadCatalogue(files fs.FS) (map[string]map[mail.Cause]Explanation, error) {
	who := map[mail.Cause]mail.Actor{}
	err := eachCause(files, "causes/who.txt", func(cause mail.Cause, f field) error {
		if f.keyword != "who" {
			return fmt.Errorf("unknown field %q", f.keyword)
		}
		who[cause] = mail.Actor(f.value)
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(files, "causes/*.txt")
	if err != nil {
		return nil, err
	}
	all := map[string]map[mail.Cause]Explanation{}
	for _, name := range names {
		lang := strings.TrimSuffix(path.Base(name), ".txt")
		if lang == "who" {
			continue
		}
		if all[lang], err = loadLanguage(files, name, who); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func loadLanguage(files fs.FS, name string, who map[mail.Cause]mail.Actor) (map[mail.Cause]Explanation, error) {
	texts := map[mail.Cause]Explanation{}
	words := map[string]string{}
	err := eachCause(files, name, func(cause mail.Cause, f field) error {
		e := texts[cause]
		e.Who, e.time = who[cause], words["time"]
		value := strings.ReplaceAll(f.value, "{where}", words["where"])
		switch f.keyword {
		case "plain":
			e.Plain = value
		case "next":
			e.NextStep = value
		case "reply":
			if e.Reply != "" {
				e.Reply += "\n\n"
			}
			e.Reply += value
		default:
			return fmt.Errorf("unknown field %q", f.keyword)
		}
		texts[cause] = e
		return nil
	}, words)
	return texts, err
}

// eachCause calls field for each field of each cause of a file; the fields of its
// block "words" go to words.
func eachCause(files fs.FS, name string, each func(mail.Cause, field) error, words map[string]string) error {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	blocks, err := parseBlocks(name, string(text))
	if err != nil {
		return err
	}
	for _, b := range blocks {
		cause := mail.Cause(b.name)
		if b.keyword != "words" && (b.keyword != "cause" || !slices.Contains(mail.Causes[:], cause)) {
			return fmt.Errorf("%s:%d: no such cause: %q", name, b.line, b.name)
		}
		for _, f := range b.fields {
			if b.keyword == "words" {
				words[f.keyword] = f.value
			} else if err := each(cause, f); err != nil {
				return fmt.Errorf("%s:%d: %w", name, f.line, err)
			}
		}
	}
	return nil
}
