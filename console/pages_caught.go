package console

import (
	"net/http"
	"strconv"

	"github.com/deliverd/deliverd/mail"
)

// caughtRow is one line of the list of caught mail.
type caughtRow struct {
	CaughtMail
	Subject string
}

func (p *Pages) caughtList(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	mails := p.with.Caught.Mails()
	rows := make([]caughtRow, 0, min(len(mails), MaxLimit))
	for _, m := range mails[:min(len(mails), MaxLimit)] {
		rows = append(rows, caughtRow{m, subject(m)})
	}
	content := struct {
		Rows  []caughtRow
		Kept  int
		Hints []string
	}{rows, len(mails), p.with.Hints}
	return p.show(w, r, http.StatusOK, shell{Title: "Caught mail – deliverd", Page: "caught", Content: content})
}

func (p *Pages) caughtMail(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	m, err := p.caughtOne(r)
	if err != nil {
		return err
	}
	ref, _ := mail.ParseRef(m.Ref)
	m.Ref = string(ref)
	content := struct {
		readMail
		Frame *previewFrame
	}{m, nil}
	if m.HTML != "" || m.Text != "" {
		at := "/caught/" + strconv.Itoa(m.Number)
		content.Frame = newPreview(r, at, at+"/html", nil, m.Subject, m.Text)
	}
	return p.show(w, r, http.StatusOK, shell{Title: m.Subject + " – deliverd", Page: "mail", Section: "caught", Content: content})
}

// caughtHTML is a mail's HTML by itself, for a frame.
func (p *Pages) caughtHTML(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	m, err := p.caughtOne(r)
	if err != nil {
		return err
	}
	writePreview(w, r, m.HTML)
	return nil
}

func (p *Pages) caughtRaw(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	m, err := p.caughtOne(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(m.Raw)
	return nil
}

func (p *Pages) caughtOne(r *http.Request) (readMail, error) {
	n, err := strconv.Atoi(r.PathValue("mail"))
	if err != nil {
		return readMail{}, ErrNotFound
	}
	m, ok := p.with.Caught.Mail(n)
	if !ok {
		return readMail{}, ErrNotFound
	}
	return read(m), nil
}
