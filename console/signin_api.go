package console

import (
	"net/http"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// LoginLinkRequest is the body of POST /v1/login-links.
type LoginLinkRequest struct {
	Name   string `json:"name"`           // who will use it
	Role   Role   `json:"role,omitempty"` // "" means admin
	Reason string `json:"reason"`
}

// LoginLink is the answer to POST /v1/login-links: the only time that the link is
// shown.
type LoginLink struct {
	URL       string    `json:"url"`
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	ExpiresAt time.Time `json:"expires_at"`
}

// SessionList is the answer to GET /v1/sessions.
type SessionList struct {
	Sessions []Session `json:"sessions"`
}

// EndedSessions is the answer to DELETE /v1/sessions.
type EndedSessions struct {
	Ended []string `json:"ended"` // their ids
}

// apiRoutes are the doors for administrators, who are there also when the sign-in
// system is not.
func (s *SignIn) apiRoutes() []Route {
	answer := (&API{Log: s.Log}).answer
	return []Route{
		{"POST", "/v1/login-links", ScopeAdmin, "", answer(s.newLink)},
		{"GET", "/v1/sessions", ScopeAdmin, "", answer(s.listSessions)},
		{"DELETE", "/v1/sessions", ScopeAdmin, "", answer(s.endSessions)},
	}
}

func (s *SignIn) newLink(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := onlyUnbound(by); err != nil {
		return err
	}
	var body LoginLinkRequest
	if err := decode(w, r, &body); err != nil {
		return err
	}
	reason, err := checkReason(body.Reason)
	if err != nil {
		return err
	}
	if body.Role == "" {
		body.Role = RoleAdmin
	}
	code, link, err := s.Links.New(r.Context(), loginLink{Name: strings.TrimSpace(body.Name), Role: body.Role, By: by.Name, Reason: presentable(reason)})
	if err != nil {
		return err
	}
	s.note(r.Context(), by.entry("login_link.new", link.Name, "", reason))
	writeJSON(w, http.StatusCreated, LoginLink{
		URL: strings.TrimSuffix(s.BaseURL, "/") + "/sign-in/link/" + code, Name: link.Name, Role: link.Role, ExpiresAt: link.ExpiresAt,
	})
	return nil
}

func (s *SignIn) listSessions(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := onlyUnbound(by); err != nil {
		return err
	}
	sessions, err := s.Sessions.List(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, SessionList{sessions})
	return nil
}

// endSessions ends one session, ?id=, or all of a person, ?name=.
func (s *SignIn) endSessions(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := onlyUnbound(by); err != nil {
		return err
	}
	q := r.URL.Query()
	id, name := q.Get("id"), q.Get("name")
	if (id == "") == (name == "") {
		return invalid("", "Say which: ?id= for one session, or ?name= for all of a person.")
	}
	reason, err := checkReason(q.Get("reason"))
	if err != nil {
		return err
	}
	ended, err := s.Sessions.End(r.Context(), func(session *Session) bool { return session.ID == id || name != "" && session.Name == name })
	ids := []string{}
	for _, e := range ended {
		ids = append(ids, e.ID)
		entry := by.entry("session.end", e.ID, "", reason)
		entry.Detail = e.Name
		s.note(r.Context(), entry)
	}
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return &mail.Problem{
			Type: mail.ProblemNotFound, Title: "Nobody is signed in so", Status: http.StatusNotFound,
			Detail: "“deliverd admin sessions ls” shows who is.",
		}
	}
	writeJSON(w, http.StatusOK, EndedSessions{ids})
	return nil
}
