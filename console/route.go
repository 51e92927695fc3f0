package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// Route is one thing that the HTTP server answers.
type Route struct {
	Method  string
	Pattern string // an http.ServeMux pattern's path: "/v1/messages/{message}"
	Scope   Scope  // what the caller must be allowed; "" for everyone, unasked
	Body    string // the media type of its body; "" is application/json
	Handler http.Handler
}

// Handler returns the handler of all routes: it finds out who calls, holds the
// route's scope against that, sets the headers that every answer has, and answers
// everything else with a problem. log is told of what fails inside.
func Handler(auth *Authenticator, log *slog.Logger, routes ...Route) http.Handler {
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, r := range routes {
		mux.Handle(r.Method+" "+r.Pattern, guard(auth, log, r))
		allowed[r.Pattern] = append(allowed[r.Pattern], r.Method)
	}
	for pattern, methods := range allowed {
		mux.Handle(pattern, wrongMethod(methods))
	}
	if allowed["/"] == nil {
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { writeProblem(w, notFound()) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth.strip(r)
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer") // references and addresses stand in our URLs
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	})
}

func guard(auth *Authenticator, log *slog.Logger, route Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if route.Scope == "" {
			if err := auth.open(r, route); err != nil {
				writeProblem(w, asProblem(r.Context(), log, err))
				return
			}
			route.Handler.ServeHTTP(w, r)
			return
		}
		p, err := auth.Authenticate(r)
		if err == nil && !p.Can(route.Scope) {
			err = lacks(p, route.Scope)
		}
		if err == nil {
			err = onlyType(r, cmp.Or(route.Body, "application/json"))
		}
		if err != nil {
			auth.refuse(w, r, asProblem(r.Context(), log, err))
			return
		}
		route.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), principalKey{}, p)))
	})
}

// open refuses what nobody may do at a route that is for everybody: change something
// from another site's page, or send a body of another type.
func (a *Authenticator) open(r *http.Request, route Route) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if err := a.sameOrigin(r); err != nil {
		return err
	}
	return cmp.Or(fromPage(r), onlyType(r, cmp.Or(route.Body, "application/json")))
}

// refuse answers with a problem; somebody who looks at a page is shown the way in.
func (a *Authenticator) refuse(w http.ResponseWriter, r *http.Request, p *mail.Problem) {
	if a.SignIn == nil || !looksAtPage(r) {
		writeProblem(w, p)
		return
	}
	switch p.Status {
	case http.StatusUnauthorized:
		a.SignIn.turnAway(w, r)
	default:
		a.SignIn.tell(w, r, p)
	}
}

// lacks says what somebody would need.
func lacks(p *Principal, s Scope) *mail.Problem {
	if p.Role != "" {
		return notAllowed("Your role, " + string(p.Role) + ", does not allow this. Ask somebody who has a stronger one.")
	}
	return notAllowed("This token lacks the scope “" + string(s.issued()) + "”. Make one that has it with “deliverd token new”.")
}

// onlyType refuses a body that says it is something else than what is wanted, which
// is nothing that a form of another site's page could say.
func onlyType(r *http.Request, want string) error {
	if r.ContentLength == 0 {
		return nil
	}
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != want {
		return &mail.Problem{
			Type: mail.ProblemInvalid, Title: "The body has the wrong type", Status: http.StatusUnsupportedMediaType,
			Detail: "Send “Content-Type: " + want + "”, and what it says.",
		}
	}
	return nil
}

func wrongMethod(methods []string) http.Handler {
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allow)
		writeProblem(w, &mail.Problem{
			Type: mail.ProblemMethodNotAllowed, Title: "Wrong method", Status: http.StatusMethodNotAllowed,
			Detail: "This address takes " + allow + ".",
		})
	})
}

// maxBody is the most that a body of this package's own routes may hold: each is a
// few short fields.
const maxBody = 16 << 10

// decode reads the body, one JSON object and nothing else, into v. The error never
// repeats what was sent.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &mail.Problem{Type: mail.ProblemTooLarge, Title: "The body is too large", Status: http.StatusRequestEntityTooLarge, Detail: "At most 16 KiB."}
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid(e.Field, "This field has the wrong type.")
	}
	return invalid("", "Send one JSON object with the fields that /openapi.json names for this request, and no others.")
}
