package mail

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template/parse"
	"time"
)

// writeTemplates makes a directory of templates.
func writeTemplates(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestShippedTemplatesAreComplete(t *testing.T) {
	t.Parallel()
	templates := shippedTemplates(t)
	if got := templates.Names(); !slices.Equal(got, []string{"invite", "pin", "postmaster", "reset"}) {
		t.Errorf("names: %q", got)
	}
	want := map[string][]need{"invite": {{"link"}}, "reset": {{"link"}}, "pin": {{"pin", "code"}}}
	for name, needs := range want {
		if got := templates.Languages(name); !slices.Equal(got, []string{"en", "fi"}) {
			t.Errorf("%s is there in %q", name, got)
		}
		for _, lang := range []string{"en", "fi"} {
			if c, _ := templates.find(name, lang); !reflect.DeepEqual(c.needs, needs) {
				t.Errorf("%s.%s needs %q, want %q", name, lang, c.needs, needs)
			}
		}
	}
}

func TestFindFallsBack(t *testing.T) {
	t.Parallel()
	files := map[string]string{"footer.pt.txt": "clock: 15:04\ndate: 2006\n\n.", "footer.pt.html": ".",
		"footer.pt-br.txt": "clock: 15:04\ndate: 2006\n\n.", "footer.pt-br.html": "."}
	for _, name := range []string{"invite.pt", "invite.pt-br", "only.pt"} {
		files[name+".txt"], files[name+".html"] = "subject: s\n\nx", "x"
	}
	templates, err := LoadTemplates(writeTemplates(t, files))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, locale, want string }{
		{"invite", "fi", "fi"}, {"invite", "fi-FI", "fi"}, {"invite", "FI", "fi"}, {"invite", "", "en"}, {"invite", "sv-SE", "en"},
		{"invite", "pt", "pt"}, {"invite", "pt-BR", "pt-br"}, {"invite", "pt-BR-x", "pt-br"}, {"invite", "pt-PT", "pt"}, {"only", "fi", "pt"},
	} {
		c, ok := templates.find(tt.name, tt.locale)
		if !ok || c.lang != tt.want {
			t.Errorf("%s in %q: got %+v, want %s", tt.name, tt.locale, c, tt.want)
		}
	}
	if _, ok := templates.find("none", "en"); ok {
		t.Error("found a template that does not exist")
	}
}

func TestDirectoryOverridesFileByFile(t *testing.T) {
	t.Parallel()
	templates, err := LoadTemplates(writeTemplates(t, map[string]string{
		"invite.en.txt": "# a comment\nsubject: Welcome to\t{{.sender}}\n\nOur own words: {{.data.link}}\r\n",
		"README.md":     "not a template", ".hidden.txt": "neither", "invite.en.txt~": "an editor's",
	}))
	if err != nil {
		t.Fatal(err)
	}
	subject, text, html, err := templates.Preview(sample("invite", "en"))
	if err != nil || subject != "Welcome to Acme" || !strings.HasPrefix(text, "Our own words: https://login.acme.example/[secret]\n\n-- \n") ||
		!strings.Contains(html, "Accept the invite") {
		t.Errorf("%q, %v\n%s", subject, err, text)
	}
}

// A mistake in an operator's directory is told at start, with file and line.
func TestBadTemplatesAreToldWithFileAndLine(t *testing.T) {
	t.Parallel()
	const subject = "subject: s\npreheader: p\n\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  string // with DIR for the directory
	}{
		"syntax":               {map[string]string{"invite.en.txt": subject + "one\ntwo {{| .data.link}}\n"}, "DIR/invite.en.txt:5: "},
		"syntax in html":       {map[string]string{"invite.en.html": "one\n{{if}}"}, "DIR/invite.en.html:2: missing value for if"},
		"syntax in subject":    {map[string]string{"invite.en.txt": "# c\nsubject: {{end}}\n\nx"}, "DIR/invite.en.txt:2: unexpected {{end}}"},
		"unknown variable":     {map[string]string{"invite.en.txt": subject + "\n{{.link}}"}, "DIR/invite.en.txt:5:2: there is no variable .link"},
		"unknown in an if":     {map[string]string{"invite.en.txt": subject + "{{if .data.a}}{{$.toname}}{{end}}"}, "DIR/invite.en.txt:4:17: there is no variable .toname"},
		"unknown function":     {map[string]string{"invite.en.txt": subject + "{{env \"HOME\"}}"}, "DIR/invite.en.txt:4: function \"env\" not defined"},
		"unknown template":     {map[string]string{"invite.en.txt": subject + "{{template \"other\"}}"}, "DIR/invite.en.txt:4:11: there is no template \"other\""},
		"no subject":           {map[string]string{"invite.en.txt": "\nHello"}, "DIR/invite.en.txt:1: the file must begin with a line \"subject: …\""},
		"unknown head":         {map[string]string{"invite.en.txt": "subject: x\nbcc: y\n\nHello"}, "DIR/invite.en.txt:2: want one of"},
		"html context":         {map[string]string{"invite.en.html": "<p>\n<a href={{if .data.link}}\"{{end}}>"}, "DIR/invite.en.html:2"},
		"no html":              {map[string]string{"extra.en.txt": subject + "x"}, "DIR/extra.en.txt: needs extra.en.html beside it"},
		"no text":              {map[string]string{"extra.en.html": "x"}, "DIR/extra.en.html: needs extra.en.txt beside it"},
		"no footer":            {map[string]string{"invite.sv.txt": subject + "x", "invite.sv.html": "x"}, "DIR/invite.sv.txt: needs footer.sv.txt beside it"},
		"no clock":             {map[string]string{"footer.en.txt": "date: 2006\n\nx"}, "DIR/footer.en.txt:1: the file must begin with lines \"clock: …\" and \"date: …\""},
		"eleven months":        {map[string]string{"footer.en.txt": "clock: 15\ndate: 2006\nmonths: 1,2,3,4,5,6,7,8,9,10,11\n\nx"}, "names 11 months"},
		"name of a file":       {map[string]string{"Invite_fi.txt": "x"}, "DIR/Invite_fi.txt: not the name of a template"},
		"too large":            {map[string]string{"invite.en.html": strings.Repeat("x", maxTemplateBytes+1)}, "DIR/invite.en.html: larger than 256 KiB"},
		"layout without body?": {map[string]string{"layout.html": "{{.data.link}}"}, ""}, // odd, but the operator's choice
	} {
		dir := writeTemplates(t, tt.files)
		_, err := LoadTemplates(dir)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if want := strings.ReplaceAll(tt.want, "DIR", dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to say %q", name, err, want)
		}
	}
	if _, err := LoadTemplates(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that is not there was taken")
	}
}

