package mail

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	texttemplate "text/template"
	"text/template/parse"
)

// Templates are the mails' texts, parsed once and then only read: safe for concurrent
// use.
//
// A template is two files for each language, NAME.LANGUAGE.txt and NAME.LANGUAGE.html,
// as invite.en.txt. The .txt begins with lines "subject:" and "preheader:" and an empty
// line, then comes the plain text; the .html is what stands inside the card. Around
// them go layout.txt and layout.html, which know no language, and below them
// footer.LANGUAGE.txt and .html, whose head says how the language writes a time
// ("clock:" within a day, "date:", both in Go's reference time, and "months:", twelve
// names with commas). Lines of a head that begin with # are comments. A language is
// added by adding files.
//
// The files are Go templates over data alone: text/template for .txt, html/template,
// which escapes by context, for .html. They see
//
//	.to .to_name .tenant .tenant_name .person_id   as the request gave them
//	.kind .ref .lang
//	.sender .from       display name (else the domain) and address of From
//	.until              the expiry, as "14:35 UTC", or with its date if that is not near
//	.until_date         the expiry, always with its date
//	.subject .preheader in the layout, body and footer
//	.data               the request's data, e.g. .data.link
//
// (times in the zone that .data.timezone names, e.g. Europe/Helsinki, else in UTC)
// and one function, host, the host of a link. A variable below .data that stands
// outside of if, with and range is required, and a request without it is refused; of
// {{or .data.pin .data.code}} one is.
type Templates struct {
	byName map[string]map[string]*compiled // name → language, lower case
	zones  sync.Map                        // name → *time.Location: loading one reads files
}

// defaultLanguage is what an unknown locale gets.
const defaultLanguage = "en"

// compiled is one template in one language.
type compiled struct {
	lang      string
	subject   *texttemplate.Template
	preheader *texttemplate.Template
	text      *texttemplate.Template
	html      *htmltemplate.Template
	times     timeStyle
	needs     []need
	uses      []variable // all of them have to be there when executing
}

//go:embed templates
var embedded embed.FS

// What a directory of templates may hold, so that a wrong directory is no harm.
const (
	maxTemplateFiles = 500
	maxTemplateBytes = 256 << 10
)

// LoadTemplates parses the templates that ship and those in dir, which take the place
// of shipped files of the same name; dir may be "". Symbolic links that lead out of dir
// are refused. An error names file and line.
func LoadTemplates(dir string) (*Templates, error) {
	sources := map[string]source{}
	shipped, err := fs.Sub(embedded, "templates")
	if err != nil {
		return nil, err
	}
	if err := readSources(sources, shipped, ""); err != nil {
		return nil, err
	}
	if dir != "" {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, fmt.Errorf("directory of templates: %w", err)
		}
		defer root.Close()
		if err := readSources(sources, root.FS(), dir); err != nil {
			return nil, err
		}
	}
	return compileAll(sources)
}

// source is one file. origin is how errors name it.
type source struct {
	origin string
	text   string
}

var (
	templateFile = regexp.MustCompile(`^([a-z0-9][a-z0-9_-]*)\.([a-z]{2,3}(?:-[a-z0-9]{2,8})*)\.(txt|html)$`)
	layoutFile   = regexp.MustCompile(`^layout\.(txt|html)$`)
)

// readSources reads the templates at the top of fsys into sources. Other files (a
// README, an editor's backup) are left alone, but a .txt or .html whose name fits no
// pattern is an error: it was meant to be one.
func readSources(sources map[string]source, fsys fs.FS, dir string) error {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return fmt.Errorf("directory of templates: %w", err)
	}
	if len(entries) > maxTemplateFiles {
		return fmt.Errorf("directory of templates %s: more than %d files", dir, maxTemplateFiles)
	}
	for _, e := range entries {
		name := e.Name()
		ext := path.Ext(name)
		if e.IsDir() || ext != ".txt" && ext != ".html" || strings.HasPrefix(name, ".") {
			continue
		}
		origin := filepath.Join(dir, name)
		if !templateFile.MatchString(name) && !layoutFile.MatchString(name) {
			return fmt.Errorf("%s: not the name of a template: want NAME.LANGUAGE%s in lower case, as invite.en%s", origin, ext, ext)
		}
		info, err := fs.Stat(fsys, name)
		if err == nil && info.Size() > maxTemplateBytes {
			err = fmt.Errorf("larger than %d KiB", maxTemplateBytes>>10)
		}
		var text []byte
		if err == nil {
			text, err = fs.ReadFile(fsys, name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", origin, err)
		}
		sources[name] = source{origin, strings.ReplaceAll(string(text), "\r\n", "\n")}
	}
	return nil
}

func compileAll(sources map[string]source) (*Templates, error) {
	t := &Templates{byName: map[string]map[string]*compiled{}}
	// In order, so that of several mistakes the same one is reported each time.
	names := make([]string, 0, len(sources))
	for name := range sources {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		part := templateFile.FindStringSubmatch(name)
		if part == nil || part[1] == "footer" {
			continue
		}
		if part[3] == "html" {
			if twin := part[1] + "." + part[2] + ".txt"; sources[twin].text == "" {
				return nil, fmt.Errorf("%s: needs %s beside it", sources[name].origin, twin)
			}
			continue
		}
		c, err := compile(sources, part[1], part[2])
		if err != nil {
			return nil, err
		}
		if t.byName[part[1]] == nil {
			t.byName[part[1]] = map[string]*compiled{}
		}
		t.byName[part[1]][part[2]] = c
	}
	return t, nil
}

