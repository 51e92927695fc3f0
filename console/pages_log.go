package console

import (
	"cmp"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// logView is the content of the page of the service log.
type logView struct {
	Rows        []logRow
	By, Act, On string
	Older       string // the address of the page that goes on; "" at the end
	Export      string // the query of the exports
	Acts        []string
}

// logRow is an entry, as people read it.
type logRow struct {
	LogEntry
	Words string
	Link  string // where what it is about is shown; "" for nowhere
}

// logActs are the entries of the log in words.
var logActs = map[string]string{
	"cancel": "cancelled a message", "resend": "sent again", "suppress": "blocked an address", "lift": "lifted a block",
	"pause": "paused", "resume": "resumed", "retry": "had tried now", "domain.share": "shared a domain report",
	"signin": "signed in", "signout": "signed out", "signin.refused": "was not let in", "login_link.new": "made a login link",
	"session.end": "ended sessions", "token.new": "made a token", "token.revoke": "revoked a token",
	"start": "deliverd started", "stop": "deliverd stopped",
	"maintenance.add": "planned maintenance", "maintenance.remove": "removed maintenance", "backup": "made a backup",
	"config.reload": "The configuration was read again", "key.made": "A new key seals secrets from now on",
	"dkim.active": "New DKIM keys sign", "dkim.old": "Former DKIM keys sign no more", "dkim.revoke": "Former DKIM keys can be revoked", "dkim.revoked": "Former DKIM keys are gone",
	"maintenance.begin": "Maintenance began", "maintenance.end": "Maintenance ended", "alarm.unaccounted": "What was accepted is not all accounted for",
	"store.well": "The store takes writes again", "store.restart": "The store was restarted",
	"store.trouble": "The store takes no writes", "log.gap": "Entries are missing",
}

// logActNames are those that the page offers to choose by, in their order.
var logActNames = []string{"cancel", "resend", "suppress", "lift", "pause", "resume", "retry", "maintenance", "signin", "signout", "token", "domain.share", "store"}

func (p *Pages) serviceLog(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q, err := logQueryOf(r)
	if err != nil {
		return err
	}
	q.mayRead = by.reads
	page, err := p.api.ServiceLog.page(r.Context(), q)
	if err != nil {
		return err
	}
	content := logView{By: q.by, Act: q.act, On: q.on, Acts: logActNames}
	for _, e := range page.Entries {
		content.Rows = append(content.Rows, logRow{e, pageWord(langOfPage(r), cmp.Or(logActs[e.Act], e.Act)), p.linkOf(e.On)})
	}
	query := url.Values{}
	for name, value := range map[string]string{"by": q.by, "act": q.act, "on": q.on} {
		if value != "" {
			query.Set(name, value)
		}
	}
	content.Export = query.Encode()
	if page.Next != 0 {
		query.Set("before", strconv.FormatUint(page.Next, 10))
		content.Older = "/log?" + query.Encode()
	}
	return p.show(w, r, http.StatusOK, shell{Title: pageWord(langOfPage(r), "Service log") + " – deliverd", Page: "log", Content: content})
}

// linkOf is where something that was acted on is shown.
func (p *Pages) linkOf(on string) string {
	if _, err := mail.ID(on).Bytes(); err == nil {
		return "/messages/" + on
	}
	if _, err := mail.ParseAddress(on); err == nil {
		return "/search?" + url.Values{"q": {on}}.Encode()
	}
	if domain, ok := strings.CutPrefix(on, "domain:"); ok && p.with.Domains != nil {
		return "/domains?" + url.Values{"domain": {domain}}.Encode()
	}
	return ""
}
