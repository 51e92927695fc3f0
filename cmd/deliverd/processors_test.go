package main

import "testing"

func TestWhatWaitsForTheDiskTakesNoCore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cores, processors, signers int }{
		{1, 7, 1},
		{2, 8, 1}, // one core is left to what waits for an answer
		{4, 10, 2},
		{64, 70, 32},
	} {
		if got := processors(c.cores); got != c.processors {
			t.Errorf("%d cores: GOMAXPROCS %d, want %d", c.cores, got, c.processors)
		}
		if got := signers(c.cores); got != c.signers {
			t.Errorf("%d cores: %d signers, want %d", c.cores, got, c.signers)
		}
	}
}
