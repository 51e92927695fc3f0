package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// StreamEvent is one server-sent event.
type StreamEvent struct {
	ID   string // to go on after, as lastID
	Name string // "message" where the server gave none
	Data []byte // the caller's to keep
}

// Stream follows server-sent events at path, e.g. "/v1/events?tenant=4711", from after
// the event lastID ("" for the beginning that the server chooses). A connection that
// breaks is made anew where it broke, so that no event is missed and none comes twice.
// It ends when ctx does, without an error; with one where the server refuses, or can't
// be reached [Attempts] times in a row. HTTP only.
func (c *Client) Stream(ctx context.Context, path, lastID string) iter.Seq2[StreamEvent, error] {
	return func(yield func(StreamEvent, error) bool) {
		if c.request != nil {
			yield(StreamEvent{}, errStreamHTTP)
			return
		}
		s := stream{client: c, path: path, lastID: lastID}
		for failures := 0; ; {
			before := s.events
			err := s.follow(ctx, yield)
			if ctx.Err() != nil || errors.Is(err, errStopped) {
				return
			}
			if s.events > before {
				failures = 0
			}
			failures++
			wait, again := s.call().again(err, failures)
			if s.retry > 0 {
				wait = s.retry
			}
			if !again || failures >= c.attempts {
				yield(StreamEvent{}, err)
				return
			}
			if !sleep(ctx, wait) {
				return
			}
		}
	}
}

var (
	errStopped    = errors.New("the caller has had enough")
	errStreamHTTP = fmt.Errorf("deliverd: Stream needs HTTP; over NATS, events are a consumer of DELIVERD_EVENTS: %w", errors.ErrUnsupported)
	errStreamEnd  = errors.New("the connection ended")
)

// stream is what outlives a connection.
type stream struct {
	client *Client
	path   string
	lastID string
	retry  time.Duration // the server's wish, 0 if it has none
	events int
}

func (s *stream) call() call {
	h := http.Header{"Accept": {"text/event-stream"}}
	if s.lastID != "" {
		h.Set("Last-Event-ID", s.lastID)
	}
	return call{method: http.MethodGet, path: s.path, header: h, safe: true}
}

// follow makes one connection and reads it to its end. The error is never nil.
func (s *stream) follow(ctx context.Context, yield func(StreamEvent, error) bool) error {
	call := s.call()
	resp, err := s.client.roundTrip(ctx, call, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "text/event-stream" {
		return errNoStream
	}
	if err := s.read(resp.Body, yield); err != nil {
		if errors.Is(err, errStopped) {
			return err
		}
		return &wayError{call, err}
	}
	return &wayError{call, errStreamEnd}
}

var errNoStream = errors.New("deliverd: the answer is no event stream: is there a proxy in between?")

// maxLine bounds a line of a stream and the data of an event, in bytes: an event holds
// one message's evidence, which is bounded, and no mail.
const maxLine = 1 << 20

// maxRetry bounds the wait that a stream may ask for before it is followed again.
const maxRetry = 30 * time.Second

// read is the event stream format of the HTML standard, section 9.2.6, with lines that
// end in LF or CRLF. An event that is cut off by the end is not one.
func (s *stream) read(r io.Reader, yield func(StreamEvent, error) bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var e StreamEvent
	var data bytes.Buffer
	any := false
	id := s.lastID
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			s.lastID = id
			if any {
				e.ID, e.Data = id, bytes.Clone(data.Bytes())
				if e.Name == "" {
					e.Name = "message"
				}
				s.events++
				if !yield(e, nil) {
					return errStopped
				}
			}
			e, any = StreamEvent{}, false
			data.Reset()
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			if any {
				data.WriteByte('\n')
			}
			any = true
			data.WriteString(value)
			if data.Len() > maxLine {
				return bufio.ErrTooLong
			}
		case "event":
			e.Name = value
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				s.retry = min(time.Duration(ms)*time.Millisecond, maxRetry)
			}
		}
	}
	return lines.Err()
}
