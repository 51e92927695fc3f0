package console

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
)

// delaysPage is the content of the page of what waits.
type delaysPage struct {
	Queue     *Queue // nil for whoever is bound to tenants
	Providers []heldProvider
	Waiting   int // held up, over all of them
	Soon      []Summary
	Act       *delayAct // what somebody is about to do
	Problem   *mail.Problem
	CanAct    bool
	// Maintenance is nil for whoever is bound to tenants.
	Maintenance *maintenancePart
}

// heldProvider is what is held up at one provider's domains.
type heldProvider struct {
	ID, Name string
	Waiting  int
	Domains  []heldDomain
}

type heldDomain struct {
	Held
	Plain string // the cause, a sentence
}

// delayAct is an act on a part of the queue, before it has a reason.
type delayAct struct {
	Name     string // pause, resume or retry
	Selector string
	Reason   string
}

// soon is how far ahead mail that expires is shown.
const (
	soon     = 5 * time.Minute
	soonRows = 20
)

func (p *Pages) delays(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q := r.URL.Query()
	var open delaysForms
	switch name := q.Get("act"); name {
	case "pause", "resume", "retry":
		open.act = &delayAct{Name: name, Selector: q.Get("selector")}
	case "plan":
		open.plan = p.newPlan()
	case "end":
		open.end = &endForm{ID: q.Get("window")}
	}
	return p.showDelays(w, r, by, http.StatusOK, open)
}

func (p *Pages) showDelays(w http.ResponseWriter, r *http.Request, by *Principal, status int, open delaysForms) error {
	p.api.fresh(r.Context())
	content := delaysPage{Act: open.act, Problem: open.problem, CanAct: by.Can(ScopeOperate)}
	place := p.api.View.Place()
	held, err := p.api.View.HeldUp(r.Context(), by.visible(""))
	if err != nil {
		return err
	}
	content.Providers = byProvider(held, langOfPage(r))
	for _, h := range held {
		content.Waiting += h.Waiting
	}
	if content.Soon, err = p.api.View.Expiring(r.Context(), by.visible(""), soon, soonRows); err != nil {
		return err
	}
	if by.seesAll() {
		queue, err := p.api.Backend.Queue(r.Context())
		if err != nil {
			return err
		}
		content.Queue = &queue
	}
	if content.Maintenance, err = p.maintenance(r, by); err != nil {
		return err
	}
	if m := content.Maintenance; m != nil {
		m.Plan, m.End = open.plan, open.end
		if m.End != nil {
			m.End.Window = m.find(m.End.ID)
		}
	}
	watch := "all=1"
	if open.open() {
		watch = ""
	}
	return p.show(w, r, status, shell{Title: pageWord(langOfPage(r), "Delays") + " – deliverd", Page: "delays", Watch: watch, Place: place, Content: content})
}

// byProvider groups what is held up, the provider with the most first.
func byProvider(held []Held, lang string) []heldProvider {
	var all []heldProvider
	at := map[string]int{}
	for _, h := range held {
		key := cmp.Or(h.Provider, "@"+h.Domain)
		i, known := at[key]
		if !known {
			i = len(all)
			at[key] = i
			name := h.Domain
			if h.Provider != "" {
				name = bounces.ProviderName(h.Provider)
			}
			all = append(all, heldProvider{ID: h.Provider, Name: name})
		}
		all[i].Waiting += h.Waiting
		plain := bounces.Explain(h.Cause, lang).Fill(bounces.Facts{Domain: h.Domain, Provider: bounces.ProviderName(h.Provider)}).Plain
		all[i].Domains = append(all[i].Domains, heldDomain{h, plain})
	}
	slices.SortStableFunc(all, func(a, b heldProvider) int { return b.Waiting - a.Waiting })
	return all
}

// actOnDelays pauses, resumes or tries a part of the queue.
func (p *Pages) actOnDelays(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := parseForm(w, r); err != nil {
		return err
	}
	act := delayAct{Name: r.PostForm.Get("act"), Selector: r.PostForm.Get("selector"), Reason: r.PostForm.Get("reason")}
	do := map[string]func() error{
		"pause":  func() error { return p.api.Backend.Pause(r.Context(), act.Selector, by.Name, act.Reason) },
		"resume": func() error { return p.api.Backend.Resume(r.Context(), act.Selector, by.Name, act.Reason) },
		"retry":  func() error { return p.api.Backend.RetryNow(r.Context(), act.Selector, by.Name, act.Reason) },
	}[act.Name]
	if do == nil {
		return invalid("act", "There is no such act.")
	}
	checked, err := checkQueueAct(QueueAct{Selector: act.Selector, Reason: act.Reason}, by)
	if err == nil {
		act.Selector, act.Reason = checked.Selector, checked.Reason
		err = do()
	}
	if err != nil {
		problem := asProblem(r.Context(), p.api.logger(), err)
		return p.showDelays(w, r, by, problem.Status, delaysForms{act: &act, problem: problem})
	}
	p.api.actedFor(r, by, act.Name, act.Selector, tenantOf(act.Selector), act.Reason)
	http.Redirect(w, r, "/delays?"+url.Values{"done": {act.Name}}.Encode(), http.StatusSeeOther)
	return nil
}
