package console

import (
	"net/http"
	"time"
)

// TokenRequest is the body of POST /v1/tokens.
type TokenRequest struct {
	Name      string    `json:"name"`
	Scopes    []Scope   `json:"scopes"`
	Tenants   []string  `json:"tenants,omitempty"` // none: all
	Sources   []string  `json:"sources,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// NewToken is the answer to POST /v1/tokens: the only time that Token is shown.
type NewToken struct {
	Token string `json:"token"` // "dlv_…"
	Kept  Token  `json:"kept"`
}

// TokenList is the answer to GET /v1/tokens.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

func (a *API) listTokens(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := onlyUnbound(by); err != nil {
		return err
	}
	tokens, err := a.Tokens.List(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, TokenList{tokens})
	return nil
}

func (a *API) newToken(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := onlyUnbound(by); err != nil {
		return err
	}
	var body TokenRequest
	if err := decode(w, r, &body); err != nil {
		return err
	}
	if len(body.Tenants) == 0 {
		body.Tenants = []string{AllTenants}
	}
	secret, kept, err := a.Tokens.New(r.Context(), Token{
		Name: body.Name, Scopes: body.Scopes, Tenants: body.Tenants, Sources: body.Sources,
		ExpiresAt: body.ExpiresAt, CreatedBy: by.Name,
	})
	if err != nil {
		return err
	}
	a.acted(r, by, "token.new", kept.ID, kept.Name)
	writeJSON(w, http.StatusCreated, NewToken{secret, kept})
	return nil
}

func (a *API) revokeToken(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := onlyUnbound(by); err != nil {
		return err
	}
	id, reason := r.PathValue("token"), r.URL.Query().Get("reason")
	if reason != "" {
		var err error
		if reason, err = checkReason(reason); err != nil {
			return err
		}
	}
	if err := a.Tokens.Revoke(r.Context(), id); err != nil {
		return err
	}
	a.acted(r, by, "token.revoke", id, reason)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// onlyUnbound: an administrator of some tenants could give themselves the others.
func onlyUnbound(by *Principal) error {
	if !by.seesAll() {
		return notAllowed("Tokens are every tenant's matter, and this token is bound to some.")
	}
	return nil
}
