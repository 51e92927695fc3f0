package bounces

import (
	"bytes"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// judge sets the reply and the verdict of a report from the diagnostic text of its
// notification and the lines of the human-readable text about it. What says most
// wins: a text that a rule knows, a code, vague words; of the same, what stands nearer
// to the server that refused. alone says that all of the text is about this recipient.
func (m *reading) judge(r *Report, diagnostic string, text []byte, alone bool) {
	if r.Action != ActionFailed && r.Action != ActionDelayed {
		return // nothing failed
	}
	final := r.Action == ActionFailed
	best := strengthNone
	take := func(s string, whole bool) (known bool) {
		if s == "" {
			return false
		}
		said := saidIn(s, r.Status, whole)
		said.Host = r.Host
		v, strength := classify(said, final)
		if whole && (strength < strengthText || v.Cause == mail.CauseRemoteError || v.Cause == mail.CausePolicy) {
			return false // words of the mail system's own, not of the server that refused
		}
		if said.Reply.Code == 0 && strength == strengthLeast {
			return false // "failure", "error": every bounce says that
		}
		if r.Reply == (mail.Reply{}) || strength > best && (said.Reply.Code != 0 || r.Reply.Code == 0) {
			r.Reply = said.Reply
		}
		if strength > best {
			best, r.Verdict = strength, v
		}
		return best == strengthText || said.Reply.Code != 0 && best > strengthLeast
	}
	lines := string(text[:min(len(text), 2*maxText)])
	known := take(diagnostic, false) || alone && take(transcriptReply(m.form.intro), false) || take(lines, false)
	if best < strengthCode && r.Status != (mail.EnhancedCode{}) {
		said := Said{Reply: mail.Reply{Enhanced: r.Status}, Host: r.Host}
		if v, strength := classify(said, final); strength > best {
			best, r.Verdict = strength, v
		}
	}
	if !known && best <= strengthLeast {
		known = take(lines, true)
	}
	if !known && alone && final && best == strengthNone {
		// All that there is: enough for a cause, hardly to suppress on.
		intro := string(m.form.intro[:min(len(m.form.intro), 2*maxText)])
		if findReply(intro) < 0 || !take(intro, false) {
			_ = take(intro, true) || take(string(m.subject), true)
			r.Verdict.Suppress = r.Verdict.Suppress && r.Verdict.sure
		}
	}
	if best == strengthNone && r.Verdict.Cause == "" {
		r.Verdict, _ = classify(Said{Host: r.Host}, final)
	}
	if r.Status == (mail.EnhancedCode{}) {
		r.Status = r.Reply.Enhanced
	}
	r.Verdict.settle(r, best)
}

// settle fits a verdict to what became of the message: only what failed for good may
// suppress, and what was only delayed is not hard.
func (v *Verdict) settle(r *Report, s strength) {
	if r.Action == ActionDelayed {
		v.Hard, v.Suppress, v.Retry = false, false, true
	}
	if r.Action == ActionFailed && !v.Hard && aboutAddress(v.Cause) && s == strengthText {
		// "450 User unknown" until the mail system gave up: it failed for good.
		v.Hard, v.Retry, v.Suppress = true, false, true
	}
	if r.Status[0] == 2 || codeAboutUs(r.Status) || codeAboutUs(r.Reply.Enhanced) {
		v.Suppress = false
	}
	if !v.Retry {
		v.RetryAfter = 0
	}
}

// saidIn finds the SMTP reply in a text, as mail systems quote one. Without one, or
// where whole asks for it, all of the text is taken for what was said.
func saidIn(s string, status mail.EnhancedCode, whole bool) Said {
	said := Said{Stage: stageIn(s)}
	// Postfix says where the reply was said, behind it.
	s, _, _ = strings.Cut(s, "(in reply to ")
	at := findReply(s)
	switch {
	case whole:
		said.Reply.Text = cleanText(s)
		if at >= 0 {
			said.Reply.Code, _, _ = cutCode(s[at:])
		}
	case at >= 0:
		said.Reply, _ = ParseReply(cutParagraph(s[at:]))
	default:
		said.Reply.Text = cleanText(cutParagraph(s))
	}
	e := said.Reply.Enhanced
	if (e == (mail.EnhancedCode{}) || e[1] == 0 && e[2] == 0) && effectiveCode(said.Reply, said.Reply.Text) == e &&
		(said.Reply.Code == 0 || said.Reply.Code/100 == status[0]) {
		said.Reply.Enhanced = status
	}
	return said
}

// transcriptReply returns the last reply of a transcript, which sendmail's bounces and
// others have above or below the recipient: a line that begins with "<<<".
func transcriptReply(text []byte) string {
	i := bytes.LastIndex(text, []byte("<<< "))
	if i < 0 || i > 0 && text[i-1] != '\n' && text[i-1] != ' ' {
		return ""
	}
	// The first of the replies in a row: the later ones only follow from it.
	for {
		before := bytes.LastIndexByte(text[:max(i-1, 0)], '\n') + 1
		if before >= i || !bytes.HasPrefix(bytes.TrimLeft(text[before:i], " "), []byte("<<< ")) {
			break
		}
		i = before
	}
	var out []byte
	for rest := text[i:]; len(rest) > 0 && len(out) < maxText; {
		var line []byte
		line, rest = cutLine(rest)
		line, ok := bytes.CutPrefix(bytes.TrimLeft(line, " "), []byte("<<< "))
		if !ok {
			break
		}
		out = append(append(out, line...), '\n')
	}
	return string(out)
}

// cutParagraph cuts s at its first empty line, and where a mail system says what it
// does next.
func cutParagraph(s string) string {
	b := []byte(s)
	rest := b
	for len(rest) > 0 {
		line, after := cutLine(rest)
		if len(bytes.TrimSpace(line)) == 0 && len(rest) < len(b) || hasPrefixFold(line, "giving up on ") || hasPrefixFold(line, "i'm not going to try again") || hasPrefixFold(line, "----- transcript") {
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

// stageIn finds where in the conversation a reply was said, in the words of Exim,
// Postfix, sendmail and others; "" where it was at RCPT or is not known.
func stageIn(s string) mail.Stage {
	b := []byte(s[:min(len(s), 2*maxText)])
	switch {
	case containsFold(b, "after mail from"), containsFold(b, "reply to mail from"), containsFold(b, "after pipelined mail from"):
		return mail.StageMail
	case containsFold(b, "after end of data"), containsFold(b, "reply to end of data"):
		return mail.StageDot
	}
	return ""
}
