package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFaultTable holds docs/faults.md against the sources: every row of the fault suite
// is there once, with tests that exist or with words that say why there is none.
func TestFaultTable(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	rowOf := regexp.MustCompile(`^[A-G][0-9]{2}$`)
	named := regexp.MustCompile("`([a-z/]+)\\.(Test[A-Za-z0-9_]+)`")
	known := map[string]map[string]bool{} // tests by directory
	rows := map[string]int{}
	count := map[byte]int{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		row := strings.TrimSpace(cells[0])
		if !rowOf.MatchString(row) {
			continue
		}
		rows[row]++
		count[row[0]]++
		if len(cells) != 4 {
			t.Errorf("%s: %d cells", row, len(cells))
			continue
		}
		tests := named.FindAllStringSubmatch(cells[2], -1)
		if len(tests) == 0 && len(strings.TrimSpace(cells[3])) < len("Does not apply") {
			t.Errorf("%s: neither a test nor a reason", row)
		}
		for _, test := range tests {
			dir := test[1]
			if known[dir] == nil {
				known[dir] = testsIn(t, filepath.Join(root, filepath.FromSlash(dir)))
			}
			if !known[dir][test[2]] {
				t.Errorf("%s: there is no %s in %s", row, test[2], dir)
			}
		}
	}
	for row, n := range rows {
		if n != 1 {
			t.Errorf("%s is there %d times", row, n)
		}
	}
	// How many rows the suite has.
	for part, want := range map[byte]int{'A': 55, 'B': 20, 'C': 18, 'D': 36, 'E': 17, 'F': 27, 'G': 20} {
		if count[part] != want {
			t.Errorf("part %c has %d rows of %d", part, count[part], want)
		}
	}
}

// testsIn returns the names of a package's tests.
func testsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}
