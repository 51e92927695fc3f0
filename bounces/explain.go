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
	l := languageOf(lang)
	if e, ok := l.causes[cause]; ok {
		return e
	}
	return l.causes[mail.CauseUnknown]
}

// ExplainAction returns what to tell of a report that is no failure: delivered,
// relayed or expanded. Any other action is explained as relayed.
func ExplainAction(action Action, lang string) Explanation {
	l := languageOf(lang)
	if e, ok := l.actions[action]; ok {
		return e
	}
	return l.actions[ActionRelayed]
}

func languageOf(lang string) language {
	lang = strings.ToLower(lang)
	if i := strings.IndexAny(lang, "-_"); i >= 0 {
		lang = lang[:i]
	}
	c := catalogue()
	if l, ok := c[lang]; ok {
		return l
	}
	return c["en"]
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

// language is the catalogue in one language.
type language struct {
	causes  map[mail.Cause]Explanation
	actions map[Action]Explanation // that are no failures
}

// explainedActions are the actions that every language explains.
var explainedActions = [...]Action{ActionDelivered, ActionRelayed, ActionExpanded}

// catalogue parses the embedded files once, by language. A test loads them and holds
// every language complete.
var catalogue = sync.OnceValue(func() map[string]language {
	c, err := loadCatalogue(causeFiles)
	if err != nil {
		panic(err)
	}
	return c
})

func loadCatalogue(files fs.FS) (map[string]language, error) {
	who := map[mail.Cause]mail.Actor{}
	blocks, err := readBlocks(files, "causes/who.txt")
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		for _, f := range b.fields {
			who[mail.Cause(b.name)] = mail.Actor(f.value)
		}
	}
	names, err := fs.Glob(files, "causes/*.txt")
	if err != nil {
		return nil, err
	}
	all := map[string]language{}
	for _, name := range names {
		lang := strings.TrimSuffix(path.Base(name), ".txt")
		if lang == "who" {
			continue
		}
		if blocks, err = readBlocks(files, name); err != nil {
			return nil, err
		}
		if all[lang], err = loadLanguage(name, blocks, who); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readBlocks(files fs.FS, name string) ([]block, error) {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, err
	}
	return parseBlocks(name, string(text))
}

func loadLanguage(name string, blocks []block, who map[mail.Cause]mail.Actor) (language, error) {
	l := language{causes: map[mail.Cause]Explanation{}, actions: map[Action]Explanation{}}
	words := map[string]string{}
	for _, b := range blocks {
		e := Explanation{Who: mail.ActNobody, time: words["time"]}
		for _, f := range b.fields {
			value := strings.ReplaceAll(f.value, "{where}", words["where"])
			switch {
			case b.keyword == "words":
				words[f.keyword] = f.value
			case f.keyword == "plain":
				e.Plain = value
			case f.keyword == "next":
				e.NextStep = value
			case f.keyword == "reply" && e.Reply == "":
				e.Reply = value
			case f.keyword == "reply":
				e.Reply += "\n\n" + value
			default:
				return language{}, fmt.Errorf("%s:%d: unknown field %q", name, f.line, f.keyword)
			}
		}
		switch {
		case b.keyword == "words":
		case b.keyword == "cause" && slices.Contains(mail.Causes[:], mail.Cause(b.name)):
			e.Who = who[mail.Cause(b.name)]
			l.causes[mail.Cause(b.name)] = e
		case b.keyword == "action" && slices.Contains(explainedActions[:], Action(b.name)):
			l.actions[Action(b.name)] = e
		default:
			return language{}, fmt.Errorf("%s:%d: no such %s: %q", name, b.line, b.keyword, b.name)
		}
	}
	return l, nil
}
