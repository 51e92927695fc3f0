package bounces

import (
	"bytes"

	"github.com/deliverd/deliverd/mail"
)

// judge sets the reply and the verdict of a report from the diagnostic text of its
// notification and the lines of the human-readable text about it. What says most
// wins, in that order: a text that a rule knows, a code, vague words. alone says that
// all of the text is about this recipient.
func (m *reading) judge(r *Report, diagnostic string, text []byte, alone bool) {
	final := r.Action == ActionFailed
	best := strengthNone
	take := func(s string, whole bool) {
		if s == "" || best == strengthText {
			return
		}
		said := saidIn(s, r.Status, whole)
		said.Host = r.Host
		v, strength := classify(said, final)
		if r.Reply == (mail.Reply{}) || strength > best {
			if said.Reply.Code != 0 || r.Reply.Code == 0 {
				r.Reply = said.Reply
			}
		}
		if strength > best {
			best, r.Verdict = strength, v
		}
	}
	take(diagnostic, false)
	lines := string(text[:min(len(text), 2*maxText)])
	take(lines, false)
	take(lines, true)
	if best == strengthNone && alone {
		take(string(m.form.intro[:min(len(m.form.intro), 2*maxText)]), true)
		take(string(m.subject), true)
	}
	if best == strengthNone {
		said := Said{Reply: mail.Reply{Enhanced: r.Status, Text: r.Reply.Text}, Host: r.Host}
		r.Verdict, _ = classify(said, final)
	}
	if r.Status == (mail.EnhancedCode{}) {
		r.Status = r.Reply.Enhanced
	}
	r.Verdict.settle(r)
}

// settle fits a verdict to what became of the message: only what failed for good may
// suppress, and what was only delayed is not hard.
func (v *Verdict) settle(r *Report) {
	switch r.Action {
	case ActionFailed:
		if r.Status[0] == 4 && r.Reply.Code < 500 || r.Status[0] == 2 {
			v.Suppress = false
		}
		if codeAboutUs(r.Status) {
			v.Suppress = false
		}
	default:
		v.Hard, v.Suppress, v.Retry = false, false, r.Action == ActionDelayed
	}
	if !v.Retry {
		v.RetryAfter = 0
	}
}

// saidIn finds the SMTP reply in a text, as mail systems quote one. Without one, or
// where whole asks for it, all of the text is taken for what was said.
func saidIn(s string, status mail.EnhancedCode, whole bool) Said {
	var said Said
	if at := findReply(s); at >= 0 && !whole {
		said.Reply, _ = ParseReply(cutParagraph(s[at:]))
	} else {
		said.Reply = mail.Reply{Text: cleanText(s)}
		if at >= 0 {
			code, _, _ := cutCode(s[at:])
			said.Reply.Code = code
		}
	}
	e := said.Reply.Enhanced
	if (e == (mail.EnhancedCode{}) || e[1] == 0 && e[2] == 0) && effectiveCode(said.Reply, said.Reply.Text) == e &&
		(said.Reply.Code == 0 || said.Reply.Code/100 == status[0]) {
		said.Reply.Enhanced = status
	}
	return said
}

// cutParagraph cuts s at its first empty line.
func cutParagraph(s string) string {
	b := []byte(s)
	rest := b
	for len(rest) > 0 {
		line, after := cutLine(rest)
		if len(bytes.TrimSpace(line)) == 0 {
			return s[:len(s)-len(rest)]
		}
		rest = after
	}
	return s
}

// findReply returns where an SMTP reply begins in s, -1 if none does: a code of a
// refusal at the start of a line or behind a word that announces one, or anywhere with
// an enhanced code behind it.
func findReply(s string) int {
	lineStart := true
	found := -1
	for i := 0; i+3 <= len(s); i++ {
		c := s[i]
		if c == '\n' {
			lineStart = true
			continue
		}
		if (c == '4' || c == '5') && isDigit(s[i+1]) && isDigit(s[i+2]) && s[i+1] <= '9' && (i == 0 || startsReply(s[i-1])) {
			if _, rest, ok := cutCode(s[i:]); ok {
				_, _, enhanced := cutEnhanced(rest)
				if enhanced {
					return i
				}
				if found < 0 && (lineStart || announcesReply(s[max(0, i-24):i])) {
					found = i
				}
			}
		}
		if c != ' ' && c != '\t' && c != '<' && c != '>' && c != '\r' && c != '-' {
			lineStart = false
		}
	}
	return found
}

func startsReply(c byte) bool {
	switch c {
	case ' ', '\t', '\n', ':', '<', '(', '[', '"', '\'', ';', ',', '>', '-', '#', '=':
		return true
	}
	return false
}

// announcesReply reports whether the words before a number announce an SMTP reply.
func announcesReply(s string) bool {
	b := []byte(s)
	for _, w := range [...]string{"said", "reply", "replied", "respon", "error", "reason", "smtp", "code", ": ", ":\"", "returned", "answer", "... "} {
		if containsFold(b, w) {
			return true
		}
	}
	return false
}
