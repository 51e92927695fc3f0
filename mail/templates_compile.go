package mail

import (
	"cmp"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"net/url"
	"slices"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
)

// compile puts one template in one language together from its six files.
func compile(sources map[string]source, name, lang string) (*compiled, error) {
	main := name + "." + lang
	body, err1 := beside(sources, main+".txt", main+".txt")
	html, err2 := beside(sources, main+".txt", main+".html")
	footer, err3 := beside(sources, main+".txt", "footer."+lang+".txt")
	htmlFooter, err4 := beside(sources, main+".txt", "footer."+lang+".html")
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	head, body, err := splitHead(body, "subject", "preheader")
	if err != nil {
		return nil, err
	}
	if head["subject"].value == "" {
		return nil, fmt.Errorf(`%s:1: the file must begin with a line "subject: …"`, body.origin)
	}
	times, footer, err := parseTimeStyle(footer)
	if err != nil {
		return nil, err
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

// beside returns the file called name, which the file called whose can't do without.
func beside(sources map[string]source, whose, name string) (source, error) {
	s, ok := sources[name]
	if !ok {
		return s, fmt.Errorf("%s: needs %s beside it", sources[whose].origin, name)
	}
	return s, nil
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
	for _, name := range sortedKeys(files) {
		file := files[name]
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
