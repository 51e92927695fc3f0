package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/deliverd/deliverd/mail"
)

// longNames is a message to somebody whose name and address try a narrow screen.
func longNames() *mail.Message {
	m := invite(4)
	m.PersonID, m.ToName = "usr_4", "Anna-Kaarina Hyväntahtoinen-Lähteenkorva"
	m.To = "anna-kaarina.hyvantahtoinen-lahteenkorva@kiinteisto-oy-hameenlinnan-keskusliikerakennus.example"
	m.TenantName = "Kiinteistöosakeyhtiö Hämeenlinnan Keskusliikerakennuksen Pysäköintilaitos"
	return m
}

// browserSite is a site with something on every page, and domain reports.
func browserSite(t *testing.T) *site {
	t.Helper()
	d := newDomainSite(t)
	s := d.site
	m := longNames()
	refused := mail.NewEvent(m, mail.StateRefused, 1, m.QueuedAt.Add(3*time.Second))
	refused.Cause, refused.Suppress = mail.CauseBadMailbox, true
	refused.Evidence = microsoft(monday, time.Second, mail.StageRcpt, mail.Reply{
		Code: 550, Enhanced: mail.EnhancedCode{5, 1, 10}, Text: "RESOLVER.ADR.RecipientNotFound;https://go.microsoft.example/fwlink/averylongpathwithoutanyplacetobreakitatall/TR-1234567890",
	})
	s.log.add(mail.NewEvent(m, mail.StateQueued, 0, m.QueuedAt), refused)
	s.backend.queue = Queue{
		Waiting: 3, Delayed: 1, Expiring: 1, Oldest: monday,
		Pauses: []Pause{{Selector: "domain:kiinteisto-oy-hameenlinnan-keskusliikerakennus.example", By: "Sanna", Reason: "their server is being moved", Since: monday}},
	}
	s.backend.live = Live{Attempt: 2, NextAttempt: monday.Add(11 * time.Minute), Schedule: []time.Time{monday.Add(11 * time.Minute), monday.Add(20 * time.Minute), monday.Add(time.Hour)}}
	s.backend.stops = []mail.Suppression{{
		Tenant: m.Tenant, Address: m.To, Cause: mail.CauseBadMailbox, Since: monday, By: "deliverd", Message: m.ID, Reply: refused.Evidence.Reply.String(),
	}}
	s.api.ServiceLog.Append(t.Context(), LogEntry{Act: "cancel", By: "Anna", Tenant: m.Tenant, On: string(m.ID), Reason: "Invited the wrong person"})
	parts := s.parts(caughtMails())
	parts.Domains = d.domains
	pages, err := NewPages(s.api, parts)
	if err != nil {
		t.Fatal(err)
	}
	s.auth.Open = true
	s.server.Close()
	routes := append(append(s.api.Routes(), pages.Routes()...), d.domains.Routes()...)
	s.server = httptest.NewServer(Handler(s.auth, s.api.logger(), routes...))
	t.Cleanup(s.server.CloseClientConnections)
	if !s.api.fresh(t.Context()) {
		t.Fatal("the view is behind")
	}
	return s
}

// everyPage is one address of each page.
func everyPage() map[string]string {
	m := longNames()
	return map[string]string{
		"start": "/", "search": "/search?q=kari", "nobody": "/search?q=nobody@example.com", "person": "/people/" + PersonKey(m.Tenant, m.PersonID, m.To),
		"message": "/messages/" + string(m.ID), "open": "/messages/" + string(invite(1).ID), "text": "/messages/" + string(m.ID) + "?as=text",
		"phone": "/messages/" + string(m.ID) + "?as=phone", "resend": "/messages/" + string(m.ID) + "/resend",
		"delays": "/delays", "plan": "/delays?act=plan", "pause": "/delays?act=pause&selector=domain:nordlys.example", "domain": "/domains?domain=nordlys.example", "domains": "/domains",
		"suppressed": "/suppressed", "lift": "/suppressed/lift?tenant=" + m.Tenant + "&address=" + string(m.To),
		"templates": "/templates?data=long", "log": "/log", "health": "/health", "caught": "/caught", "mail": "/caught/1",
		"status": "/status", "problem": "/messages/nonsense", "finnish": "/messages/" + string(m.ID) + "?lang=fi", "conversation": "/messages/" + string(invite(2).ID), "plan-fi": "/delays?act=plan&lang=fi",
	}
}

// axeFile is where `make axe` puts the checker of accessibility.
var axeFile = filepath.Join("..", ".axe", "node_modules", "axe-core", "axe.min.js")

