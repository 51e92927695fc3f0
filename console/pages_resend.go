package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// resendOffer is what may be done with a message, and what to think of before.
type resendOffer struct {
	Available bool         // there is somebody who does it
	Modes     []ResendMode // the best first; none while it still goes out by itself
	// HandedOver is when it was handed over a short while ago; zero if it was not.
	HandedOver time.Time
	// Open: it has not ended, so it goes out by itself.
	Open bool
	// OnlyNew: mail of this kind is never sent twice, as its code is short-lived.
	OnlyNew bool
	// Expired: the same can't be sent, as it would no longer work.
	Expired bool
	// WhyNot says why the same can't be sent, where that is neither of these.
	WhyNot string
}

// offer says what may be done with a message.
func (p *Pages) offer(f *Facts, now time.Time) resendOffer {
	o := resendOffer{Available: p.api.Resender != nil, Open: f.State.Open(), OnlyNew: !p.with.Kinds[f.Kind].ResendSame}
	o.Expired = !f.ExpiresAt.After(now)
	if f.State == mail.StateAccepted && now.Sub(f.ChangedAt) < justHandedOver {
		o.HandedOver = f.ChangedAt
	}
	if !o.OnlyNew && !o.Expired && !o.Open {
		o.Modes = append(o.Modes, ResendSame)
	}
	if !o.Open {
		o.Modes = append(o.Modes, ResendNew)
	}
	return o
}

// resendPage is the content of the form.
type resendPage struct {
	Summary
	Verdict string
	Offer   resendOffer
	Mode    ResendMode
	Reason  string
	Problem *mail.Problem
	Ask     bool // nobody makes a new one on request: the words to ask somebody with
}

// TenantText names the tenant in a sentence, "" where there is none.
func (r resendPage) TenantText() string {
	if r.TenantName == "" && r.Tenant == "" {
		return ""
	}
	return " (" + strings.TrimSpace(r.TenantName+" "+r.Tenant) + ")"
}

func (p *Pages) resendForm(w http.ResponseWriter, r *http.Request, by *Principal) error {
	content, err := p.resendContent(r, by)
	if err != nil {
		return err
	}
	return p.showResend(w, r, http.StatusOK, content)
}

func (p *Pages) resendContent(r *http.Request, by *Principal) (resendPage, error) {
	s, _, err := p.api.find(r, by)
	if err != nil {
		return resendPage{}, err
	}
	t := p.telling(r)
	f, err := p.factsOf(r, s.ID, &t)
	if err != nil {
		return resendPage{}, err
	}
	content := resendPage{Summary: f.Summary, Verdict: Tell(f, t).Verdict, Offer: p.offer(&f, t.Now)}
	if content.Offer.Available && !content.Offer.Open {
		choice, err := p.api.ResendChoice(r.Context(), f.Summary)
		if err != nil {
			return resendPage{}, err
		}
		content.Offer.narrow(choice)
	}
	if len(content.Offer.Modes) > 0 {
		content.Mode = content.Offer.Modes[0]
	}
	content.Ask = !content.Offer.Available
	return content, nil
}

// narrow leaves of an offer what is possible with this message.
func (o *resendOffer) narrow(c ResendChoice) {
	o.Modes = slices.DeleteFunc(o.Modes, func(m ResendMode) bool {
		return m == ResendSame && !c.Same || m == ResendNew && !c.New
	})
	if !c.Same && !o.OnlyNew && !o.Expired {
		o.WhyNot = c.WhyNot
	}
}

func (p *Pages) showResend(w http.ResponseWriter, r *http.Request, status int, content resendPage) error {
	return p.show(w, r, status, shell{
		Title: pageWord(langOfPage(r), "Send again") + " – " + string(content.Ref), Page: "resend", Section: "start", Content: content,
	})
}

func (p *Pages) resend(w http.ResponseWriter, r *http.Request, by *Principal) error {
	content, err := p.resendContent(r, by)
	if err != nil {
		return err
	}
	if err := parseForm(w, r); err != nil {
		return err
	}
	content.Mode, content.Reason = ResendMode(r.PostForm.Get("mode")), r.PostForm.Get("reason")
	made, err := p.sendAgain(r, by, &content)
	if err != nil {
		content.Problem = asProblem(r.Context(), p.api.logger(), err)
		content.Ask = content.Problem.Type == mail.ProblemNotResendable
		return p.showResend(w, r, content.Problem.Status, content)
	}
	http.Redirect(w, r, "/messages/"+string(made)+"?done=resend", http.StatusSeeOther)
	return nil
}

func (p *Pages) sendAgain(r *http.Request, by *Principal, content *resendPage) (mail.ID, error) {
	if p.api.Resender == nil {
		return "", unavailable("Sending again is not available here.")
	}
	if !slices.Contains(content.Offer.Modes, content.Mode) {
		return "", invalid("mode", "This can't be done with this message.")
	}
	made, err := p.api.Resend(r, by, content.Summary, ResendRequest{Reason: content.Reason, Mode: content.Mode})
	return made.ID, err
}

// parseForm reads a form of one of our pages.
func parseForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		return invalid("", "Fill in the form again: what came could not be read.")
	}
	return nil
}
