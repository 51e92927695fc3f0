package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// HandleSend answers a request on deliverd.v1.send.<source>: source is the subject's
// last token, decoded, header reads the message's headers ("Nats-Msg-Id" is the
// idempotency key, "Prefer: wait=5" works as over HTTP). The answer is a receipt,
// {"id", "ref", "state", "warnings"}, or {"problem": {…}}.
func (in *Intake) HandleSend(ctx context.Context, source string, header func(string) string, payload []byte) []byte {
	return in.handle(ctx, source, func(c Caller) (any, error) {
		r, err := Decode(payload)
		if err != nil {
			return nil, err
		}
		if key := header("Nats-Msg-Id"); key != "" {
			r.IdempotencyKey = key
		}
		receipt, err := in.Submit(ctx, c, r)
		if err != nil {
			return nil, err
		}
		if wait := preferredWait([]string{header("Prefer")}); wait > 0 && in.opts.Wait != nil {
			receipt.State = in.await(ctx, receipt.ID, wait)
		}
		return receipt, nil
	})
}

// HandleCancel answers a request on deliverd.v1.cancel.<source>, a body of
// {"message" or "ref", "reason"}, with {"id", "ref", "state"} or a problem.
func (in *Intake) HandleCancel(ctx context.Context, source string, payload []byte) []byte {
	return in.handle(ctx, source, func(c Caller) (any, error) {
		n, reason, err := decodeCancel(payload)
		if err != nil {
			return nil, err
		}
		return in.Cancel(ctx, c, n, reason)
	})
}

// HandleOutcome answers a request on deliverd.v1.outcome.<source>, with the body of
// POST /v1/outcomes.
func (in *Intake) HandleOutcome(ctx context.Context, source string, payload []byte) []byte {
	return in.handle(ctx, source, func(c Caller) (any, error) {
		report, err := decodeReport(payload)
		if err != nil {
			return nil, err
		}
		return in.Outcome(ctx, c, report)
	})
}

// handle is what the NATS doors have in common. A panic stays inside, as net/http
// does it for the other doors: one request is no reason to stop everybody's mail.
func (in *Intake) handle(ctx context.Context, source string, answer func(Caller) (any, error)) (reply []byte) {
	defer func() {
		if v := recover(); v != nil {
			// The value may quote the request; its type is enough beside the stack.
			in.log.LogAttrs(ctx, slog.LevelError, "intake panicked",
				slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())))
			reply = encodeProblem(internal())
		}
	}()
	c := Caller{Source: source, Tenants: []string{AllTenants}}
	if in.opts.Source != nil {
		var ok bool
		if c, ok = in.opts.Source(source); !ok {
			return encodeProblem(unknownSource())
		}
	}
	v, err := answer(c)
	if err != nil {
		return encodeProblem(in.problem(ctx, "nats", err))
	}
	return encode(v)
}

func encodeProblem(p *mail.Problem) []byte {
	return encode(struct {
		Problem *mail.Problem `json:"problem"`
	}{p})
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types; a failure is a mistake in them
	}
	return b
}

func internal() *mail.Problem {
	return &mail.Problem{
		Type: "about:blank", Title: http.StatusText(http.StatusInternalServerError),
		Status: http.StatusInternalServerError,
		Detail: "deliverd failed on this request; the log of the server says where.",
	}
}

// MayReply reports whether an answer may be sent to a reply subject: an inbox, with
// a connection's own prefix or the usual one. Whoever may send a request must not be
// able to have deliverd, which may publish everywhere, publish for them.
func MayReply(subject string) bool {
	return strings.HasPrefix(subject, "_INBOX") && !strings.ContainsAny(subject, "*> \t\r\n")
}
