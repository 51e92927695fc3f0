package console

import (
	"bytes"
	"testing"
	"time"
)

// A token that was changed in the store is read afresh after a while, and a request
// that is under way keeps what it had: its slices are nobody else's.
func TestCheckSharesNothing(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	store := newMemoryStore()
	tokens := NewTokens(store, func() time.Time { return now })
	secret, _, err := tokens.New(t.Context(), Token{Name: "auth", Scopes: []Scope{ScopeSend}, Tenants: []string{"a1"}})
	if err != nil {
		t.Fatal(err)
	}
	underWay, ok, err := tokens.Check(t.Context(), secret)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for key, value := range store.m {
		store.m[key] = bytes.ReplaceAll(bytes.ReplaceAll(value, []byte(`"send"`), []byte(`"read"`)), []byte(`"a1"`), []byte(`"b2"`))
	}
	now = now.Add(time.Hour)
	changed, ok, err := tokens.Check(t.Context(), secret)
	if err != nil || !ok || changed.Scopes[0] != ScopeRead || changed.Tenants[0] != "b2" {
		t.Fatalf("%+v, %v, %v", changed, ok, err)
	}
	if underWay.Scopes[0] != ScopeSend || underWay.Tenants[0] != "a1" {
		t.Errorf("the request under way has become %v for %v", underWay.Scopes, underWay.Tenants)
	}
}
