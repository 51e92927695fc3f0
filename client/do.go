package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// call is one request, however often it is tried.
type call struct {
	verb   string // the NATS subject's word; "" where there is none
	method string
	path   string
	header http.Header
	safe   bool          // doing it twice is as doing it once
	hold   time.Duration // how long the server was asked to hold the answer back
}

// holdFor asks the server to hold the answer back (RFC 7240 4.3), in whole seconds.
func (c *call) holdFor(d time.Duration) {
	if n := int(d / time.Second); n > 0 {
		c.hold = time.Duration(n) * time.Second
		if c.header == nil {
			c.header = http.Header{}
		}
		c.header.Set("Prefer", "wait="+strconv.Itoa(n))
	}
}

// Do makes one call of the HTTP API: path such as "/v1/queue", in the body as JSON
// (nil: none), out where the answer goes (nil: dropped). It is what the other methods
// are made of, and reaches what has no method here. A refusal is a [*Problem].
//
// A GET is tried again as Send is; another method only where the server cannot have
// begun with it. HTTP only.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, call{method: method, path: path, safe: method == http.MethodGet}, in, out)
}

// Open makes a GET whose answer is a file rather than one JSON document, such as
// "/v1/log?format=jsonl", and returns it as it comes: it may be of any length. Close it.
// It is tried once, until ctx ends. HTTP only.
func (c *Client) Open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	if c.request != nil {
		return nil, fmt.Errorf("deliverd: GET %s needs HTTP: %w", path, errors.ErrUnsupported)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	resp, err := c.roundTrip(ctx, call{method: http.MethodGet, path: path, header: http.Header{"Accept": {"*/*"}}}, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) do(ctx context.Context, call call, in, out any) error {
	if c.request != nil && call.verb == "" {
		return fmt.Errorf("deliverd: %s needs HTTP: %w", call, errors.ErrUnsupported)
	}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			// The library's error may quote a value.
			return fmt.Errorf("deliverd: %s: the request has a value that JSON can't say", call)
		}
	}
	for attempt := 1; ; attempt++ {
		err := c.try(ctx, call, body, out)
		if err == nil {
			return nil
		}
		wait, again := call.again(err, attempt)
		if !again || attempt >= c.attempts || !sleep(ctx, wait) {
			return err
		}
	}
}

// String names the call in errors: without the query, which may hold an address.
func (c call) String() string {
	path, _, _ := strings.Cut(c.path, "?")
	return c.method + " " + path
}

// tryTime bounds one attempt, beside ctx, so that a server that stopped answering
// leaves time for another one.
const tryTime = 30 * time.Second

func (c *Client) try(ctx context.Context, call call, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, tryTime+call.hold)
	defer cancel()
	if c.request != nil {
		return c.tryNATS(ctx, call, body, out)
	}
	return c.tryHTTP(ctx, call, body, out)
}

// wayError is a failure on the way to or from deliverd.
type wayError struct {
	call call
	err  error
}

func (e *wayError) Error() string { return "deliverd: " + e.call.String() + ": " + e.err.Error() }
func (e *wayError) Unwrap() error { return e.err }

// begun reports whether the server may have begun with the request.
func (e *wayError) begun() bool {
	op, ok := errors.AsType[*net.OpError](e.err)
	return !ok || op.Op != "dial"
}

func (c *Client) tryNATS(ctx context.Context, call call, body []byte, out any) error {
	reply, err := c.request(ctx, "deliverd.v1."+call.verb+"."+c.source, call.header, body)
	if err != nil {
		return &wayError{call, err}
	}
	var refusal struct {
		Problem *Problem `json:"problem"`
	}
	if err := decode(reply, &refusal); err != nil {
		return &wayError{call, err}
	}
	if refusal.Problem != nil {
		return refusal.Problem
	}
	if err := decode(reply, out); err != nil {
		return &wayError{call, err}
	}
	return nil
}

func (c *Client) tryHTTP(ctx context.Context, call call, body []byte, out any) error {
	resp, err := c.roundTrip(ctx, call, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := readAll(resp.Body, maxAnswer)
	if err != nil {
		return &wayError{call, err}
	}
	if err := decode(text, out); err != nil {
		return &wayError{call, err}
	}
	return nil
}

// roundTrip returns a 2xx response; all others are a Problem.
func (c *Client) roundTrip(ctx context.Context, call call, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, call.method, c.server+call.path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("deliverd: %s: this can't be a request", call) // err quotes the URL
	}
	maps.Copy(req.Header, call.header)
	req.Header.Set("User-Agent", c.agent)
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, whose query may hold an address
		}
		return nil, &wayError{call, err}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

const (
	maxAnswer  = 32 << 20 // bytes; lists come in pages
	maxProblem = 64 << 10
)

var (
	errTooLong = errors.New("the answer is longer than any that deliverd gives")
	errNotOurs = errors.New("the answer is not deliverd's: is there a proxy in between?")
)

func readAll(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = errTooLong
	}
	return text, err
}

func decode(text []byte, out any) error {
	if out == nil {
		return nil
	}
	if json.Unmarshal(text, out) != nil {
		return errNotOurs
	}
	return nil
}

// readProblem makes a Problem of a response that is not 2xx. What is not a problem
// document, such as a proxy's page, gives its status only.
func readProblem(resp *http.Response) *Problem {
	p := &Problem{}
	text, err := readAll(resp.Body, maxProblem)
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(text, p) != nil || p.Type == "" {
		p = &Problem{Type: "about:blank", Title: http.StatusText(resp.StatusCode)}
		if resp.StatusCode/100 == 3 {
			p.Detail = "The server redirects, and requests with secrets don't follow: give the client the final address."
		}
	}
	p.Status = resp.StatusCode
	if p.RetryAfter == 0 {
		p.RetryAfter = retryAfter(resp.Header.Get("Retry-After"))
	}
	return p
}

// retryAfter reads the header in its form of seconds (RFC 9110 10.2.3); the form of a
// date, which deliverd does not use, counts as none.
func retryAfter(s string) int {
	n, err := strconv.ParseUint(s, 10, 24)
	if err != nil {
		return 0
	}
	return int(n)
}

// The waits between attempts double from firstWait to longestWait; a server's
// Retry-After beyond longestRetryAfter is the caller's to deal with.
const (
	firstWait         = 200 * time.Millisecond
	longestWait       = 5 * time.Second
	longestRetryAfter = time.Minute
)

// again reports whether to try again after err, and how long to wait before.
func (c call) again(err error, attempt int) (time.Duration, bool) {
	wait := min(firstWait<<min(attempt-1, 10), longestWait)
	wait = wait/2 + rand.N(wait/2) // so that many clients don't come back as one
	if e, ok := errors.AsType[*wayError](err); ok {
		return wait, c.safe || !e.begun()
	}
	p, ok := errors.AsType[*Problem](err)
	if !ok {
		return 0, false
	}
	asked := time.Duration(p.RetryAfter) * time.Second
	switch p.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return max(wait, asked), asked <= longestRetryAfter
	case http.StatusBadGateway, http.StatusGatewayTimeout: // a proxy's, which may not know
		return max(wait, asked), c.safe && asked <= longestRetryAfter
	}
	return 0, false
}

// sleep waits, and reports false at once where ctx would end first.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
