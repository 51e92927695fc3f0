package queue

import (
	"slices"
	"testing"
)

// The order of a copy is what makes it consistent, and the leases are nobody's.
func TestStreamsToCopy(t *testing.T) {
	t.Parallel()
	got := StreamsToCopy([]string{"DELIVERD_EVENTS", "KV_DELIVERD_Q1", "ORDERS", "KV_DELIVERD_LEASES", "KV_DELIVERD_KEYS",
		"DELIVERD_LOG", "KV_DELIVERD_SHARED", "KV_DELIVERD_Q0", "KV_other"})
	want := []string{"KV_DELIVERD_SHARED", "KV_DELIVERD_Q0", "KV_DELIVERD_Q1", "DELIVERD_LOG", "KV_DELIVERD_KEYS", "DELIVERD_EVENTS"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestRestoresNoMarkThatNoLongerHolds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		key          string
		sure, unsure bool
	}{
		{cleanKey(&shard{n: 3}), false, false},
		{markKey(&shard{n: 3}), true, false},
		{auditKey, true, false},
		{"tokens.abc", true, true},
	} {
		m := &Stored{Seq: 1, Subject: kvSubject(bucketShared, tc.key)}
		l := NewLedger()
		if got := l.Restores(kvStream(bucketShared), m); got != tc.sure {
			t.Errorf("%s: %v", tc.key, got)
		}
		l.Unsure = true
		if got := l.Restores(kvStream(bucketShared), m); got != tc.unsure {
			t.Errorf("%s, of a damaged file: %v", tc.key, got)
		}
	}
}
