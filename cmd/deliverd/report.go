package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/dnscheck"
)

// reportPrinter prints one domain's report as text: what is a sentence is broken to
// the terminal's width, what is to be copied stays on a line of its own.
type reportPrinter struct {
	ui    *ui
	story console.DomainStory
}

// report prints the answer, the one thing to do, and the blocks.
func (p *reportPrinter) report() {
	s := &p.story
	p.answer()
	p.block(&s.Receive)
	p.talks()
	if len(s.Past.Lines) > 0 {
		p.block(&s.Past)
	}
	p.block(&s.Filter)
	for _, product := range s.Ways {
		p.heading("  ", s.Say("domain.allow", "product", product.Product))
		for i := range product.Ways {
			p.way(&product.Ways[i])
		}
	}
	p.clients()
	p.block(&s.Ours)
	p.values("  ", s.Values)
	if len(s.Theirs.Findings) > 0 {
		s.Theirs.Lines = []string{s.Say("domain.theirs.note")}
		p.block(&s.Theirs)
	}
	fmt.Fprintf(p.ui.out, "\n%s\n", p.ui.dim(fmt.Sprintf("%s  %d ms, %d DNS questions", s.At.UTC().Format("2006-01-02 15:04:05Z"), s.TookMS, s.Queries)))
}

// answer is the first lines: whether mail arrives, what to do, and who does it.
func (p *reportPrinter) answer() {
	s := &p.story
	fmt.Fprintln(p.ui.out, p.ui.paint(verdictColor(s.Verdict), s.Summary))
	if s.Next != "" {
		p.sentence("", s.Next)
	}
	fmt.Fprintf(p.ui.out, "%s %s\n", p.ui.dim(s.Say("domain.who")+":"), s.WhoActsText)
}

func verdictColor(v dnscheck.Verdict) string {
	switch v {
	case dnscheck.Arrives:
		return "1;32"
	case dnscheck.Unknown:
		return "1;33"
	}
	return "1;31"
}

func (p *reportPrinter) block(b *console.DomainBlock) {
	p.heading("", b.Title)
	for _, line := range b.Lines {
		p.sentence("  ", line)
	}
	for i := range b.Findings {
		p.finding(&b.Findings[i])
	}
}

func (p *reportPrinter) heading(indent, title string) {
	fmt.Fprintf(p.ui.out, "\n%s%s\n", indent, p.ui.bold(title))
}

var stateColors = map[dnscheck.State]string{
	dnscheck.StateFail: "31", dnscheck.StateWarn: "33", dnscheck.StateUnknown: "35", dnscheck.StateInfo: "36", dnscheck.StateOK: "32",
}

func (p *reportPrinter) finding(f *console.ToldFinding) {
	fmt.Fprintf(p.ui.out, "  %s  %s\n", p.ui.paint(stateColors[f.State], fmt.Sprintf("%-7s", strings.ToUpper(string(f.State)))), p.ui.dim(f.Code))
	p.sentence("    ", f.Text)
	for _, e := range f.Evidence {
		fmt.Fprintf(p.ui.out, "    %s\n", p.ui.dim(e))
	}
	if f.Fix != "" {
		label := p.story.Say("domain.fix")
		if f.Record {
			label = p.story.Say("domain.publish")
		}
		if f.WhoActsText != "" {
			label += " (" + f.WhoActsText + ")"
		}
		fmt.Fprintf(p.ui.out, "    %s:\n      %s\n", label, f.Fix)
	}
	if f.RFC != "" {
		fmt.Fprintf(p.ui.out, "    %s\n", p.ui.dim(f.RFC))
	}
}

// allowlist prints the steps alone, to be sent to whoever takes them.
func (p *reportPrinter) allowlist() {
	s := &p.story
	if len(s.Ways) == 0 {
		fmt.Fprintln(p.ui.out, s.Summary)
		for _, line := range s.Filter.Lines {
			p.sentence("", line)
		}
		fmt.Fprintln(p.ui.err, "name a product to get its steps all the same: --allowlist PRODUCT, such as microsoft365 or mimecast")
		return
	}
	for i, product := range s.Ways {
		if i > 0 {
			fmt.Fprintln(p.ui.out)
		}
		fmt.Fprintln(p.ui.out, p.ui.bold(s.Say("domain.allow", "product", product.Product)))
		for i := range product.Ways {
			p.way(&product.Ways[i])
		}
	}
	if len(s.Values) == 0 {
		fmt.Fprintln(p.ui.err, "our own values are not configured: name the configuration that has [send] and [[dkim]] with -c to fill them in")
	}
}

