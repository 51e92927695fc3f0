package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// templatesPage is the content of the page of mails' texts.
type templatesPage struct {
	Names     []templateName
	Name      string
	Lang      string
	Data      string // which data it is filled with
	DataKinds []string
	Variables []mail.Variable
	Frame     *previewFrame
	Trouble   string // why it can't be shown with this data
}

type templateName struct {
	Name      string
	Languages []string
}

// dataKinds are the sorts of data that a template is tried with.
var dataKinds = [...]string{"realistic", "long", "missing", "right-to-left"}

func (p *Pages) mailTemplates(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	all := p.with.Templates()
	content := templatesPage{DataKinds: dataKinds[:]}
	for _, name := range all.Names() {
		content.Names = append(content.Names, templateName{name, all.Languages(name)})
	}
	content.Name, content.Lang, content.Data = chosenTemplate(all, r)
	content.Variables = all.Variables(content.Name, content.Lang)
	m := p.triedMessage(content.Name, content.Lang, content.Data)
	subject, text, _, err := all.Preview(&m)
	if err != nil {
		content.Trouble = err.Error()
	} else {
		query := url.Values{"language": {content.Lang}, "data": {content.Data}, "template": {content.Name}}
		content.Frame = newPreview(r, "/templates", "/templates/"+url.PathEscape(content.Name)+"/preview", query, subject, text)
	}
	return p.show(w, r, http.StatusOK, shell{Title: pageWord(langOfPage(r), "Templates") + " – deliverd", Page: "templates", Content: content})
}

// chosenTemplate is what the address asks for, the first of everything else.
func chosenTemplate(all *mail.Templates, r *http.Request) (name, lang, data string) {
	q := r.URL.Query()
	name, data = q.Get("template"), q.Get("data")
	if v := r.PathValue("template"); v != "" {
		name = v
	}
	if names := all.Names(); !slices.Contains(names, name) {
		name = names[0]
		if slices.Contains(names, "invite") {
			name = "invite"
		}
	}
	lang = q.Get("language")
	if langs := all.Languages(name); !slices.Contains(langs, lang) {
		lang = langs[0]
	}
	if !slices.Contains(dataKinds[:], data) {
		data = dataKinds[0]
	}
	return name, lang, data
}

func (p *Pages) templatePreview(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	all := p.with.Templates()
	if !slices.Contains(all.Names(), r.PathValue("template")) {
		return ErrNotFound
	}
	name, lang, data := chosenTemplate(all, r)
	m := p.triedMessage(name, lang, data)
	_, _, html, err := all.Preview(&m)
	if err != nil {
		return ErrNotFound
	}
	writePreview(w, r, html)
	return nil
}

// triedMessage is an invented message: real enough to be judged, long enough to break
// a line, empty enough to find what is missed, or written from right to left.
func (p *Pages) triedMessage(name, lang, data string) mail.Message {
	at := p.api.now().UTC().Truncate(time.Minute)
	m := mail.Message{
		ID: "msg_00000000-0000-7000-8000-000000000000", Ref: "7K3Q-9DXP", Kind: name, Template: name, Locale: lang, From: p.with.From,
		To: "kari.nordmann@nordlys.example", ToName: "Kari Nordmann", Tenant: "04711", TenantName: "Nordlys Oy",
		QueuedAt: at, ExpiresAt: at.Add(p.validFor(name)), Data: map[string]any{},
	}
	values := map[string]string{"inviter": "Lars Lindqvist", "device": "Pixel 10", "timezone": "Europe/Helsinki"}
	switch data {
	case "long":
		m.ToName = "Anna-Kaarina Hyväntahtoinen-Lähteenkorva"
		m.TenantName = "Kiinteistöosakeyhtiö Hämeenlinnan Keskusliikerakennuksen Pysäköintilaitos"
		m.To = "anna-kaarina.hyvantahtoinen-lahteenkorva@kiinteisto-oy-hameenlinnan-keskusliikerakennus.example"
		values["inviter"], values["device"] = "Maximiliane Freifrau von Hohenstaufen-Württemberg zu Sigmaringen", "Lenovo ThinkPad X1 Carbon Gen 14 (varaston yhteiskäyttöinen)"
	case "right-to-left":
		m.ToName, m.TenantName = "ليلى الحسيني", "شركة النور للتقنية"
		values["inviter"], values["device"] = "יעל כהן", "هاتف ليلى"
	case "missing":
		m.ToName, m.TenantName, m.Tenant = "", "", ""
	}
	for _, v := range p.with.Templates().Variables(name, lang) {
		if v.List || data == "missing" && !v.Required {
			continue
		}
		value, known := values[v.Name]
		if !known {
			value = strings.ReplaceAll(v.Name, "_", " ")
		}
		setPath(m.Data, v.Name, value)
	}
	return m
}

// validFor is how long mail of a template is usually valid.
func (p *Pages) validFor(name string) time.Duration {
	if k, ok := p.with.Kinds[name]; ok && k.ValidFor > 0 {
		return k.ValidFor
	}
	return 7 * 24 * time.Hour
}
