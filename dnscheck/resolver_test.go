package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// inMemory returns a resolver whose servers are reached through memory, in the
// order given; for use inside a synctest bubble.
func inMemory(t *testing.T, o ResolverOptions, servers ...*dnstest.Server) *Resolver {
	t.Helper()
	byAddr := map[string]*dnstest.Server{}
	for i, s := range servers {
		addr := fmt.Sprintf("127.0.0.%d:53", i+1)
		byAddr[addr] = s
		o.Servers = append(o.Servers, addr)
		t.Cleanup(func() { s.Close() })
	}
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return byAddr[addr].Dial(ctx, network, addr)
	}
	r, err := NewResolver(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func zone(t *testing.T, text string, faults ...dnstest.Fault) *dnstest.Server {
	t.Helper()
	s, err := dnstest.New(text, faults...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kindOf(err error) Kind {
	if lookup, ok := errors.AsType[*Error](err); ok {
		return lookup.Kind
	}
	return ""
}

// bubble runs a test with virtual time, so that seconds of silence cost nothing.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, f)
}

const oneTXT = `a.example. 60 TXT "hello" " world"`

func TestAnswersOverSockets(t *testing.T) {
	t.Parallel()
	s, err := dnstest.Start(oneTXT)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := NewResolver(ResolverOptions{Servers: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.TXT(t.Context(), "A.Example.")
	if err != nil || got.List[0].String() != "hello world" || len(got.List[0]) != 2 {
		t.Fatalf("TXT = %+v, %v", got, err)
	}
	if got.TTL != time.Minute || got.Server != s.Addr || got.Name != "a.example" {
		t.Errorf("answer = %+v", got.Answer)
	}
}

func TestTruncatedAnswerComesOverTCP(t *testing.T) {
	t.Parallel()
	var big strings.Builder
	for i := range 200 {
		fmt.Fprintf(&big, "big.example. TXT \"%0200d\"\n", i)
	}
	s, err := dnstest.Start(big.String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := NewResolver(ResolverOptions{Servers: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.TXT(t.Context(), "big.example")
	if err != nil || !got.TCP || len(got.List) != 200 {
		t.Fatalf("%d records, tcp %v, %v", len(got.List), got.TCP, err)
	}
}

// One name goes wrong in one way; what the resolver makes of it.
func TestFaultsOfServers(t *testing.T) {
	type want struct {
		kind Kind
		took time.Duration
		text string // part of the error
	}
	ok := want{}
	tests := []struct {
		name  string
		fault dnstest.Fault
		want  want
	}{
		{"C02 SERVFAIL", dnstest.Fault{Do: dnstest.Servfail, Text: "no luck"}, want{Temporary, 0, "SERVFAIL from 127.0.0.1:53 (0 Other: no luck)"}},
		{"C02 REFUSED", dnstest.Fault{Do: dnstest.Refused}, want{Temporary, 0, "REFUSED"}},
		{"C02 timeout", dnstest.Fault{Do: dnstest.Silent}, want{Temporary, 10 * time.Second, "deadline"}},
		{"C01 NXDOMAIN", dnstest.Fault{Do: dnstest.NXDomain}, want{NoDomain, 0, "NXDOMAIN"}},
		{"C09 truncated", dnstest.Fault{Do: dnstest.Truncated}, ok},
		{"C09 truncated without TCP", dnstest.Fault{Do: dnstest.NoTCP}, want{Temporary, 0, "too long for UDP"}},
		{"C14 other id", dnstest.Fault{Do: dnstest.WrongID}, want{Temporary, 10 * time.Second, ""}},
		{"C14 other name", dnstest.Fault{Do: dnstest.WrongName}, want{Temporary, 10 * time.Second, ""}},
		{"C14 other case", dnstest.Fault{Do: dnstest.WrongCase}, want{Temporary, 10 * time.Second, ""}},
		{"C14 forged before the good one", dnstest.Fault{Do: dnstest.Forged}, ok},
		{"garbage", dnstest.Fault{Do: dnstest.Garbage}, want{Temporary, 10 * time.Second, ""}},
		{"no EDNS", dnstest.Fault{Do: dnstest.NoEDNS}, ok},
		{"EDNS lost on the way", dnstest.Fault{Do: dnstest.Lossy}, want{took: 2 * time.Second}},
		{"one datagram lost", dnstest.Fault{Do: dnstest.Silent, Times: 1}, want{took: 2 * time.Second}},
		{"slower than a try", dnstest.Fault{Do: dnstest.Slow, Delay: 3 * time.Second}, want{took: 3 * time.Second}},
		{"bogus", dnstest.Fault{Do: dnstest.Bogus}, want{Temporary, 0, "6 DNSSEC Bogus: signature expired"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tt.fault.Name = "a.example"
				r := inMemory(t, ResolverOptions{}, zone(t, oneTXT, tt.fault))
				began := time.Now()
				got, err := r.TXT(t.Context(), "a.example")
				if took := time.Since(began); took != tt.want.took {
					t.Errorf("took %v, want %v", took, tt.want.took)
				}
				if kindOf(err) != tt.want.kind {
					t.Fatalf("err = %v, want kind %q", err, tt.want.kind)
				}
				if err == nil && got.List[0].String() != "hello world" {
					t.Errorf("got %q", got.List)
				}
				if err != nil && !strings.Contains(err.Error(), tt.want.text) {
					t.Errorf("err = %v, want it to say %q", err, tt.want.text)
				}
			})
		})
	}
}

func TestNoEDNSIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := inMemory(t, ResolverOptions{}, zone(t, oneTXT, dnstest.Fault{Name: "*", Do: dnstest.NoEDNS}))
		if got, err := r.TXT(t.Context(), "a.example"); err != nil || !got.NoEDNS {
			t.Errorf("NoEDNS %v, %v", got.NoEDNS, err)
		}
	})
}

// A server that doesn't know EDNS costs time or a question twice, not always.
func TestNoEDNSIsRemembered(t *testing.T) {
	for verb, cost := range map[dnstest.Verb]time.Duration{dnstest.NoEDNS: 0, dnstest.Lossy: 2 * time.Second} {
		t.Run(string(verb), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := zone(t, "*.example. TXT x", dnstest.Fault{Name: "*", Do: verb})
				r := inMemory(t, ResolverOptions{}, s)
				ask := func(name string) (int, time.Duration) {
					before, began := s.Queries(), time.Now()
					if got, err := r.TXT(t.Context(), name); err != nil || !got.NoEDNS {
						t.Errorf("%s: NoEDNS %v, %v", name, got.NoEDNS, err)
					}
					return s.Queries() - before, time.Since(began)
				}
				for _, name := range []string{"a.example", "b.example"} {
					if n, took := ask(name); n != 2 || took != cost {
						t.Errorf("%s: %d queries in %v", name, n, took)
					}
				}
				if n, took := ask("c.example"); n != 1 || took != 0 {
					t.Errorf("remembered: %d queries in %v", n, took)
				}
				time.Sleep(plainFor)
				if n, _ := ask("d.example"); n != 2 {
					t.Errorf("not tried again: %d queries", n)
				}
			})
		})
	}
}

