package queue

import (
	"strconv"
	"testing"
	"time"
)

// A suppression that lapsed is removed by the store without a word to those who follow
// it: what is remembered of it must go as well.
func TestLapsedSuppressionsAreForgotten(t *testing.T) {
	t.Parallel()
	var x suppressionIndex
	lapsed, holds := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	for i := range 100_000 {
		x.set(strconv.Itoa(i), lapsed)
		if i%100 == 0 {
			x.set("for ever "+strconv.Itoa(i), time.Time{})
			x.set("still "+strconv.Itoa(i), holds)
		}
	}
	if n := len(x.until); n > 10_000 {
		t.Errorf("%d are remembered of 2,000 in force", n)
	}
	for i := 0; i < 100_000; i += 100 {
		if _, ok := x.until["for ever "+strconv.Itoa(i)]; !ok {
			t.Fatal("one without an end was forgotten")
		}
		if _, ok := x.until["still "+strconv.Itoa(i)]; !ok {
			t.Fatal("one in force was forgotten")
		}
	}
}
