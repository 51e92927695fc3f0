package dnscheck

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// BenchmarkThousandDomains checks 1,000 ordinary domains, 32 at once, through a
// resolver that is 10 ms away, over real sockets.
func BenchmarkThousandDomains(b *testing.B) {
	var zones strings.Builder
	for i := range 1000 {
		for _, line := range good {
			zones.WriteString(strings.ReplaceAll(line, "good.example", fmt.Sprintf("d%d.example", i)) + "\n")
		}
	}
	s, err := dnstest.Start(zones.String(), dnstest.Fault{Name: "*", Do: dnstest.Slow, Delay: 10 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var queries int
	for b.Loop() {
		r, err := NewResolver(ResolverOptions{Servers: []string{s.Addr}})
		if err != nil {
			b.Fatal(err)
		}
		before := s.Queries()
		domains := make(chan string)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for domain := range domains {
					if report := r.Check(b.Context(), domain, Options{}); report.Verdict != Arrives {
						b.Errorf("%s: %s", domain, report.Summary)
					}
				}
			})
		}
		for i := range 1000 {
			domains <- fmt.Sprintf("d%d.example", i)
		}
		close(domains)
		wg.Wait()
		queries = s.Queries() - before
	}
	b.ReportMetric(float64(queries)/1000, "queries/domain")
}

// BenchmarkRemembered is the resolver's own cost for a route it knows.
func BenchmarkRemembered(b *testing.B) {
	s, err := dnstest.New(strings.Join(good, "\n"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	r, err := NewResolver(ResolverOptions{Servers: []string{"127.0.0.1"}, Dial: s.Dial})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.Route(b.Context(), "good.example"); err != nil {
			b.Fatal(err)
		}
	}
}
