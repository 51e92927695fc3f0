package bounces

import (
	"testing"
	"time"
)

func TestWaitHint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want time.Duration
	}{
		{"Greylisted, please try again in 300 seconds", 300 * time.Second},
		{"try again in 5 minutes", 5 * time.Minute},
		{"Greylisting in action, please come back in 00:05:00", 5 * time.Minute},
		{"please retry in 1 hour", time.Hour},
		{"Try again in an hour.", time.Hour},
		{"Greylisted for 299s (see http://greylist.example/1)", 299 * time.Second},
		{"Recipient address rejected: Greylisted for 4 minutes", 4 * time.Minute},
		{"wait 10min before sending again", 10 * time.Minute},
		{"retry after 120 sec", 2 * time.Minute},
		{"retry in 05:30", 5*time.Minute + 30*time.Second},
		{"bitte versuchen Sie es in 10 Minuten erneut, erneut in 10 Minuten", 10 * time.Minute},
		{"Please try again later", 0},
		{"Too many connections from 192.0.2.1", 0},
		{"try again, 5 connections allowed", 0},
		{"Message is delayed in 2026", 0},
		{"retry in 0 seconds", 0},
		{"retry in 30 hours", 0},
		{"retry in 999999999999999999999 seconds", 0},
		{"retry in 99:99:99:99", 0},
		{"mail waited 300 seconds", 0},
		{"", 0},
	}
	for _, test := range tests {
		if got := waitHint(test.text); got != test.want {
			t.Errorf("waitHint(%q) = %v, want %v", test.text, got, test.want)
		}
	}
}