func TestSecondServer(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   dnstest.Verb
		took time.Duration
	}{
		{"first fails", dnstest.Servfail, 0},
		{"first refuses", dnstest.Refused, 0},
		{"first is silent", dnstest.Silent, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := inMemory(t, ResolverOptions{},
					zone(t, oneTXT, dnstest.Fault{Name: "*", Do: tt.do}), zone(t, oneTXT+"\nb.example. TXT x"))
				began := time.Now()
				got, err := r.TXT(t.Context(), "a.example")
				if err != nil || got.Server != "127.0.0.2:53" || time.Since(began) != tt.took {
					t.Errorf("%v from %s after %v", err, got.Server, time.Since(began))
				}
				// A server that stayed silent is asked last for a while.
				began = time.Now()
				if _, err := r.TXT(t.Context(), "b.example"); err != nil || time.Since(began) != 0 {
					t.Errorf("second question: %v after %v", err, time.Since(began))
				}
			})
		})
	}
}

// C18: our resolver's death is not the domain's fault.
func TestC18ResolverDown(t *testing.T) {
	t.Run("silent to everyone", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := inMemory(t, ResolverOptions{}, zone(t, oneTXT, dnstest.Fault{Name: "*", Do: dnstest.Silent}))
			if _, err := r.TXT(t.Context(), "a.example"); kindOf(err) != Local {
				t.Errorf("err = %v, want local", err)
			}
		})
	})
	t.Run("nothing listens", func(t *testing.T) {
		t.Parallel()
		s, err := dnstest.Start(oneTXT)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		r, err := NewResolver(ResolverOptions{Servers: []string{s.Addr}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.TXT(t.Context(), "a.example"); kindOf(err) != Local {
			t.Errorf("err = %v, want local", err)
		}
	})
	t.Run("flapping", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := zone(t, oneTXT, dnstest.Fault{Name: "*", Do: dnstest.Silent})
			r := inMemory(t, ResolverOptions{}, s)
			if _, err := r.TXT(t.Context(), "a.example"); kindOf(err) != Local {
				t.Errorf("err = %v, want local", err)
			}
			if err := s.Load(oneTXT); err != nil {
				t.Fatal(err)
			}
			if _, err := r.TXT(t.Context(), "a.example"); err != nil {
				t.Errorf("after it came back: %v", err)
			}
		})
	})
}

