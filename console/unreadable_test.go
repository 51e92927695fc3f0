package console

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

// What can't be read in the log, such as something foreign published on its subject,
// is one place without a fact: what came before and after it is told all the same, and
// who waits for that place does not wait for ever.
func TestAnUnreadableEventIsOnePlace(t *testing.T) {
	t.Parallel()
	events := greylistedThenHandedOver(invite(1))
	log := &testLog{}
	last := log.add(events[0], mail.Event{ID: "unreadable"}, events[1], mail.Event{ID: "unreadable"})
	v := openView(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- v.Follow(ctx, Log{Bounds: log.Bounds, Events: func(ctx context.Context, after uint64) iter.Seq2[mail.LoggedEvent, error] {
			return func(yield func(mail.LoggedEvent, error) bool) {
				for e, err := range log.Events(ctx, after) {
					if e.ID == "unreadable" {
						e, err = mail.LoggedEvent{Seq: e.Seq}, errors.New("not readable")
					}
					if !yield(e, err) {
						return
					}
				}
			}
		}})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := v.CatchUp(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	f, err := v.Facts(t.Context(), events[0].Message)
	if err != nil || len(f.Events) != 2 {
		t.Errorf("%d events of 2 are told: %v", len(f.Events), err)
	}
	all, _, err := v.EventsAfter(t.Context(), 0, EventFilter{}, 0)
	if err != nil || len(all) != 2 {
		t.Errorf("the feed has %d events of 2: %v", len(all), err)
	}
}
