package console

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// DomainStory is a domain's report as people read it, on paper, on a page or in a
// terminal: the answer, the one thing to do and who does it, then three blocks.
type DomainStory struct {
	dnscheck.Report
	Lang        string
	WhoActsText string

	Receive DomainBlock // can they receive
	Past    DomainBlock // what happened to our mail there
	Filter  DomainBlock // what filters it; and how to allow us:
	Ways    []ProductWays
	Ours    DomainBlock   // our side
	Values  []DomainValue // what identifies our mail
	Theirs  DomainBlock   // about mail that they send; it doesn't hold ours back

	words words
}

// DomainBlock is one part of a DomainStory: what is to say in sentences, and what
// was found.
type DomainBlock struct {
	Title    string
	Lines    []string
	Findings []ToldFinding
}

// ToldFinding is a finding with its words.
type ToldFinding struct {
	dnscheck.Finding
	StateText   string
	WhoActsText string
	// Record says that Fix is a line of a zone file to be copied, not a sentence.
	Record bool
}

// ProductWays are the ways to let our mail in at one product, the best first.
type ProductWays struct {
	Product string
	Ways    []Way
}

// Way is one way to let our mail in.
type Way struct {
	dnscheck.Advice
	Values []DomainValue // those that the rule recognises us by
}

// DomainValue is a value of ours to be copied.
type DomainValue struct {
	Key    string // as in Advice.Values
	Name   string
	Values []string
}

// TellDomain tells a report. ours is our own side, nil where that is not known.
func TellDomain(r *dnscheck.Report, ours *dnscheck.Sender, t Telling) DomainStory {
	w := newWords(t.Lang, t.Now, t.Zone)
	s := DomainStory{Report: *r, Lang: w.lang, WhoActsText: w.say("who." + string(cmp.Or(r.WhoActs, dnscheck.Nobody))), words: w}
	s.Receive.Title, s.Filter.Title = w.say("domain.receive"), w.say("domain.filter")
	s.Ours.Title, s.Theirs.Title = w.say("domain.ours"), w.say("domain.theirs")
	for _, f := range r.Findings {
		block := &s.Receive
		switch {
		case f.Concerns == dnscheck.TheirMail && !f.Matters:
			block = &s.Theirs
		case f.Concerns != dnscheck.Receiving:
			block = &s.Ours
		}
		block.Findings = append(block.Findings, s.told(f))
	}
	s.Receive.Lines = s.receiving()
	s.Past = DomainBlock{Title: w.say("domain.history.title"), Lines: s.history()}
	s.Filter.Lines = s.filtering()
	s.Ways = s.ways()
	if r.Verdict == dnscheck.Undeliverable {
		s.Clients = nil // nothing gets as far as a person's mail program
	}
	s.Values = s.values(senderValues(ours))
	s.Ours.Lines = s.ourLines(ours)
	return s
}

// Say returns one of the story's phrases, in its language.
func (s *DomainStory) Say(name string, fill ...string) string { return s.words.say(name, fill...) }

// zoneLine is how a fix begins that is a record to publish.
var zoneLine = regexp.MustCompile(`^\S+\. IN [A-Z]+ `)

func (s *DomainStory) told(f dnscheck.Finding) ToldFinding {
	told := ToldFinding{Finding: f, StateText: s.Say("domain.state." + string(f.State)), Record: zoneLine.MatchString(f.Fix)}
	if f.WhoActs != "" && f.WhoActs != dnscheck.Nobody {
		told.WhoActsText = s.Say("who." + string(f.WhoActs))
	}
	return told
}

func (s *DomainStory) counted(phrase string, n int) string {
	form := "many"
	if n == 1 {
		form = "one"
	}
	return s.Say(phrase+"."+form, "n", strconv.Itoa(n), "domain", s.Domain)
}

// receiving says what the DNS tells of their receiving side.
func (s *DomainStory) receiving() []string {
	var lines []string
	if n, ok := number(s.Facts["mx.hosts"]); ok && n > 0 {
		lines = append(lines, s.counted("domain.exchangers", n))
	}
	if mode, ok := s.Facts["mtasts.mode"].(string); ok {
		lines = append(lines, s.Say("domain.mtasts", "mode", mode))
	}
	if !slices.ContainsFunc(s.Receive.Findings, func(f ToldFinding) bool { return f.State != dnscheck.StateInfo && f.State != dnscheck.StateOK }) {
		lines = append(lines, s.Say("domain.receive.well"))
	}
	return lines
}

// number reads a fact, which is a float64 once it was JSON.
func number(fact any) (int, bool) {
	switch n := fact.(type) {
	case int:
		return n, true
	case float64:
		return int(n), true
	}
	return 0, false
}