func TestContextEndsALookup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := zone(t, oneTXT, dnstest.Fault{Name: "a.example", Do: dnstest.Silent})
		r := inMemory(t, ResolverOptions{}, s)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := r.TXT(ctx, "a.example")
		if kindOf(err) != Local || !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		// The deadline passes while the server answers others: the domain's fault.
		r.TXT(t.Context(), "b.example")
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.TXT(ctx, "a.example"); kindOf(err) != Temporary {
			t.Errorf("at the deadline: %v", err)
		}
	})
}

// C07 for lookups of any kind.
func TestC07Aliases(t *testing.T) {
	var chain strings.Builder
	for i := range 20 {
		fmt.Fprintf(&chain, "n%d.example. CNAME n%d.example.\n", i, i+1)
	}
	chain.WriteString("n20.example. TXT end\n")
	chain.WriteString("l1.example. CNAME l2.example.\nl2.example. CNAME l1.example.\n")
	chain.WriteString("self.example. CNAME self.example.\ndead.example. CNAME nowhere.example.\nempty.example. CNAME x.y.example.\na.x.y.example. A 192.0.2.1\n")
	for _, loose := range []bool{false, true} {
		for _, tt := range []struct {
			name    string
			kind    Kind
			aliases int
		}{
			{"n20", "", 0}, {"n19", "", 1}, {"n4", "", 16}, {"n3", Temporary, 16},
			{"l1", Temporary, 1}, {"self", Temporary, 0}, {"dead", NoDomain, 1}, {"empty", NoData, 1},
		} {
			t.Run(fmt.Sprintf("%s loose=%v", tt.name, loose), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var faults []dnstest.Fault
					if loose {
						faults = append(faults, dnstest.Fault{Name: "*", Do: dnstest.Loose})
					}
					r := inMemory(t, ResolverOptions{}, zone(t, chain.String(), faults...))
					got, err := r.TXT(t.Context(), tt.name+".example")
					if kindOf(err) != tt.kind || len(got.Aliases) != tt.aliases {
						t.Errorf("%v, aliases %v", err, got.Aliases)
					}
					if err != nil && err.(*Error).Domain != tt.name+".example" {
						t.Errorf("the error is about %s", err.(*Error).Domain)
					}
					if err == nil && tt.aliases > 0 && got.Owner != "n20.example" {
						t.Errorf("owner %s", got.Owner)
					}
				})
			})
		}
	}
}

// B18: whose AD bit counts.
func TestB18ADOnlyFromTrustedServers(t *testing.T) {
	for _, tt := range []struct {
		server     string
		validating bool
		secure     bool
		want       bool
	}{
		{"127.0.0.1:53", false, true, true},
		{"[::1]:53", false, true, true},
		{"127.0.0.1:53", false, false, false},
		{"192.0.2.53", false, true, false},
		{"192.0.2.53", true, true, true},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var faults []dnstest.Fault
				if tt.secure {
					faults = append(faults, dnstest.Fault{Name: "*", Do: dnstest.Secure})
				}
				s := zone(t, oneTXT, faults...)
				defer s.Close()
				r, err := NewResolver(ResolverOptions{Servers: []string{tt.server}, Validating: tt.validating, Dial: s.Dial})
				if err != nil {
					t.Fatal(err)
				}
				got, err := r.TXT(t.Context(), "a.example")
				if err != nil || got.AD != tt.want {
					t.Errorf("AD %v, %v", got.AD, err)
				}
			})
		})
	}
}