// Every page: nothing that the policy forbids, nothing that runs out of the screen, no
// violation that axe finds of WCAG 2.2 AA, in light and dark; and a picture of each,
// as an artefact of the test.
func TestBrowserPages(t *testing.T) {
	axe, err := os.ReadFile(axeFile)
	if err != nil {
		required(t, "axe-core", "make axe installs it")
	}
	s := browserSite(t)
	b := newTab(t, browser(t), s.server.URL)
	for name, path := range everyPage() {
		for _, look := range []struct {
			width  int64
			scheme string
		}{{1280, "light"}, {1280, "dark"}, {390, "light"}, {390, "dark"}} {
			where := fmt.Sprintf("%s-%d-%s", name, look.width, look.scheme)
			b.look(look.width, look.scheme)
			b.open(path)
			b.calm(where)
			if wide := script[int64](b, "document.documentElement.scrollWidth"); wide > look.width {
				t.Errorf("%s: %d pixels wide", where, wide)
			}
			b.picture(where)
			b.check(where, string(axe))
		}
	}
}

// check runs axe on the page.
func (b *tab) check(where, axe string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Run(b.ctx, chromedp.Evaluate[json.RawMessage]("void (() => {"+axe+"})()"))
		return err
	}))
	found := script[[]struct {
		ID, Help string
		Nodes    []struct {
			HTML           string
			FailureSummary string
		}
	}](b, `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], iframes: false}).then((r) => r.violations)`)
	for _, v := range found {
		for _, n := range v.Nodes {
			b.t.Errorf("%s: %s (%s): %s\n%s", where, v.ID, v.Help, n.HTML, n.FailureSummary)
		}
	}
}

