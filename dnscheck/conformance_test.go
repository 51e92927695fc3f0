package dnscheck

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
	"go.yaml.in/yaml/v3"
)

// shared reads a file of the project's shared test data, which is kept outside
// this repository because it is others' work. DELIVERD_SHARED names its directory;
// without it these tests are skipped, but not in CI.
func shared(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("DELIVERD_SHARED")
	if dir == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("DELIVERD_SHARED is not set")
		}
		t.Skip("DELIVERD_SHARED is not set")
	}
	data, err := os.ReadFile(filepath.Join(dir, "dns", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// scenario is one document of the openspf.org test suite.
type scenario struct {
	Description string
	Comment     string
	Tests       map[string]struct {
		Helo, Host, Mailfrom string
		Result               oneOrMore
		Explanation          string
		Receiver             string
		Skip                 string
	}
	Zonedata map[string][]yaml.Node
}

type oneOrMore []string

func (o *oneOrMore) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*o = []string{n.Value}
		return nil
	}
	return n.Decode((*[]string)(o))
}

// zoneText turns the suite's zone data into a zone and its faults. SPF records
// are TXT records unless the name says TXT itself; TIMEOUT is silence for what
// comes after it.
func (s *scenario) zoneText(t *testing.T) (string, []dnstest.Fault) {
	var text strings.Builder
	var faults []dnstest.Fault
	for name, nodes := range s.Zonedata {
		owner, err := presentation(name)
		if err != nil {
			t.Logf("left out %q: %v", name, err)
			continue
		}
		hasTXT := slices.ContainsFunc(nodes, func(n yaml.Node) bool { return n.Kind == yaml.MappingNode && n.Content[0].Value == "TXT" })
		var present []string
		silent := false
		add := func(kind, data string) {
			fmt.Fprintf(&text, "%s %s %s\n", owner, kind, data)
			present = append(present, kind)
		}
		for _, n := range nodes {
			if n.Kind == yaml.ScalarNode { // TIMEOUT
				silent = true
				continue
			}
			kind, value := n.Content[0].Value, n.Content[1]
			switch {
			case value.Value == "NONE":
			case kind == "SPF" || kind == "TXT":
				add(kind, quoted(t, value))
				if kind == "SPF" && !hasTXT {
					add("TXT", quoted(t, value))
				}
			case kind == "MX":
				host := value.Content[1].Value
				add("MX", value.Content[0].Value+" "+strings.TrimSuffix(host, ".")+".")
			case kind == "A" || kind == "AAAA":
				add(kind, value.Value)
			default:
				add(kind, strings.TrimSuffix(value.Value, ".")+".")
			}
		}
		if !silent {
			continue
		}
		for _, kind := range []string{"A", "AAAA", "MX", "TXT", "PTR", "SPF"} {
			if !slices.Contains(present, kind) {
				faults = append(faults, dnstest.Fault{Name: name, Type: kind, Do: dnstest.Silent})
			}
		}
	}
	return text.String(), faults
}

// quoted writes a value, or a list of them, as character strings of a zone file.
func quoted(t *testing.T, n *yaml.Node) string {
	strs := []string{n.Value}
	if n.Kind == yaml.SequenceNode {
		strs = nil
		for _, c := range n.Content {
			strs = append(strs, c.Value)
		}
	}
	var out []string
	for _, s := range strs {
		if n.Kind == yaml.ScalarNode {
			// The suite's escapes \xEF are bytes, which YAML reads as code points.
			s = string(latin1(s))
		}
		for first := true; first || s != ""; first = false {
			piece := s[:min(len(s), 255)]
			s = s[len(piece):]
			var b strings.Builder
			for _, c := range []byte(piece) {
				fmt.Fprintf(&b, `\%03d`, c)
			}
			out = append(out, `"`+b.String()+`"`)
		}
	}
	return strings.Join(out, " ")
}

func latin1(s string) []byte {
	var b []byte
	for _, r := range s {
		if r > 0xff {
			return []byte(s)
		}
		b = append(b, byte(r))
	}
	return b
}

// runSPFSuite runs every test of a suite and returns how many passed, and how
// many had an explanation.
func runSPFSuite(t *testing.T, name string) (passed, failed, explained int) {
	decoder := yaml.NewDecoder(strings.NewReader(string(shared(t, name))))
	for {
		var s scenario
		if err := decoder.Decode(&s); err != nil {
			break
		}
		text, faults := s.zoneText(t)
		for name, tt := range s.Tests {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t, ResolverOptions{}, zone(t, text, faults...))
				time.Sleep(time.Second) // the resolver is in good health
				got := r.CheckSPF(t.Context(), SPFQuery{IP: netip.MustParseAddr(tt.Host), Helo: tt.Helo, Sender: tt.Mailfrom, Receiver: tt.Receiver})
				want := tt.Explanation
				if want == "DEFAULT" {
					want = ""
				}
				ok := slices.Contains(tt.Result, string(got.Result))
				if tt.Explanation != "" {
					ok = ok && got.Explanation == want
				}
				if want != "" {
					explained++
				}
				if ok {
					passed++
					return
				}
				failed++
				t.Logf("%s / %s: %+v, want %v %q", s.Description, name, got, tt.Result, tt.Explanation)
			})
		}
	}
	return passed, failed, explained
}

func TestConformanceRFC7208(t *testing.T) {
	t.Parallel()
	passed, failed, explained := runSPFSuite(t, "rfc7208-tests.yml")
	t.Logf("%d of %d, with explanation %d", passed, passed+failed, explained)
	if failed > 0 || passed != 203 || explained != 14 {
		t.Errorf("%d of %d pass, %d explanations", passed, passed+failed, explained)
	}
}

// The two that may fail are marked as not worth it by the suite itself.
func TestConformanceSPFExtra(t *testing.T) {
	t.Parallel()
	passed, failed, _ := runSPFSuite(t, "pyspf-extra-tests.yml")
	t.Logf("%d of %d", passed, passed+failed)
	if passed < 14 {
		t.Errorf("%d of %d pass", passed, passed+failed)
	}
}