// history says what happened to our mail there.
func (s *DomainStory) history() []string {
	h := s.History
	if h == nil || h.Accepted+h.Delayed+h.Refused == 0 {
		return nil
	}
	since := h.Since.In(s.words.zone).Format(s.Say("domain.date"))
	lines := []string{s.Say("domain.history", "since", since, "accepted", strconv.Itoa(h.Accepted), "delayed", strconv.Itoa(h.Delayed), "refused", strconv.Itoa(h.Refused))}
	if h.Accepted > 0 {
		lines = append(lines, s.Say("domain.history.delay", "median", s.words.Took(millis(h.TypicalDelayMS)), "slow", s.words.Took(millis(h.SlowDelayMS))))
	}
	if len(h.TLS) > 0 {
		lines = append(lines, s.Say("domain.history.tls", "versions", tally(h.TLS)))
	}
	for _, cause := range byCount(h.Causes) {
		lines = append(lines, s.Say("domain.history.cause", "n", strconv.Itoa(h.Causes[cause]), "plain", s.explained(mail.Cause(cause))))
	}
	for _, reply := range h.LastReplies {
		lines = append(lines, s.Say("domain.history.reply", "reply", reply))
	}
	return lines
}

func (s *DomainStory) explained(cause mail.Cause) string {
	facts := bounces.Facts{Domain: s.Domain}
	if s.Provider != nil {
		facts.Provider = s.Provider.Name
	}
	return bounces.Explain(cause, s.Lang).Fill(facts).Plain
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// byCount lists the keys, the most frequent first.
func byCount(counts map[string]int) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
}

// tally is "TLS 1.3 (12), TLS 1.2 (1)".
func tally(counts map[string]int) string {
	var parts []string
	for _, name := range byCount(counts) {
		parts = append(parts, name+" ("+strconv.Itoa(counts[name])+")")
	}
	return strings.Join(parts, ", ")
}

// filtering says which product their mail goes through.
func (s *DomainStory) filtering() []string {
	var lines []string
	switch {
	case s.Provider != nil && s.Behind != nil:
		lines = append(lines, s.Say("domain.product.behind", "front", s.Provider.Name, "behind", s.Behind.Name))
	case s.Provider != nil:
		lines = append(lines, s.Say("domain.product.front", "front", s.Provider.Name))
	case s.Verdict == dnscheck.Undeliverable || s.Verdict == dnscheck.Unknown:
		return append(lines, s.Say("domain.product.unknown"))
	default:
		lines = append(lines, s.Say("domain.product.none"))
	}
	return append(lines, s.Say("domain.product.addons"))
}

// ways groups the advice by product.
func (s *DomainStory) ways() []ProductWays {
	names := map[string]string{}
	for _, p := range dnscheck.Products() {
		names[p.ID] = p.Name
	}
	var all []ProductWays
	for _, a := range s.Allowlist {
		name := cmp.Or(names[a.Product], a.Product)
		if len(all) == 0 || all[len(all)-1].Product != name {
			all = append(all, ProductWays{Product: name})
		}
		last := &all[len(all)-1]
		last.Ways = append(last.Ways, Way{Advice: a, Values: s.values(a.Values)})
	}
	return all
}

// valueOrder is the order in which our values are shown.
var valueOrder = [...]string{"from", "return_path", "dkim", "ip", "hello", "links"}

func (s *DomainStory) values(of map[string][]string) []DomainValue {
	var all []DomainValue
	for _, key := range valueOrder {
		if len(of[key]) > 0 {
			all = append(all, DomainValue{key, s.Say("domain.value." + key), of[key]})
		}
	}
	return all
}

func senderValues(u *dnscheck.Sender) map[string][]string {
	v := map[string][]string{}
	if u == nil {
		return v
	}
	for key, value := range map[string]string{"from": u.From, "return_path": u.ReturnPath, "hello": u.Hello} {
		if value != "" {
			v[key] = []string{value}
		}
	}
	for _, a := range u.Addresses {
		v["ip"] = append(v["ip"], a.String())
	}
	for _, k := range u.Keys {
		if !slices.Contains(v["dkim"], k.Domain) {
			v["dkim"] = append(v["dkim"], k.Domain)
		}
	}
	v["links"] = u.LinkHosts
	return v
}

func (s *DomainStory) ourLines(u *dnscheck.Sender) []string {
	switch {
	case len(s.Values) == 0:
		return []string{s.Say("domain.ours.unknown")}
	case len(s.Ours.Findings) > 0:
		return nil
	case len(u.Addresses) > 0 && len(u.Keys) > 0 && u.Hello != "" && u.ReturnPath != "" && u.From != "":
		return []string{s.Say("domain.ours.well")}
	}
	return []string{s.Say("domain.ours.partly")}
}
