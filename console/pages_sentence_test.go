package console

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// sentence is how the sources write one for people.
var sentence = regexp.MustCompile(`^[A-Z“].* .*[.?]$`)

// sentencesOf are the whole sentences in a source, and the titles and names of what it
// tells people: what is put together of pieces is not among them.
func sentencesOf(t *testing.T, file string) []string {
	t.Helper()
	source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	literal := func(e ast.Expr) (string, bool) {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(lit.Value)
		return s, err == nil
	}
	ast.Inspect(source, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			return false
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Title" || key.Name == "Name") {
				if s, ok := literal(n.Value); ok && s != "deliverd" {
					all = append(all, s)
				}
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "value" {
				if s, ok := literal(n.Args[0]); ok {
					all = append(all, s)
				}
			}
		case *ast.BasicLit:
			if s, ok := literal(n); ok && sentence.MatchString(s) && !strings.Contains(s, "%") {
				all = append(all, s)
			}
		}
		return true
	})
	return all
}

// What is said to people on pages although it was made for programs too is there in
// every language.
func TestPageSentencesAreComplete(t *testing.T) {
	t.Parallel()
	daemon := filepath.Join("..", "cmd", "deliverd", "daemon")
	for _, file := range []string{"resend.go", "problem.go", "api.go", "queue.go", "maintenance.go", "maintenance_api.go", "auth.go", "pages_resend.go", "pages_maintenance.go",
		"pages_delays.go", "pages_health.go", "pages_domains.go", "pages_search.go", "domains_runs.go", filepath.Join(daemon, "pages.go"), filepath.Join(daemon, "resend.go")} {
		said := sentencesOf(t, file)
		if len(said) == 0 {
			t.Errorf("%s has no sentence: is it the right file?", file)
		}
		for _, lang := range languages[1:] {
			for _, english := range said {
				if pageSentence(lang, english) == english && loadPageWords()[lang][english] == "" {
					t.Errorf("%s lacks %q of %s", lang, english, file)
				}
			}
		}
	}
}

// What was filled in stays what it is, whatever it is.
func TestPageSentence(t *testing.T) {
	t.Parallel()
	for english, want := range map[string]string{
		"It can't be sent again":            "Sitä ei voi lähettää uudelleen",
		"“login {why}” says: no. Really.":   "“login {why}” vastasi: no. Really.",
		"Every mail is signed with 3 keys.": "Jokainen viesti allekirjoitetaan 3 avaimella.",
		"Nobody ever wrote this.":           "Nobody ever wrote this.",
		"":                                  "",
	} {
		if got := pageSentence("fi", english); got != want {
			t.Errorf("%q: %q, want %q", english, got, want)
		}
		if got := pageSentence("en", english); got != english {
			t.Errorf("in English: %q", got)
		}
	}
}