// compile puts one template in one language together from its six files.
func compile(sources map[string]source, name, lang string) (*compiled, error) {
	main := name + "." + lang
	file := func(name string) (source, error) {
		s, ok := sources[name]
		if !ok {
			return s, fmt.Errorf("%s: needs %s beside it", sources[main+".txt"].origin, name)
		}
		return s, nil
	}
	body, err1 := file(main + ".txt")
	html, err2 := file(main + ".html")
	footer, err3 := file("footer." + lang + ".txt")
	htmlFooter, err4 := file("footer." + lang + ".html")
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	head, body, err := splitHead(body, "subject", "preheader")
	if err != nil {
		return nil, err
	}
	times, footer, err := parseTimeStyle(footer)
	if err != nil {
		return nil, err
	}
	if head["subject"].value == "" {
		return nil, fmt.Errorf(`%s:1: the file must begin with a line "subject: …"`, body.origin)
	}
	c := &compiled{lang: lang, times: times}
	w := &walk{}
	line := func(key string) map[string]source {
		return map[string]source{"layout": {body.origin, atLine(head[key].line, head[key].value)}}
	}
	if c.subject, err = compileText(w, line("subject")); err != nil {
		return nil, err
	}
	if c.preheader, err = compileText(w, line("preheader")); err != nil {
		return nil, err
	}
	c.text, err = compileText(w, map[string]source{"layout": sources["layout.txt"], "body": body, "footer": footer})
	if err != nil {
		return nil, err
	}
	c.html, err = compileHTML(w, map[string]source{"layout": sources["layout.html"], "body": html, "footer": htmlFooter})
	if err != nil {
		return nil, err
	}
	c.needs, c.uses = w.needs, w.uses
	return c, c.rehearse()
}

// functions is everything that a template can call beside Go's own.
var functions = texttemplate.FuncMap{"host": linkHost}

// linkHost returns the host of a link, "" for anything else.
func linkHost(v any) string {
	s, _ := v.(string)
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}

// parseFiles parses files into trees by the name under which they call each other.
// Errors name the file, as the trees carry its name.
func parseFiles(w *walk, files map[string]source) (map[string]*parse.Tree, error) {
	trees := map[string]*parse.Tree{}
	for name, file := range files {
		t, err := texttemplate.New(file.origin).Funcs(functions).Parse(file.text)
		if err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
		}
		for _, sub := range t.Templates() {
			trees[sub.Name()] = sub.Tree
		}
		delete(trees, file.origin)
		trees[name] = t.Tree
		if t.Tree == nil { // an empty file
			trees[name] = &parse.Tree{Name: name, ParseName: file.origin, Root: &parse.ListNode{NodeType: parse.NodeList}}
		}
	}
	return trees, w.from(trees, "layout")
}

func compileText(w *walk, files map[string]source) (*texttemplate.Template, error) {
	trees, err := parseFiles(w, files)
	if err != nil {
		return nil, err
	}
	set := texttemplate.New("layout").Funcs(functions).Option("missingkey=error")
	for name, tree := range trees {
		if _, err := set.AddParseTree(name, tree); err != nil {
			return nil, err
		}
	}
	return set, nil
}

func compileHTML(w *walk, files map[string]source) (*htmltemplate.Template, error) {
	trees, err := parseFiles(w, files)
	if err != nil {
		return nil, err
	}
	set := htmltemplate.New("layout").Funcs(htmltemplate.FuncMap(functions)).Option("missingkey=error")
	for name, tree := range trees {
		if _, err := set.AddParseTree(name, tree); err != nil {
			return nil, err
		}
	}
	return set.Lookup("layout"), nil // AddParseTree leaves set itself as it was
}

// headLine is one "key: value" of a file's head.
type headLine struct {
	value string
	line  int
}

// splitHead takes the "key: value" lines off the top of a file. What is left keeps its
// place, so that errors give the file's own line numbers.
func splitHead(file source, keys ...string) (head map[string]headLine, body source, err error) {
	head = map[string]headLine{}
	rest, line := file.text, 0
	for rest != "" {
		var text string
		text, rest, _ = strings.Cut(rest, "\n")
		line++
		if strings.TrimSpace(text) == "" {
			break
		}
		if strings.HasPrefix(text, "#") {
			continue
		}
		key, value, ok := strings.Cut(text, ":")
		if !ok || !slices.Contains(keys, key) {
			return nil, body, fmt.Errorf("%s:%d: want one of %q with a colon, or an empty line before the text", file.origin, line, keys)
		}
		head[key] = headLine{strings.TrimSpace(value), line}
	}
	return head, source{file.origin, atLine(line+1, rest)}, nil
}

// atLine moves the text of a template down to a line, by a comment that is as long.
func atLine(line int, text string) string {
	if line < 2 {
		return text
	}
	return "{{- /*" + strings.Repeat("\n", line-2) + "*/ -}}\n" + text
}

// find returns the template of a name in the language that fits a locale best: "pt-br",
// else "pt", else English, else whatever there is.
func (t *Templates) find(name, locale string) (*compiled, bool) {
	languages := t.byName[name]
	if len(languages) == 0 {
		return nil, false
	}
	for lang := strings.ToLower(locale); lang != ""; lang = lang[:max(strings.LastIndexByte(lang, '-'), 0)] {
		if c := languages[lang]; c != nil {
			return c, true
		}
	}
	if c := languages[defaultLanguage]; c != nil {
		return c, true
	}
	return languages[t.Languages(name)[0]], true
}

// Names returns the names of all templates, sorted.
func (t *Templates) Names() []string {
	names := make([]string, 0, len(t.byName))
	for name := range t.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Languages returns the languages of a template, sorted.
func (t *Templates) Languages(name string) []string {
	langs := make([]string, 0, len(t.byName[name]))
	for lang := range t.byName[name] {
		langs = append(langs, lang)
	}
	slices.Sort(langs)
	return langs
}
