package intake

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Route is one entry of an http.ServeMux: handle Method + " " + Pattern for callers
// whose token has Scope.
type Route struct {
	Method  string
	Pattern string
	Scope   string
	Handler http.Handler
}

// Routes are the doors by HTTP. Who calls is asked of Options.Caller; the scope is
// the wiring's to enforce.
func (in *Intake) Routes() []Route {
	return []Route{
		{http.MethodPost, "/v1/messages", "send", in.endpoint(in.postMessage)},
		{http.MethodPost, "/v1/messages:validate", "send", in.endpoint(in.postValidate)},
		{http.MethodPost, "/v1/outcomes", "send", in.endpoint(in.postOutcome)},
	}
}

// bodyTime bounds the reading of a body: 64 KiB at 6 KiB a second.
const bodyTime = 10 * time.Second

// endpoint is what the doors have in common: who calls, and the body, read whole
// and with all bounds before anything is made of it.
func (in *Intake) endpoint(answer func(http.ResponseWriter, *http.Request, Caller, []byte) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := func() error {
			if in.opts.Caller == nil {
				return notSignedIn()
			}
			c, ok := in.opts.Caller(r)
			if !ok {
				return notSignedIn()
			}
			body, err := readBody(w, r)
			if err != nil {
				return err
			}
			return answer(w, r, c, body)
		}()
		if err != nil {
			writeProblem(w, in.problem(r.Context(), "http", err))
		}
	})
}

func (in *Intake) postMessage(w http.ResponseWriter, r *http.Request, c Caller, body []byte) error {
	req, err := Decode(body)
	if err != nil {
		return err
	}
	if req.IdempotencyKey, err = headerKey(r.Header.Values("Idempotency-Key"), req.IdempotencyKey); err != nil {
		return err
	}
	receipt, err := in.Submit(r.Context(), c, req)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Location", "/v1/messages/"+string(receipt.ID))
	if wait := preferredWait(r.Header.Values("Prefer")); wait > 0 && in.opts.Wait != nil {
		// The server's own limits are for a request that is answered at once.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + bodyTime))
		receipt.State = in.await(r.Context(), receipt.ID, wait)
		h.Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	}
	writeJSON(w, http.StatusAccepted, receipt)
	return nil
}

func (in *Intake) postValidate(w http.ResponseWriter, r *http.Request, c Caller, body []byte) error {
	req, err := Decode(body)
	if err != nil {
		return err
	}
	if req.IdempotencyKey, err = headerKey(r.Header.Values("Idempotency-Key"), req.IdempotencyKey); err != nil {
		return err
	}
	v, err := in.Validate(r.Context(), c, req)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

func (in *Intake) postOutcome(w http.ResponseWriter, r *http.Request, c Caller, body []byte) error {
	report, err := decodeReport(body)
	if err != nil {
		return err
	}
	noted, err := in.Outcome(r.Context(), c, report)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, noted)
	return nil
}

// readBody reads at most MaxBody bytes of JSON. Nothing is ever decompressed.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, unsupportedMedia("Send the body as it is, without Content-Encoding.")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, unsupportedMedia("Send the body with Content-Type: application/json.")
	}
	// A writer without deadlines (a test's) is none the worse. The server itself takes
	// the deadline back at the end of the body.
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge()
		}
		return nil, invalid("", "The body ended early, or came too slowly.")
	}
	return body, nil
}

// headerKey returns the idempotency key: that of the header wins over the body's.
// Quotes around it are the header's syntax in draft-ietf-httpapi-idempotency-key-header.
func headerKey(header []string, field string) (string, error) {
	switch len(header) {
	case 0:
		return field, nil
	case 1:
		key := header[0]
		if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
			key = key[1 : n-1]
		}
		return key, nil
	}
	return "", invalid("idempotency_key", "There is more than one Idempotency-Key.")
}

// maxWait bounds Prefer: wait=N.
const maxWait = time.Minute

// preferredWait reads the wait of Prefer headers (RFC 7240 2 and 4.3): the first one
// counts, up to maxWait; 0 for none, or for one that can't be read, as a preference
// is no condition.
func preferredWait(headers []string) time.Duration {
	for part := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		preference, _, _ := strings.Cut(part, ";")
		name, value, _ := strings.Cut(preference, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 16)
		if err != nil {
			return 0
		}
		return min(time.Duration(n)*time.Second, maxWait)
	}
	return 0
}

// await returns the state in which a message is at the end of a wait.
func (in *Intake) await(ctx context.Context, id mail.ID, wait time.Duration) mail.State {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return in.opts.Wait(ctx, id)
}

func writeProblem(w http.ResponseWriter, p *mail.Problem) {
	h := w.Header()
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	writeAs(w, "application/problem+json", p.Status, p)
}

func writeJSON(w http.ResponseWriter, status int, v any) { writeAs(w, "application/json", status, v) }

// writeAs answers. An error of writing is the caller's having gone: what was taken
// stays taken, and a retry with the same key is told so.
func writeAs(w http.ResponseWriter, contentType string, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
