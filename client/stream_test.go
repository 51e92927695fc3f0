package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// feed is a server of events: one body a connection, and what comes after the last.
type feed struct {
	bodies []string
	then   step
	asked  []string // Last-Event-ID of each connection
}

func (f *feed) RoundTrip(r *http.Request) (*http.Response, error) {
	f.asked = append(f.asked, r.Header.Get("Last-Event-ID"))
	if len(f.asked) > len(f.bodies) {
		return f.then(r)
	}
	return &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}},
		Body: io.NopCloser(strings.NewReader(f.bodies[len(f.asked)-1])),
	}, nil
}

// follow returns what a stream gives until it ends by itself, or after most events.
func follow(ctx context.Context, f *feed, lastID string, most int) (got []string, err error) {
	c := must(New("https://deliverd.example", HTTPClient(&http.Client{Transport: f}), Attempts(3)))
	for e, failed := range c.Stream(ctx, "/v1/events?tenant=4711", lastID) {
		if failed != nil {
			return got, failed
		}
		got = append(got, fmt.Sprintf("%s/%s/%s", e.ID, e.Name, e.Data))
		if len(got) == most {
			break
		}
	}
	return got, nil
}

func TestStreamFormat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"one":                   {"id: 7\nevent: accepted\ndata: {}\n\n", "[7/accepted/{}]"},
		"no name":               {"id: 7\ndata: x\n\n", "[7/message/x]"},
		"CRLF":                  {"id: 7\r\ndata: x\r\n\r\n", "[7/message/x]"},
		"no blank":              {"id:7\ndata:x\n\n", "[7/message/x]"},
		"two lines":             {"data: a\ndata: b\n\n", "[/message/a\nb]"},
		"empty data":            {"data\n\n", "[/message/]"},
		"comments":              {": hello\n\n:\n\ndata: x\n\n", "[/message/x]"},
		"id stays":              {"id: 7\ndata: x\n\ndata: y\n\n", "[7/message/x 7/message/y]"},
		"name does not stay":    {"event: a\ndata: x\n\ndata: y\n\n", "[/a/x /message/y]"},
		"without data":          {"event: a\n\ndata: y\n\n", "[/message/y]"},
		"unknown field":         {"colour: red\ndata: y\n\n", "[/message/y]"},
		"id with NUL":           {"id: a\x00b\ndata: y\n\n", "[/message/y]"},
		"cut off in the middle": {"data: x\n\nid: 8\ndata: y", "[/message/x]"},
		"cut off at the end":    {"data: x\n\nid: 8\ndata: y\n", "[/message/x]"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &feed{bodies: []string{c.body}, then: status(404, "")}
			got, err := follow(t.Context(), f, "", -1)
			if p, ok := errors.AsType[*Problem](err); fmt.Sprint(got) != c.want || !ok || p.Status != 404 {
				t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
			}
		})
	}
}

func TestStreamDataIsTheCallers(t *testing.T) {
	t.Parallel()
	var kept [][]byte
	var s stream
	s.read(strings.NewReader("data: one\n\ndata: two\n\n"), func(e StreamEvent, _ error) bool {
		kept = append(kept, e.Data)
		return true
	})
	if got := fmt.Sprintf("%s", kept); got != "[one two]" {
		t.Errorf("kept %s", got)
	}
}

func TestStreamGoesOnWhereItBroke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &feed{bodies: []string{
			"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: cut",
			"",
			"id: 3\ndata: c\n\n",
			"id: 4\ndata: d\n\n",
		}, then: dialFailed}
		got, err := follow(t.Context(), f, "0", -1)
		if want := "[1/message/a 2/message/b 3/message/c 4/message/d]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if want := "[0 2 2 3 4 4]"; fmt.Sprint(f.asked) != want {
			t.Errorf("asked after %v, want %v", f.asked, want)
		}
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("gave up with %v", err)
		}
	})
}

func TestStreamEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		got, err := follow(ctx, &feed{bodies: []string{"data: x\n\n"}, then: hangs}, "", -1)
		if err != nil || len(got) != 1 {
			t.Errorf("at the end of its context: %v, %v", got, err)
		}
		f := &feed{bodies: []string{"data: x\n\ndata: y\n\n"}, then: hangs}
		if got, err := follow(t.Context(), f, "", 1); err != nil || len(got) != 1 || len(f.asked) != 1 {
			t.Errorf("when the caller has enough: %v, %v", got, err)
		}
	})
}

func TestStreamWaitsAsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		follow(t.Context(), &feed{bodies: []string{"retry: 3000\n\n"}, then: status(404, "")}, "", -1)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("asked again after %v, want 3 s", took)
		}
		began = time.Now()
		follow(t.Context(), &feed{bodies: []string{"retry: 999999999\n\n"}, then: status(404, "")}, "", -1)
		if took := time.Since(began); took != maxRetry {
			t.Errorf("asked again after %v, want %v", took, maxRetry)
		}
	})
}

func TestStreamRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &feed{then: status(200, "{}")}
		if _, err := follow(t.Context(), f, "", -1); err == nil || !strings.Contains(err.Error(), "no event stream") || len(f.asked) != 1 {
			t.Errorf("%v after %d", err, len(f.asked))
		}
		for name, endless := range map[string]io.Reader{"line": xs{}, "event": &dataLines{}} {
			s := stream{}
			if err := s.read(endless, func(StreamEvent, error) bool { return true }); err == nil {
				t.Errorf("an endless %s has an end", name)
			}
		}
	})
}

type xs struct{}

func (xs) Read(p []byte) (int, error) { return copy(p, strings.Repeat("x", len(p))), nil }

// dataLines is an event whose data never ends.
type dataLines struct{ n int }

func (d *dataLines) Read(p []byte) (int, error) {
	const line = "data: xxxxxxxxxxxxxxxx\n"
	for i := range p {
		p[i] = line[d.n%len(line)]
		d.n++
	}
	return len(p), nil
}
