package console

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// messagePage is the content of a message's page.
type messagePage struct {
	Message
	Replies []replyText
	Steps   []attemptSteps // of each attempt, the newest first
	Preview *previewFrame  // nil where nothing can be shown
	Resend  resendOffer
	Caught  int // its mail's number at the catching server; 0 for none
	// Soon are the next attempts ahead, and Later the others.
	Soon, Later []time.Time
}

// replyText is what to answer to the customer, in one language.
type replyText struct {
	Lang, Name, Text string
}

// languageNames are the languages, each in itself.
var languageNames = map[string]string{"en": "English", "fi": "Suomi"}

func (p *Pages) message(w http.ResponseWriter, r *http.Request, by *Principal) error {
	s, others, err := p.api.find(r, by)
	if err != nil {
		return err
	}
	place := p.api.View.Place()
	t := p.telling(r)
	f, err := p.factsOf(r, s.ID, &t)
	if err != nil {
		return err
	}
	content := messagePage{Message: Tell(f, t), Replies: repliesIn(f, t), Caught: p.caughtAs(s.Ref)}
	content.SameRef = others
	for _, a := range slices.Backward(content.Attempts) {
		content.Steps = append(content.Steps, attemptSteps{Attempt: a, Steps: conversation(t.Lang, a)})
	}
	content.Soon = content.Schedule[:min(len(content.Schedule), aheadSoon)]
	content.Later = content.Schedule[len(content.Soon):]
	content.Resend = p.offer(&f, t.Now)
	content.Preview = p.frame(&f, r)
	return p.show(w, r, http.StatusOK, shell{
		Title: string(s.Ref) + " – deliverd", Page: "message", Section: "start", Watch: "message=" + string(s.ID), Place: place, Content: content,
	})
}

// factsOf returns a message's facts, and adds to t what else is known of it: by the
// queue, and by what goes wrong for many.
func (p *Pages) factsOf(r *http.Request, id mail.ID, t *Telling) (Facts, error) {
	f, err := p.api.View.Facts(r.Context(), id)
	if err == nil {
		t.Incidents, err = p.api.View.Incidents(r.Context())
	}
	if err != nil || !f.State.Open() {
		return f, err
	}
	live, err := p.api.Backend.Live(r.Context(), id)
	if err != nil {
		p.api.logger().WarnContext(r.Context(), "the queue did not tell about a message", "message", id, "error", err)
	}
	t.Live = live
	return f, nil
}

// repliesIn returns what to answer in every language, the page's own first.
func repliesIn(f Facts, t Telling) []replyText {
	own := language(t.Lang)
	var all []replyText
	for _, lang := range languages {
		t.Lang = lang
		m := Tell(f, t)
		reply := replyText{lang, languageNames[lang], cmp.Or(m.Reply, m.Verdict+"\n\n"+m.NextStep)}
		if lang == own {
			all = slices.Insert(all, 0, reply)
		} else {
			all = append(all, reply)
		}
	}
	return all
}

// attemptSteps is an attempt with its conversation.
type attemptSteps struct {
	Attempt
	Steps []conversationStep
}

// conversationStep is one step of a conversation that was come to.
type conversationStep struct {
	Text  string // what was done there
	Said  string // what the server said, or what was seen instead, where it ended
	Last  bool
	Works bool
}

// conversationWords are the steps of an attempt as people call them.
var conversationWords = []struct {
	stage mail.Stage
	text  string
}{
	{mail.StageRender, "Put the mail together"},
	{mail.StageSign, "Signed it (DKIM)"},
	{mail.StageDNS, "Looked up their mail servers"},
	{mail.StageConnect, "Connected to {host}"},
	{mail.StageGreeting, "Were greeted"},
	{mail.StageHello, "Introduced ourselves (EHLO)"},
	{mail.StageTLS, "Encrypted the connection (STARTTLS)"},
	{mail.StageAuth, "Signed in"},
	{mail.StageMail, "Named the sender (MAIL FROM)"},
	{mail.StageRcpt, "Named the recipient (RCPT TO)"},
	{mail.StageData, "Asked to hand it over (DATA)"},
	{mail.StageBody, "Sent the mail"},
	{mail.StageDot, "Ended it with the final dot"},
}

