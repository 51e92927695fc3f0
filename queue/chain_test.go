package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// links returns the whole chain.
func links(t *testing.T, q *Queue, after uint64) (all []string) {
	t.Helper()
	for r, err := range q.Links(t.Context(), after) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(r.Data))
	}
	return all
}

// Nodes that append at the same moment make one chain: each record was made in view of
// the one that stands before it, and none is lost or there twice, also when the answer
// to a write was.
func TestNodesMakeOneChain(t *testing.T) {
	t.Parallel()
	var writes atomic.Int32
	lossy := func(o *Options) {
		o.Alone = false
		o.fault = func(call string) error {
			if call == chainSubject && writes.Add(1)%5 == 0 {
				return errUnsure
			}
			return nil
		}
	}
	b := newBench(t, lossy)
	one := b.q
	b.open()
	two := b.q

	const each = 25
	var wg sync.WaitGroup
	for node, q := range map[string]*Queue{"one": one, "two": two} {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%s-%d", node, i)
				next := func(last []byte) ([]byte, error) {
					before, _, _ := strings.Cut(string(last), " ")
					return []byte(id + " after " + before), nil
				}
				err := q.Link(t.Context(), id, next)
				for errors.Is(err, errUnsure) {
					err = q.Link(t.Context(), id, next)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()

	all := links(t, one, 0)
	seen := map[string]bool{}
	before := ""
	for _, r := range all {
		id, after, _ := strings.Cut(r, " after ")
		if after != before || seen[id] {
			t.Errorf("%q stands after %q", r, before)
		}
		before, seen[id] = id, true
	}
	if len(all) != 2*each {
		t.Errorf("%d records, want %d", len(all), 2*each)
	}
	if rest := links(t, two, 2*each-3); len(rest) != 3 || rest[2] != all[len(all)-1] {
		t.Errorf("the last three: %q", rest)
	}
	if rest := links(t, two, 2*each); rest != nil {
		t.Errorf("after the last: %q", rest)
	}
}

// What next refuses is not written, and an empty chain is no error.
func TestNothingLinked(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	want := errors.New("no")
	if err := b.q.Link(t.Context(), "x", func([]byte) ([]byte, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
	if all := links(t, b.q, 0); all != nil {
		t.Errorf("%q", all)
	}
	if first, last, err := b.q.LinkBounds(t.Context()); first != 0 || last != 0 || err != nil {
		t.Errorf("%d, %d, %v", first, last, err)
	}
	// The store refuses to forget a record.
	if err := b.q.Link(t.Context(), "y", func([]byte) ([]byte, error) { return []byte("kept"), nil }); err != nil {
		t.Fatal(err)
	}
	stream, err := b.q.store.js.Stream(context.Background(), chainStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Purge(t.Context()), stream.DeleteMsg(t.Context(), 1)); err == nil || len(links(t, b.q, 0)) != 1 {
		t.Errorf("the record could be taken out: %v", err)
	}
}

// A value with a life lapses by itself, and only one caller creates a key.
func TestSharedValuesLapse(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	s, err := b.q.Shared(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutFor(t.Context(), "put", []byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	var created atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			switch err := s.CreateFor(t.Context(), "created", []byte("x"), 1); {
			case err == nil:
				created.Add(1)
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := created.Load(); n != 1 {
		t.Errorf("%d callers created the key", n)
	}
	for _, key := range []string{"put", "created"} {
		for {
			if _, err := s.Get(t.Context(), key); errors.Is(err, ErrNotFound) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}
