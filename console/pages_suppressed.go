package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
)

// suppressedPage is the content of the page of addresses that get no mail.
type suppressedPage struct {
	Rows   []suppressedRow
	Query  string
	CanAct bool
}

// suppressedRow is one address that gets no mail.
type suppressedRow struct {
	mail.Suppression
	Plain   string    // why, a sentence
	NotSent []Summary // messages that were not sent for it, since
	Ref     mail.Ref  // of the message whose refusal was the cause
}

// notSentRows of what was not sent are shown.
const notSentRows = 5

func (p *Pages) suppressed(w http.ResponseWriter, r *http.Request, by *Principal) error {
	p.api.fresh(r.Context())
	place := p.api.View.Place()
	all, err := p.api.Backend.Suppressions(r.Context(), "")
	if err != nil {
		return err
	}
	content := suppressedPage{Query: strings.TrimSpace(r.URL.Query().Get("address")), CanAct: by.Can(ScopeAct)}
	all = slices.DeleteFunc(slices.Clone(all), func(s mail.Suppression) bool {
		return !by.Sees(s.Tenant) || !strings.Contains(s.Address.Key(), strings.ToLower(content.Query))
	})
	slices.SortFunc(all, func(a, b mail.Suppression) int { return b.Since.Compare(a.Since) })
	for _, s := range all[:min(len(all), MaxLimit)] {
		row, err := p.suppressedRow(r, s)
		if err != nil {
			return err
		}
		content.Rows = append(content.Rows, row)
	}
	return p.show(w, r, http.StatusOK, shell{
		Title: pageWord(langOfPage(r), "Suppressed") + " – deliverd", Page: "suppressed", Watch: "all=1", Place: place, Content: content,
	})
}

func (p *Pages) suppressedRow(r *http.Request, s mail.Suppression) (suppressedRow, error) {
	row := suppressedRow{Suppression: s, Ref: s.Message.Ref()}
	why := s.Cause
	if why == mail.CauseSuppressed {
		why = "" // somebody's decision: the reason says it
	}
	if why != "" {
		row.Plain = bounces.Explain(why, langOfPage(r)).Fill(bounces.Facts{To: string(s.Address), Domain: s.Address.Domain()}).Plain
	}
	tenants := []string{s.Tenant}
	if s.Tenant == "" {
		tenants = nil
	}
	notSent, err := p.api.View.List(r.Context(), Filter{Tenants: tenants, To: s.Address, State: mail.StateSuppressed, Limit: notSentRows})
	row.NotSent = slices.DeleteFunc(notSent, func(m Summary) bool { return m.ChangedAt.Before(s.Since) })
	return row, err
}

// liftPage is the content of the form that lets mail out again.
type liftPage struct {
	suppressedRow
	Reason  string
	Problem *mail.Problem
}

func (p *Pages) liftForm(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q := r.URL.Query()
	content, err := p.liftContent(r, by, q.Get("tenant"), q.Get("address"))
	if err != nil {
		return err
	}
	return p.showLift(w, r, http.StatusOK, content)
}

func (p *Pages) showLift(w http.ResponseWriter, r *http.Request, status int, content liftPage) error {
	return p.show(w, r, status, shell{
		Title: pageWord(langOfPage(r), "Lift the block") + " – deliverd", Page: "lift", Section: "suppressed", Content: content,
	})
}

func (p *Pages) liftContent(r *http.Request, by *Principal, tenant, address string) (liftPage, error) {
	a, err := suppressible(by, tenant, address)
	if err != nil {
		return liftPage{}, err
	}
	all, err := p.api.Backend.Suppressions(r.Context(), tenant)
	if err != nil {
		return liftPage{}, err
	}
	for _, s := range all {
		if s.Tenant == tenant && s.Address.Key() == a.Key() {
			row, err := p.suppressedRow(r, s)
			return liftPage{suppressedRow: row}, err
		}
	}
	return liftPage{}, ErrNotFound
}

func (p *Pages) lift(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	content, err := p.liftContent(r, by, r.PostForm.Get("tenant"), r.PostForm.Get("address"))
	if err != nil {
		return err
	}
	content.Reason = r.PostForm.Get("reason")
	reason, err := checkReason(content.Reason)
	if err == nil {
		err = p.api.Backend.Lift(r.Context(), content.Tenant, content.Address, by.Name, reason)
	}
	if err != nil {
		content.Problem = asProblem(r.Context(), p.api.logger(), err)
		return p.showLift(w, r, content.Problem.Status, content)
	}
	p.api.actedFor(r, by, "lift", string(content.Address), content.Tenant, reason)
	http.Redirect(w, r, "/suppressed?"+url.Values{"done": {"lift"}}.Encode(), http.StatusSeeOther)
	return nil
}