// conversation tells how far an attempt came. The evidence names where it ended; what
// comes before that is the protocol's own order (RFC 5321 4.1.4).
func conversation(lang string, a Attempt) []conversationStep {
	e := a.Evidence
	if e == nil || e.Stage == "" {
		return nil
	}
	host := cmp.Or(e.Host, pageWord(lang, "their mail server"))
	if e.IP != "" {
		host += " (" + e.IP + ")"
	}
	var steps []conversationStep
	for _, s := range conversationWords {
		last := s.stage == e.Stage
		switch {
		case last:
		case s.stage == mail.StageRender, s.stage == mail.StageSign, s.stage == mail.StageAuth: // of no interest once they worked
			continue
		case s.stage == mail.StageTLS && (e.TLS == nil || e.TLS.Version == ""):
			continue
		case e.Reused && (s.stage == mail.StageGreeting || s.stage == mail.StageHello || s.stage == mail.StageTLS):
			continue
		}
		step := conversationStep{Text: pageWord(lang, s.text, "host", host), Last: last, Works: !last || a.State == mail.StateAccepted}
		if s.stage == mail.StageTLS && e.TLS != nil && e.TLS.Version != "" {
			step.Said = e.TLS.Version + ", " + e.TLS.Cipher
		}
		if last {
			step.Said = e.Error
			if e.Reply != nil {
				step.Said = e.Reply.String()
			}
		}
		steps = append(steps, step)
		if last {
			break
		}
	}
	return steps
}

// caughtAs finds the newest caught mail with this reference.
func (p *Pages) caughtAs(ref mail.Ref) int {
	if p.with.Caught == nil {
		return 0
	}
	line := []byte("\r\nX-Deliverd-Ref: " + ref + "\r\n")
	for _, m := range p.with.Caught.Mails() {
		if end := bytes.Index(m.Raw, []byte("\r\n\r\n")); end >= 0 && bytes.Contains(m.Raw[:end+2], line) {
			return m.Number
		}
	}
	return 0
}

// shownMessage is the message as its mail can be shown: with everything that is
// known of it, and every value of its data, which is kept for sending only, blanked. What
// of the data is not secret stays sealed as well: who forgets to name a secret is to
// have told it to nobody but the recipient (law 5), and the event log is kept for months.
func (p *Pages) shownMessage(f *Facts) mail.Message {
	m := mail.Message{
		ID: f.ID, Ref: f.Ref, Kind: f.Kind, Tenant: f.Tenant, TenantName: f.TenantName, To: f.To, ToName: f.ToName,
		PersonID: f.PersonID, Locale: f.Locale, Template: f.Template, From: p.with.From,
		QueuedAt: f.QueuedAt, ExpiresAt: f.ExpiresAt, Data: map[string]any{},
	}
	for _, v := range p.with.Templates().Variables(f.Template, f.Locale) {
		if v.Required {
			setPath(m.Data, v.Name, mail.Blank)
		}
	}
	return m
}

// setPath sets the value at a path with dots.
func setPath(at map[string]any, path string, v any) {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		at[name] = v
		return
	}
	inner, ok := at[name].(map[string]any)
	if !ok {
		inner = map[string]any{}
		at[name] = inner
	}
	setPath(inner, rest, v)
}

// frame is the preview of a message's page.
func (p *Pages) frame(f *Facts, r *http.Request) *previewFrame {
	if p.with.Templates == nil {
		return nil
	}
	m := p.shownMessage(f)
	subject, text, _, err := p.with.Templates().Preview(&m)
	if err != nil {
		return nil // a template that is no longer there, or that needs what isn't kept
	}
	at := "/messages/" + string(f.ID)
	return newPreview(r, at, at+"/preview", nil, subject, text)
}

func (p *Pages) messagePreview(w http.ResponseWriter, r *http.Request, by *Principal) error {
	m, err := p.blanked(r, by)
	if err != nil {
		return err
	}
	_, _, html, err := p.with.Templates().Preview(&m)
	if err != nil {
		return ErrNotFound
	}
	writePreview(w, r, html)
	return nil
}

// messageRaw is the mail as it is sent, but for the signature and the secrets.
func (p *Pages) messageRaw(w http.ResponseWriter, r *http.Request, by *Principal) error {
	m, err := p.blanked(r, by)
	if err != nil {
		return err
	}
	raw, err := p.with.Templates().Render(&m)
	if err != nil {
		return ErrNotFound
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(raw)
	return nil
}

// blanked is the message that the path names, as its mail can be shown.
func (p *Pages) blanked(r *http.Request, by *Principal) (mail.Message, error) {
	s, _, err := p.api.find(r, by)
	if err != nil {
		return mail.Message{}, err
	}
	if p.with.Templates == nil {
		return mail.Message{}, ErrNotFound
	}
	f, err := p.api.View.Facts(r.Context(), s.ID)
	if err != nil {
		return mail.Message{}, err
	}
	return p.shownMessage(&f), nil
}

// aheadSoon of the attempts ahead are shown at once.
const aheadSoon = 6

// justHandedOver is how long after a hand-over it is worth waiting before the same is
// sent again.
const justHandedOver = 5 * time.Minute
