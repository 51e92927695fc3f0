package mail

import (
	"embed"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	texttemplate "text/template"
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
// and one function, host, the host of a link. Times are told in the zone that
// .data.timezone names, e.g. Europe/Helsinki, else in UTC. A variable below .data that
// stands outside of if, with and range is required, and a request without it is
// refused; of {{or .data.pin .data.code}} one is.
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

//go:embed templates/*.txt templates/*.html
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
	for _, name := range sortedKeys(sources) {
		part := templateFile.FindStringSubmatch(name)
		if part == nil || part[1] == "footer" {
			continue
		}
		if part[3] == "html" {
			if _, err := beside(sources, name, part[1]+"."+part[2]+".txt"); err != nil {
				return nil, err
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
func (t *Templates) Names() []string { return sortedKeys(t.byName) }

// Languages returns the languages of a template, sorted.
func (t *Templates) Languages(name string) []string { return sortedKeys(t.byName[name]) }