// way prints one way to let us in. Steps are not broken, so that they can be pasted.
func (p *reportPrinter) way(w *console.Way) {
	s := &p.story
	mark := ""
	if w.Recommended {
		mark = " " + p.ui.paint("32", "("+s.Say("domain.way.recommended")+")")
	}
	fmt.Fprintf(p.ui.out, "\n  %s%s\n", p.ui.bold(w.Method), mark)
	for i, step := range w.Steps {
		p.hanging("    "+strconv.Itoa(i+1)+". ", step)
	}
	p.values("    ", w.Values)
	for _, note := range []struct{ label, text string }{
		{"domain.way.skips", w.Skips}, {"domain.way.applies", w.Applies}, {"domain.way.header", w.Header},
	} {
		if note.text != "" {
			p.hanging("    "+s.Say(note.label)+": ", note.text)
		}
	}
	for _, caveat := range w.Caveats {
		p.hanging("    ! ", caveat)
	}
	trust := s.Say("domain.way.may_differ")
	if w.Verified {
		trust = s.Say("domain.way.verified")
	}
	if w.Source != "" {
		trust = w.Source + " (" + trust + ")"
	}
	fmt.Fprintf(p.ui.out, "    %s\n", p.ui.dim(trust))
}

// values prints our values one a line, so that each can be copied.
func (p *reportPrinter) values(indent string, values []console.DomainValue) {
	width := 0
	for _, v := range values {
		width = max(width, utf8.RuneCountInString(v.Name))
	}
	for _, v := range values {
		name := v.Name
		for _, value := range v.Values {
			fmt.Fprintf(p.ui.out, "%s%s%s  %s\n", indent, p.ui.dim(name), strings.Repeat(" ", width-utf8.RuneCountInString(name)), value)
			name = ""
		}
	}
}

// talks prints the conversations with the exchangers, if there were any.
func (p *reportPrinter) talks() {
	for _, c := range p.story.SMTP {
		p.heading("  ", p.story.Say("domain.smtp", "host", c.Host, "address", c.Address))
		for _, line := range c.Lines {
			fmt.Fprintf(p.ui.out, "    %s\n", line)
		}
		if len(c.Lines) == 0 {
			fmt.Fprintf(p.ui.out, "    %s\n", c.Err)
		}
	}
}

func (p *reportPrinter) clients() {
	if len(p.story.Clients) == 0 {
		return
	}
	p.heading("  ", p.story.Say("domain.clients"))
	for _, c := range p.story.Clients {
		fmt.Fprintf(p.ui.out, "\n  %s\n", p.ui.bold(c.Name))
		for i, step := range c.Steps {
			p.hanging("    "+strconv.Itoa(i+1)+". ", step)
		}
		if c.Limits != "" {
			p.hanging("    ", c.Limits)
		}
	}
}

// sentence prints text indented.
func (p *reportPrinter) sentence(indent, text string) { p.hanging(indent, text) }

// hanging prints text after a mark, its other lines indented by the mark's width. It
// is broken on a terminal alone: elsewhere a line is what scripts and mails take.
func (p *reportPrinter) hanging(mark, text string) {
	width := p.width()
	left := utf8.RuneCountInString(mark)
	column := left
	fmt.Fprint(p.ui.out, mark)
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			fmt.Fprint(p.ui.out, "\n", strings.Repeat(" ", left))
			column = left
		default:
			fmt.Fprint(p.ui.out, " ")
			column++
		}
		fmt.Fprint(p.ui.out, word)
		column += n
	}
	fmt.Fprintln(p.ui.out)
}

// width is where lines are broken: at most 100 columns, which is as far as an eye
// follows; never but on a terminal.
func (p *reportPrinter) width() int {
	const never = 1 << 30
	f, ok := p.ui.out.(*os.File)
	if !ok {
		return never
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return never
	}
	return max(40, min(columns, 100))
}