// A day's work with the keyboard alone.
func TestBrowserKeyboard(t *testing.T) {
	s := browserSite(t)
	b := newTab(t, browser(t), s.server.URL)
	b.look(1280, "light")
	b.open("/")
	b.keys("/")
	b.until(`document.activeElement.id === "q"`)
	b.keys("anna-kaarina" + kb.Enter)
	b.until(`location.pathname === "/search" && document.readyState === "complete"`)
	b.keys("j")
	b.until(`document.activeElement.matches("[data-item]")`)
	b.keys(kb.Enter)
	b.until(`location.pathname.startsWith("/people/") && document.readyState === "complete"`)
	if say := script[string](b, `document.querySelector(".say").textContent`); !strings.HasPrefix(say, "Refused at") {
		t.Errorf("the verdict is %q", say)
	}
	script[bool](b, `(window.copied = "", navigator.clipboard.writeText = async (text) => { window.copied = text; }, true)`)
	script[bool](b, `(document.getElementById("reply-en").value = "Dear Anna-Kaarina,", true)`)
	b.keys("c")
	b.until(`window.copied === "Dear Anna-Kaarina,"`)
	b.until(`[...document.querySelectorAll(".reply [role=status]")].some((e) => e.textContent === "Copied")`)
	b.keys("?")
	b.until(`document.getElementById("keys").open`)
	b.keys(kb.Escape)
	b.until(`!document.getElementById("keys").open`)
	// What is behind the dialog can be focused again once that was drawn.
	script[bool](b, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`)
	b.keys("j")
	b.until(`document.activeElement.matches("[data-item]")`)
	first := script[string](b, `document.activeElement.outerHTML`)
	b.keys("jk")
	b.until(`document.activeElement.outerHTML === ` + jsonText(first))
	b.keys("r")
	b.until(`location.pathname.endsWith("/resend") && document.readyState === "complete"`)
	b.calm("the keyboard's way")
}

// Results come while somebody types: the focus and what was typed stay, the number is
// announced, and the address says what is shown.
func TestBrowserSearchWhileTyping(t *testing.T) {
	s := browserSite(t)
	b := newTab(t, browser(t), s.server.URL)
	b.look(1280, "light")
	b.open("/")
	b.keys("/")
	b.until(`document.activeElement.id === "q"`)
	b.keys("anna-kaarina")
	b.until(`document.querySelectorAll(".person-card").length === 1 && document.querySelector("#content > h1").textContent.includes("anna-kaarina")`)
	b.until(`location.pathname + location.search === "/search?q=anna-kaarina"`)
	b.until(`[...document.querySelectorAll("[role=status]")].some((e) => e.textContent.startsWith("One person"))`)
	if !script[bool](b, `document.activeElement.id === "q" && document.activeElement.value === "anna-kaarina" && document.querySelectorAll("main").length === 1`) {
		t.Error("the focus or what was typed is gone")
	}
	b.picture("search-while-typing")
	// A reference leads to its message when it was typed whole and sent, and not before.
	b.open("/search?q=x")
	script[bool](b, `(document.getElementById("q").focus(), document.getElementById("q").select(), true)`)
	b.keys(string(invite(2).Ref))
	b.until(`location.search === "?q=` + string(invite(2).Ref) + `"`)
	b.keys(kb.Enter)
	b.until(`location.pathname === "/messages/` + string(invite(2).ID) + `"`)
	b.calm("a search")
}

// keys types, each key as one event, so that the page may take it.
func (b *tab) keys(text string) {
	b.t.Helper()
	for _, r := range text {
		key := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: string(r), Text: string(r)}
		switch string(r) {
		case kb.Enter:
			key.Key, key.Code, key.WindowsVirtualKeyCode = "Enter", "Enter", 13
		case kb.Escape:
			key.Key, key.Code, key.WindowsVirtualKeyCode, key.Text = "Escape", "Escape", 27, ""
		}
		up := key
		up.Type, up.Text = input.DispatchKeyEventTypeKeyUp, ""
		b.do(command(input.DispatchKeyEvent, key), command(input.DispatchKeyEvent, up))
	}
}

// New facts come by themselves where they disturb nobody, wait while somebody points
// at what would move, and stay away while the page is paused.
func TestBrowserLive(t *testing.T) {
	s := browserSite(t)
	b := newTab(t, browser(t), s.server.URL)
	b.look(1280, "light")
	b.open("/messages/" + string(invite(1).ID))
	story := `document.querySelectorAll("#live .line > li").length`
	before := script[int](b, story)
	b.connected()

	next := func(attempt int) {
		m := invite(1)
		e := mail.NewEvent(m, mail.StateDelayed, attempt, m.QueuedAt.Add(time.Duration(attempt)*time.Minute))
		e.Cause = mail.CauseGreylisted
		s.log.add(e)
	}
	next(2)
	b.until(fmt.Sprintf("%s === %d", story, before+1))
	b.until(`[...document.querySelectorAll("[role=status]")].some((e) => e.textContent.startsWith("1 new fact"))`)

	b.point(".say")
	next(3)
	b.until(`!document.getElementById("news").hidden`)
	if got := script[int](b, story); got != before+1 {
		t.Errorf("the page moved under the pointer: %d lines, want %d", got, before+1)
	}
	b.keys("n")
	b.until(fmt.Sprintf("%s === %d && document.getElementById('news').hidden", story, before+2))

	b.do(chromedp.Click("[data-do=pause]"))
	b.until(`document.querySelector("[data-do=pause]").getAttribute("aria-pressed") === "true"`)
	next(4)
	if !s.api.fresh(t.Context()) {
		t.Fatal("the view is behind")
	}
	if got := script[int](b, story); got != before+2 || !script[bool](b, `document.getElementById("news").hidden`) {
		t.Errorf("a paused page shows %d lines", got)
	}
	b.do(chromedp.Click("[data-do=pause]"))
	b.until(fmt.Sprintf(`%s === %d || !document.getElementById("news").hidden`, story, before+3))
	b.calm("a live page")
}

// connected waits until the page's feed is open.
func (b *tab) connected() {
	b.t.Helper()
	b.until(`performance.getEntriesByType("resource").length >= 0 && !document.querySelector("[data-live]").hidden && !document.querySelector("[data-live]").classList.contains("lost")`)
}

// point moves the pointer onto an element.
func (b *tab) point(selector string) {
	b.t.Helper()
	at := script[[2]float64](b, fmt.Sprintf(`(() => { const r = document.querySelector(%q).getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`, selector))
	b.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at[0], at[1]))
}

// All of it works without a script: a search, a person, a mail, and an act with its
// reason.
func TestBrowserWithoutScript(t *testing.T) {
	s := browserSite(t)
	b := newTab(t, browser(t), s.server.URL)
	b.look(1280, "light")
	b.do(command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}))
	b.open("/search?q=anna-kaarina")
	b.do(chromedp.SendKeys(".person-card", kb.Enter), chromedp.WaitVisible(".say"))
	b.do(chromedp.SendKeys(".verdict .button", kb.Enter), chromedp.WaitVisible("form.form #reason"))
	b.open("/suppressed/lift?tenant=" + longNames().Tenant + "&address=" + string(longNames().To))
	b.do(chromedp.SendKeys("#reason", "The mailbox is there now"+kb.Enter), chromedp.WaitVisible(".done"))
	m := longNames()
	if got, want := s.backend.noted(), "lift "+m.Tenant+" "+string(m.To)+" dev The mailbox is there now"; len(got) != 1 || got[0] != want {
		t.Errorf("acts %q, want %q", got, want)
	}
	b.picture("lifted-without-script")
}
