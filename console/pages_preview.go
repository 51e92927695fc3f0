package console

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// previewFrame is a mail as it looks to its reader, in a frame of its own.
type previewFrame struct {
	As      string // desktop, phone, dark or text
	Subject string
	Text    string
	Source  string // what the frame shows
	Looks   []previewLook
}

// previewLook is one way to look at a mail, and the address of the page that does.
type previewLook struct{ As, Link string }

// previewLooks are the ways to look at a mail, the first one unless asked otherwise.
var previewLooks = [...]string{"desktop", "phone", "dark", "text"}

// newPreview returns the frame of a page at the address page, which shows what source
// answers; query is what both addresses say beside the look.
func newPreview(r *http.Request, page, source string, query url.Values, subject, text string) *previewFrame {
	f := &previewFrame{As: previewAs(r), Subject: subject, Text: text}
	at := func(path, as string) string {
		q := maps.Clone(query)
		if q == nil {
			q = url.Values{}
		}
		q.Set("as", as)
		return path + "?" + q.Encode()
	}
	f.Source = at(source, f.As)
	for _, as := range previewLooks {
		f.Looks = append(f.Looks, previewLook{as, at(page, as) + "#preview"})
	}
	return f
}

func previewAs(r *http.Request) string {
	for _, as := range previewLooks {
		if as == r.URL.Query().Get("as") {
			return as
		}
	}
	return previewLooks[0]
}

// previewPolicy: the mail's own inline style and nothing else; nothing in it runs,
// loads or leads anywhere (FAULTS G06, G07).
const previewPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// darkQuery is how the mails' style asks whether the reader's screen is dark.
const darkQuery = "(prefers-color-scheme: dark)"

// writePreview answers with a mail's HTML by itself, for a frame. Whether it is dark
// is what was asked for, and not the looker's own screen.
func writePreview(w http.ResponseWriter, r *http.Request, html string) {
	scheme, media := "light", "not all"
	if previewAs(r) == "dark" {
		scheme, media = "dark", "all"
	}
	html = strings.ReplaceAll(html, darkQuery, media)
	html = strings.ReplaceAll(html, "color-scheme: light dark", "color-scheme: "+scheme)
	html = strings.ReplaceAll(html, `content="light dark"`, `content="`+scheme+`"`)
	h := w.Header()
	h.Set("Content-Security-Policy", previewPolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(html))
}
