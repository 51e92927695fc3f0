package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/deliverd/deliverd"

// house is the picture of the program: which room may import which of ours. A star,
// not a web: neighbours meet only in cmd.
var house = map[string][]string{
	"mail":                 {},
	"dnscheck":             {},
	"dnscheck/dnstest":     {"dnscheck"},
	"client":               {"mail"},
	"queue":                {"mail"},
	"queue/natstest":       {},
	"bounces":              {"mail"},
	"intake":               {"mail"},
	"deliver":              {"deliver/tlspolicy", "dnscheck", "bounces", "mail"},
	"deliver/tlspolicy":    {"dnscheck", "mail"},
	"deliver/tlsrpt":       {"deliver/tlspolicy", "mail"},
	"deliver/smtptest":     {"mail"},
	"console":              {"dnscheck", "bounces", "mail"},
	"bench":                {"client", "deliver", "deliver/smtptest"},
	"cmd/deliverd":         {"*"},
	"cmd/deliverd/daemon":  {"*"},
	"cmd/deliverd/bench":   {"*"},
	"cmd/deliverd/backup":  {"queue"},
	"cmd/deliverd/sample":  {"deliver/smtptest", "mail"},
	"cmd/deliverd/signals": {},
	"cmd/deliverd/systemd": {},
}

// homes says which rooms may import a foreign library, so that each has one home.
// Tests may use any as a peer, and any room.
var homes = map[string][]string{
	"github.com/nats-io/nats.go":          {"queue", "queue/natstest", "cmd/deliverd/daemon", "cmd/deliverd/bench", "cmd/deliverd/backup"},
	"github.com/nats-io/nats-server":      {"queue/natstest", "cmd/deliverd/daemon", "cmd/deliverd/backup"},
	"github.com/miekg/dns":                {"dnscheck", "dnscheck/dnstest"},
	"github.com/emersion/go-msgauth":      {"deliver"},
	"github.com/emersion/go-smtp":         {"bounces"},
	"modernc.org/sqlite":                  {"console"},
	"github.com/coreos/go-oidc":           {"console"},
	"golang.org/x/oauth2":                 {"console"},
	"github.com/spf13/cobra":              {"cmd/deliverd"},
	"github.com/pelletier/go-toml":        {"cmd/deliverd/daemon"},
	"github.com/prometheus/client_golang": {"cmd/deliverd/daemon"},
}

// TestHouse reads the sources' imports with go/parser: a test that runs `go list`
// would be cached and pass falsely.
func TestHouse(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root && d.Name() != ".." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		room := filepath.ToSlash(filepath.Dir(rel))
		allowed, known := house[room]
		if !known {
			t.Errorf("%s: the house has no room %q; add it to the picture in DESIGN and here, or put the file where it belongs", rel, room)
			return nil
		}
		seen[room] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(path, "_test.go")
		for _, imp := range f.Imports {
			name, _ := strconv.Unquote(imp.Path.Value)
			if ours, ok := strings.CutPrefix(name, module+"/"); ok {
				if !test && !slices.Contains(allowed, "*") && !slices.Contains(allowed, ours) {
					t.Errorf("%s imports %s; %s may import %v", rel, ours, room, allowed)
				}
				continue
			}
			for lib, rooms := range homes {
				if (name == lib || strings.HasPrefix(name, lib+"/")) && !test && !slices.Contains(rooms, room) {
					t.Errorf("%s imports %s, whose home is %v", rel, name, rooms)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := range house {
		if !seen[room] {
			t.Errorf("the picture has a room %q that is not there", room)
		}
	}
}
