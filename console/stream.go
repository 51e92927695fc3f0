package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/deliverd/deliverd/mail"
)

const (
	defaultHeartbeat = 15 * time.Second
	// streamWrite is how long a reader may take to take one piece before it is given
	// up: it comes back with Last-Event-ID and misses nothing.
	streamWrite = 30 * time.Second
	streamPiece = 200
)

// streamEvents sends events as they happen (server-sent events). A stream begins
// after the place that Last-Event-ID or ?after= names, else with what happens from
// now on. It ends with its request's context.
func (a *API) streamEvents(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q := r.URL.Query()
	filter := EventFilter{Tenants: by.visible(q.Get("tenant")), State: mail.State(q.Get("state"))}
	after, err := a.streamStart(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would gather the events
	s := stream{w: w, c: http.NewResponseController(w)}
	s.write(": the events after place " + strconv.FormatUint(after, 10) + "\n\n")
	a.follow(r.Context(), &s, after, filter, s.writeEvents)
	return nil
}

// follow hands write what f chooses of what comes after a place, and keeps the stream
// alive in between, until the context ends or the stream breaks.
func (a *API) follow(ctx context.Context, s *stream, after uint64, f EventFilter, write func([]mail.LoggedEvent)) {
	heartbeat := a.Heartbeat
	if heartbeat <= 0 {
		heartbeat = defaultHeartbeat
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for s.err == nil {
		moved := a.View.hub.moved()
		events, next, err := a.View.EventsAfter(ctx, after, f, streamPiece)
		if err != nil {
			return // a rebuilt view closes its readers; the client comes back
		}
		write(events)
		if next != after { // there may be more already
			after = next
			continue
		}
		select {
		case <-moved:
		case <-beat.C:
			s.write(": alive\n\n")
		case <-ctx.Done():
			return
		}
	}
}

// streamStart: an EventSource that comes back sends the header, and the address that
// it was made with: so the header wins.
func (a *API) streamStart(r *http.Request) (uint64, error) {
	s, field := r.Header.Get("Last-Event-ID"), "Last-Event-ID"
	if s == "" {
		s, field = r.URL.Query().Get("after"), "after"
	}
	if s == "" {
		return a.View.Place(), nil
	}
	after, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, invalid(field, "The place of an event: a number, as in the id of one that came before.")
	}
	return after, nil
}

// stream writes until the first error.
type stream struct {
	w   http.ResponseWriter
	c   *http.ResponseController
	err error
}

func (s *stream) writeEvents(events []mail.LoggedEvent) {
	for _, e := range events {
		b, err := json.Marshal(e.Event) // one line: JSON escapes line breaks
		if err != nil {
			s.err = err
			return
		}
		s.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.Seq, oneWord(string(e.State)), b))
	}
}

func (s *stream) write(text string) {
	if s.err != nil {
		return
	}
	s.c.SetWriteDeadline(time.Now().Add(streamWrite)) // not every test's writer has one
	if _, s.err = s.w.Write([]byte(text)); s.err == nil {
		s.err = s.c.Flush()
	}
}

// oneWord keeps what an event's verb is made of, so that no verb can begin a field of
// the stream.
func oneWord(s string) string {
	for i, c := range []byte(s) {
		if (c < 'a' || c > 'z') && c != '_' {
			return s[:i]
		}
	}
	return s
}
