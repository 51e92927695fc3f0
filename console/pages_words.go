package console

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
)

//go:embed lang/pages/*.json
var pageLangFiles embed.FS

// loadPageWords reads the words of pages in the languages that they are not written
// in: from the English that stands in the templates to what stands there instead. A
// test compares them with the templates.
var loadPageWords = sync.OnceValue(func() map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, lang := range languages[1:] {
		b, err := pageLangFiles.ReadFile("lang/pages/" + lang + ".json")
		if err != nil {
			panic(err)
		}
		said := map[string]string{}
		if err := json.Unmarshal(b, &said); err != nil {
			panic(fmt.Errorf("lang/pages/%s.json: %w", lang, err))
		}
		all[lang] = said
	}
	return all
})

// pageWord returns an English text of a page in a language, its placeholders filled:
// name, value, name, value …
func pageWord(lang, english string, fill ...any) string {
	text := english
	if there, ok := loadPageWords()[lang][english]; ok {
		text = there
	}
	if len(fill) == 0 {
		return text
	}
	pairs := make([]string, 0, len(fill))
	for i := 0; i+1 < len(fill); i += 2 {
		pairs = append(pairs, "{"+fmt.Sprint(fill[i])+"}", fmt.Sprint(fill[i+1]))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// functions are what the templates of one language call.
func (p *Pages) functions(lang string) template.FuncMap {
	return template.FuncMap{
		"t":        func(english string, fill ...any) string { return pageWord(lang, english, fill...) },
		"sentence": func(english string) string { return pageSentence(lang, english) },
		"asset": func(name string) string {
			return "/" + name + "?v=" + p.assets[name].hash
		},
		"provider": bounces.ProviderName,
		"stateWord": func(s mail.State) string {
			return pageWord(lang, stateWords[s])
		},
		"tlsPolicy": func(policy mail.TLSPolicy) string {
			if w, ok := tlsPolicyWords[policy]; ok {
				return pageWord(lang, w)
			}
			return string(policy)
		},
		"pair": func(a, b any) pair { return pair{a, b} },
		"add":  func(a, b int) int { return a + b },
	}
}

// pair hands two values to a template's part.
type pair struct{ A, B any }

// stateWords are the states on pages: short, and never "delivered" (law 8).
var stateWords = map[mail.State]string{
	mail.StateQueued: "waiting", mail.StateSending: "under way", mail.StateDelayed: "delayed",
	mail.StateAccepted: "handed over", mail.StateRefused: "refused", mail.StateExpired: "expired",
	mail.StateSuperseded: "superseded", mail.StateCancelled: "cancelled", mail.StateSuppressed: "not sent",
	mail.StateReturned: "came back", mail.StateComplained: "complained", StateUnknown: "not known",
	mail.EventAtRisk: "at risk", mail.EventResent: "sent again", mail.EventLifted: "block lifted", mail.EventUsed: "used",
	mail.EventExpiredUnused: "not used", mail.EventWrongPerson: "wrong person",
}

// tlsPolicyWords say who decided how a connection had to be protected.
var tlsPolicyWords = map[mail.TLSPolicy]string{
	mail.TLSByDANE: "by their signed DNS (DANE)", mail.TLSBySTS: "by their MTA-STS policy", mail.TLSByUnusable: "by their signed DNS (DANE), encryption only",
	mail.TLSByRequire: "by our rule for this kind of mail (REQUIRETLS)", mail.TLSByKind: "by our rule for this kind of mail", mail.TLSByRelay: "by our configuration of the relay",
	mail.TLSTesting: "their MTA-STS policy, which is only being tested", mail.TLSOpportunistic: "nobody asks for any: TLS where it is offered",
}

// languageCookie holds the language that somebody chose for the pages.
const languageCookie = "deliverd_lang"

// langOfPage is the language of a page: the one that its address names, else the one
// that was chosen, else the browser's.
func langOfPage(r *http.Request) string {
	if asked := r.URL.Query().Get("lang"); asked != "" {
		return language(asked)
	}
	if c, err := r.Cookie(languageCookie); err == nil {
		return language(c.Value)
	}
	first, _, _ := strings.Cut(r.Header.Get("Accept-Language"), ",")
	return language(first)
}

// setLanguage remembers the language that was chosen and goes back to the page.
func (p *Pages) setLanguage(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	http.SetCookie(w, &http.Cookie{
		Name: languageCookie, Value: language(r.PostFormValue("lang")), Path: "/",
		MaxAge: 365 * 24 * 60 * 60, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	http.Redirect(w, r, ownPath(r.PostFormValue("back")), http.StatusSeeOther)
}

// acts are what was done, as the address after it says it.
var acts = map[string]string{
	"pause":              "Paused. What waits there stays safe, and nothing of it is sent until it is resumed.",
	"resume":             "Resumed. What is due is tried now.",
	"retry":              "What waits there is tried now.",
	"maintenance.add":    "Planned. Mail of these kinds waits while it is on, and is sent afterwards.",
	"maintenance.remove": "Removed. What it held back is sent now.",
	"lift":               "Lifted. Mail to this address is sent again from now on.",
	"resend":             "Sent again. The new message is the one below.",
}

func saidInWords(lang, act string) string {
	if acts[act] == "" {
		return ""
	}
	return pageWord(lang, acts[act])
}

// When is a time as pages show it: how long ago, and exactly.
type When struct {
	Machine string // for the datetime attribute
	Clock   string
	Ago     string
}

// When tells a time; nil for none.
func (w words) When(t time.Time) *When {
	if t.IsZero() {
		return nil
	}
	return &When{t.UTC().Format(time.RFC3339), w.clock(t), w.ago(t)}
}

// Clock returns a time of day in the page's zone, with the date when it is another
// day.
func (w words) Clock(t time.Time) string { return w.clock(t) }

// Ago returns a time as seen from now.
func (w words) Ago(t time.Time) string { return w.ago(t) }

// Zone names the zone of the times.
func (w words) Zone() string { return w.zone.String() }

// Took returns how long something took, with two digits of a short time.
func (w words) Took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return w.span(d)
}

// Span returns how long something lasts, in words.
func (w words) Span(d time.Duration) string { return w.span(d) }

// Kind returns a kind's name in words.
func (w words) Kind(kind string) string { return (&narrator{words: w}).kind(kind) }

// Machine returns a time for the datetime attribute.
func (w words) Machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Who returns who acts, in words.
func (w words) Who(who mail.Actor) string { return w.say("who." + string(who)) }