func TestTemplatesStayInTheirDirectory(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(outside, []byte("subject: x\n\nroot:x:0:0"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "invite.en.txt")); err != nil {
		t.Skip(err)
	}
	if _, err := LoadTemplates(dir); err == nil {
		t.Error("a link that leads out of the directory was followed")
	}
}

func TestWalkFindsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]need{
		"":                 nil,
		"{{.data.link}}":   {{"link"}},
		"{{$.data.link}}":  {{"link"}},
		"{{.data.a.b}}":    {{"a.b"}},
		"{{host .data.a}}": {{"a"}},
		"{{.data.a | printf \"%s\"}} {{.data.a}}":                                                         {{"a"}},
		"{{(printf \"%s\" .data.a)}}":                                                                     {{"a"}},
		"{{if .data.a}}{{.data.b}}{{else}}{{.data.c}}{{end}}{{.data.d}}":                                  {{"d"}},
		"{{with .data.a}}{{.}}{{$.data.b}}{{else}}{{.data.c}}{{end}}":                                     nil,
		"{{range .data.a}}{{.name}}{{end}}":                                                               nil,
		"{{or .data.a .data.b}}":                                                                          {{"a", "b"}},
		"{{or .data.a .tenant_name}}":                                                                     nil,
		"{{or .data.a \"x\"}}":                                                                            nil,
		"{{if eq .data.a \"x\"}}y{{end}}{{eq .data.b \"x\"}}":                                             nil,
		"{{define \"t\"}}{{.data.a}}{{end}}{{template \"t\" .}}":                                          {{"a"}},
		"{{define \"t\"}}{{.data.a}}{{end}}{{template \"t\" $}}":                                          {{"a"}},
		"{{define \"t\"}}{{.a}}{{$.b}}{{end}}{{template \"t\" .data.c}}":                                  {{"c"}},
		"{{define \"t\"}}{{.data.a}}{{template \"t\" .}}{{end}}{{.data.b}}":                               {{"b"}},
		"{{define \"t\"}}{{.data.a}}{{end}}{{if .data.b}}{{template \"t\" .}}{{end}}{{template \"t\" .}}": {{"a"}},
	} {
		w := &walk{}
		if _, err := parseFiles(w, map[string]source{"layout": {"file", text}}); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(w.needs, want) {
			t.Errorf("%s needs %q, want %q", text, w.needs, want)
		}
	}
}

func TestCyclesEnd(t *testing.T) {
	t.Parallel()
	w := &walk{}
	tree := parse.New("t")
	if _, err := tree.Parse(`{{template "t" .}}{{if .data.x}}{{template "t" .}}{{end}}`, "", "", map[string]*parse.Tree{}); err != nil {
		t.Fatal(err)
	}
	if err := w.from(map[string]*parse.Tree{"t": tree}, "t"); err != nil {
		t.Error(err)
	}
}

// FAULTS D13: what does not end by itself ends by its size.
func TestEndlessTemplatesEnd(t *testing.T) {
	t.Parallel()
	templates, err := LoadTemplates(writeTemplates(t, map[string]string{
		"invite.en.txt": "subject: s\n\n{{define \"again\"}}again and {{template \"again\" .}}{{end}}{{template \"again\" .}}{{.data.link}}",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := templates.Render(sample("invite", "en")); err == nil {
		t.Error("an endless template was rendered")
	}
}

func TestUntil(t *testing.T) {
	t.Parallel()
	english := newTimeStyle("15:04 MST", "2 January 2006 at 15:04 MST", nil)
	months := newTimeStyle("15:04", "Mon 2 January", strings.Split("i, ii, iii, iv, v, vi, vii, viii, ix, x, November 2006 at 15, xii", ","))
	from := time.Date(2026, 11, 21, 23, 50, 0, 0, time.UTC)
	for _, tt := range []struct {
		style timeStyle
		after time.Duration
		want  string
	}{
		{english, 15 * time.Minute, "00:05 UTC"},
		{english, near - 1, "17:49 UTC"},
		{english, near, "22 November 2026 at 17:50 UTC"},
		{months, 48 * time.Hour, "Mon 23 November 2006 at 15"}, // a month's name is not taken for a time
	} {
		if got := tt.style.until(from.Add(tt.after), from, time.UTC); got != tt.want {
			t.Errorf("in %v: %q, want %q", tt.after, got, tt.want)
		}
	}
}