func TestB18Validates(t *testing.T) {
	for _, secure := range []bool{true, false} {
		bubbled := func(t *testing.T) {
			var faults []dnstest.Fault
			if secure {
				faults = append(faults, dnstest.Fault{Name: ".", Do: dnstest.Secure})
			}
			r := inMemory(t, ResolverOptions{}, zone(t, ". NS a.root.example.", faults...))
			if got, err := r.Validates(t.Context()); got != secure || err != nil {
				t.Errorf("validates %v, %v", got, err)
			}
		}
		t.Run(fmt.Sprint(secure), func(t *testing.T) { bubble(t, bubbled) })
	}
}

func TestNamesThatCannotBeAsked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := zone(t, oneTXT)
		r := inMemory(t, ResolverOptions{}, s)
		for _, name := range []string{"a..b", ".a", strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 127) + "aa"} {
			if _, err := r.TXT(t.Context(), name); kindOf(err) != BadName {
				t.Errorf("%q: %v", name, err)
			}
		}
		if s.Queries() != 0 {
			t.Errorf("%d queries", s.Queries())
		}
	})
}

// Names may hold any byte, and come back as they went out.
func TestOddNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := inMemory(t, ResolverOptions{}, zone(t, `*.example. TXT x`))
		for _, name := range []string{"a b.example", `a\b.example`, "ä.example", "a\"'@;()$.example", "a\x00b.example", "_dmarc.example"} {
			if _, err := r.TXT(t.Context(), name); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

func TestTextComesAsBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := inMemory(t, ResolverOptions{}, zone(t, `a.example. TXT "q\"b\\ \195\164 \000;" "\200"`))
		got, err := r.TXT(t.Context(), "a.example")
		if err != nil || !slices.Equal(got.List[0], TXT{"q\"b\\ ä \x00;", "\xc8"}) {
			t.Errorf("%q, %v", got.List, err)
		}
	})
}

func TestManyRecordsAreCut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var text strings.Builder
		for i := range 1500 {
			fmt.Fprintf(&text, "a.example. A 192.0.%d.%d\n", i/256, i%256)
		}
		r := inMemory(t, ResolverOptions{}, zone(t, text.String()))
		got, err := r.A(t.Context(), "a.example")
		if err != nil || len(got.List) != maxRecords || !got.Cut {
			t.Errorf("%d records, cut %v, %v", len(got.List), got.Cut, err)
		}
	})
}

func TestSystemServers(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	path := filepath.Join(t.TempDir(), "resolv.conf")
	l := &serverList{path: path, now: func() time.Time { return now }}
	write := func(text string, age time.Duration) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		var got []string
		for _, s := range l.current() {
			got = append(got, s.addr)
		}
		if !slices.Equal(got, want) {
			t.Errorf("servers %v, want %v", got, want)
		}
	}
	expect("127.0.0.1:53") // no file
	write("nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 127.0.0.53\nnameserver 192.0.2.4\n", time.Hour)
	expect("127.0.0.1:53") // not looked at again so soon
	now = now.Add(reread)
	expect("192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.53:53")
	if l.list[0].trusted || !l.list[2].trusted {
		t.Error("only the loopback server is to be trusted")
	}
	write("# being rewritten\n", time.Minute)
	now = now.Add(reread)
	expect("192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.53:53")
	write("nameserver 192.0.2.9\n", time.Second)
	now = now.Add(reread)
	expect("192.0.2.9:53")
}

func TestServersAreChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"127.0.0.1:5353": "127.0.0.1:5353", "192.0.2.1": "192.0.2.1:53", "2001:db8::1": "[2001:db8::1]:53",
		"[2001:db8::1]": "[2001:db8::1]:53", "[::1]:54": "[::1]:54", "resolver.example:53": "resolver.example:53",
		"": "", ":53": "", "127.0.0.1:": "", "a b:53": "", "https://dns.example/": "",
	} {
		s, err := newServer(text, false)
		if (err == nil) != (want != "") || err == nil && s.addr != want {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
}
