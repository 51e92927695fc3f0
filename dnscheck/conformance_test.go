package dnscheck

import (
	"encoding/json"
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
// this repository because it is others' work: DELIVERD_SHARED names the directory
// that has data/dns. Without it these tests are skipped, but not in CI.
func shared(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("DELIVERD_SHARED")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("DELIVERD_SHARED is not set")
		}
		t.Skip("DELIVERD_SHARED is not set")
	}
	data, err := os.ReadFile(filepath.Join(dir, "data", "dns", name))
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

// dmarcVectors is the shape of the shared DMARC examples.
type dmarcVectors struct {
	Parse []struct {
		Record   string
		IsDMARC  bool `json:"is_dmarc"`
		Policy   *string
		Tags     map[string]string
		Findings []string
		Note     string
		Valid    bool `json:"rfc7489_valid"`
	}
	Walk []struct {
		Desc, Author string
		TXT          map[string]any
		Expect       struct {
			PolicyDomain string `json:"policy_domain"`
			Org          string
			Policy       *string
			Queries      []string
		}
	}
}

func TestConformanceDMARC(t *testing.T) {
	t.Parallel()
	var vectors dmarcVectors
	if err := json.Unmarshal(shared(t, "dmarc-vectors.json"), &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors.Parse {
		text := strings.TrimLeft(v.Record, " \t")
		if isDMARC(text) != v.IsDMARC {
			t.Errorf("%q: is DMARC %v", v.Record, !v.IsDMARC)
			continue
		}
		if valid7489(v.Record) != v.Valid {
			t.Errorf("%q: valid by RFC 7489 %v (%s)", v.Record, !v.Valid, v.Note)
		}
		if !v.IsDMARC {
			continue
		}
		d := parseDMARC(text)
		want := ""
		if v.Policy != nil {
			want = *v.Policy
		}
		var codes []string
		for _, f := range d.faults {
			codes = append(codes, f.code)
		}
		if d.policy(false, true) != want || !slices.Equal(slices.Compact(codes), slices.Compact(v.Findings)) && len(codes)+len(v.Findings) > 0 {
			t.Errorf("%q: policy %q, findings %v; want %q, %v (%s)", v.Record, d.policy(false, true), codes, want, v.Findings, v.Note)
		}
		tags := map[string]string{"adkim": d.adkim, "aspf": d.aspf, "psd": d.psd, "sp": d.sp, "np": d.np, "t": "n"}
		if d.test {
			tags["t"] = "y"
		}
		for tag, value := range v.Tags {
			if tags[tag] != value {
				t.Errorf("%q: %s=%s, want %s", v.Record, tag, tags[tag], value)
			}
		}
	}
	for _, v := range vectors.Walk {
		synctest.Test(t, func(t *testing.T) {
			var text strings.Builder
			var faults []dnstest.Fault
			exists := false
			for name, value := range v.TXT {
				switch value := value.(type) {
				case string:
					if value == "SERVFAIL" {
						faults = append(faults, dnstest.Fault{Name: name, Do: dnstest.Servfail})
						continue
					}
					fmt.Fprintf(&text, "%s. TXT %q\n", name, value)
				case []any:
					for _, one := range value {
						if name == "exists" {
							exists = exists || underOrEqual(one.(string), v.Author)
						} else {
							fmt.Fprintf(&text, "%s. TXT %q\n", name, one)
						}
					}
				}
			}
			s := zone(t, text.String(), faults...)
			r := inMemory(t, ResolverOptions{}, s)
			got := discoverDMARC(t.Context(), r, v.Author, exists, true)
			want, policy := "", got.policy
			if v.Expect.Policy != nil {
				want = *v.Expect.Policy
			}
			if got.err != nil {
				policy = "temperror"
			}
			if policy != want || v.Expect.PolicyDomain != "" && got.location != v.Expect.PolicyDomain || v.Expect.Org != "" && got.org != v.Expect.Org {
				t.Errorf("%s: policy %q of %q, organization %q; want %+v", v.Desc, policy, got.location, got.org, v.Expect)
			}
			for _, name := range v.Expect.Queries {
				if s.Asked(name, "TXT") != 1 {
					t.Errorf("%s: %s asked %d times", v.Desc, name, s.Asked(name, "TXT"))
				}
			}
			if len(v.Expect.Queries) > 0 && s.Queries() != len(v.Expect.Queries) {
				t.Errorf("%s: %d queries", v.Desc, s.Queries())
			}
		})
	}
	t.Logf("%d records, %d walks", len(vectors.Parse), len(vectors.Walk))
}
