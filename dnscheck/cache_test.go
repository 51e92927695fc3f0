package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// C02, C13: how long what is remembered, and what is asked again.
func TestMemory(t *testing.T) {
	tests := []struct {
		name  string
		zone  string
		fault dnstest.Fault
		kept  time.Duration // asked again after this, and not before
	}{
		{"as long as the zone says", "a.example. 60 TXT x", dnstest.Fault{}, time.Minute},
		{"C13 TTL 0", "a.example. 0 TXT x", dnstest.Fault{}, 5 * time.Second},
		{"C13 TTL of 24 days", "a.example. 2147483 TXT x", dnstest.Fault{}, 24 * time.Hour},
		{"C13 TTL 2^31", "a.example. 2147483648 TXT x", dnstest.Fault{}, 5 * time.Second},
		{"the alias's TTL", "a.example. 30 CNAME b.example.\nb.example. 60 TXT x", dnstest.Fault{}, 30 * time.Second},
		{"absence by SOA minimum", "example. 900 SOA ns. hm. 1 2 3 4 120", dnstest.Fault{}, 2 * time.Minute},
		{"absence by SOA TTL", "example. 90 SOA ns. hm. 1 2 3 4 120", dnstest.Fault{}, 90 * time.Second},
		{"absence of a day", "example. 86400 SOA ns. hm. 1 2 3 4 86400", dnstest.Fault{}, 3 * time.Hour},
		{"C02 SERVFAIL", "", dnstest.Fault{Name: "*", Do: dnstest.Servfail}, 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := zone(t, tt.zone, tt.fault)
				r := inMemory(t, ResolverOptions{}, s)
				ask := func() int {
					r.TXT(t.Context(), "a.example")
					return s.Asked("a.example", "TXT")
				}
				if n := ask(); n != 1 {
					t.Fatalf("asked %d times at first", n)
				}
				time.Sleep(tt.kept - time.Nanosecond)
				if n := ask(); n != 1 {
					t.Errorf("asked again before %v", tt.kept)
				}
				time.Sleep(time.Nanosecond)
				if n := ask(); n != 2 {
					t.Errorf("not asked again after %v", tt.kept)
				}
			})
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := zone(t, `*.example. 3600 TXT "x"`)
		r := inMemory(t, ResolverOptions{Memory: 20 * (entryOverhead + 60)}, s)
		for i := range 200 {
			if _, err := r.TXT(t.Context(), fmt.Sprintf("n%d.example", i)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(r.cache.entries); n < 15 || n > 25 || r.cache.order.Len() != n {
			t.Errorf("%d entries kept", n)
		}
		if r.TXT(t.Context(), "n199.example"); s.Asked("n199.example", "TXT") != 1 {
			t.Error("the newest was forgotten")
		}
		if r.TXT(t.Context(), "n0.example"); s.Asked("n0.example", "TXT") != 2 {
			t.Error("the oldest was kept")
		}
	})
}

func TestSameQuestionIsAskedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := zone(t, oneTXT, dnstest.Fault{Name: "*", Do: dnstest.Slow, Delay: time.Second})
		r := inMemory(t, ResolverOptions{}, s)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got, err := r.TXT(t.Context(), "a.example"); err != nil || len(got.List) != 1 {
					t.Errorf("%v, %v", got, err)
				}
			})
		}
		// One that gives up takes nothing from the others.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.TXT(ctx, "a.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient one: %v", err)
		}
		wg.Wait()
		if n := s.Queries(); n != 1 {
			t.Errorf("%d queries", n)
		}
	})
}
