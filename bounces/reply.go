package bounces

import (
	"strings"
	"unicode/utf8"

	"github.com/deliverd/deliverd/mail"
)

// maxText is the most of a reply's text that is kept or looked at. RFC 5321
// 4.5.3.1.5 allows 512 octets a line; the longest texts seen, multi-line ones with
// links and translations, are near 1 KiB.
const maxText = 1024

// ParseReply reads a reply as people paste it from logs and bounces: one line or
// several ("550-5.1.1 a\r\n550 5.1.1 b"), the enhanced code with or without "#",
// or alone ("5.1.1", "550"). Text is joined with spaces, made valid UTF-8 without
// control characters and cut to 1 KiB. It returns false where s has neither a reply
// code from 200 to 599 nor an enhanced code at its start; the Reply then has all of
// s as its text.
func ParseReply(s string) (mail.Reply, bool) {
	var r mail.Reply
	var text strings.Builder
	for line := range strings.Lines(s) {
		if text.Len() > maxText {
			break
		}
		line = strings.TrimSpace(line)
		code, enhanced, rest := splitReplyLine(line, r.Code)
		if r.Code == 0 {
			r.Code = code
		}
		if r.Enhanced == (mail.EnhancedCode{}) {
			r.Enhanced = enhanced
		}
		if rest == "" {
			continue
		}
		if text.Len() > 0 {
			text.WriteByte(' ')
		}
		text.WriteString(rest)
	}
	r.Text = cleanText(text.String())
	if r.Code == 0 && r.Enhanced != (mail.EnhancedCode{}) {
		// A bare enhanced code: the class is the first digit of a basic code, RFC 3463 2.
		r.Code = r.Enhanced[0] * 100
		if r.Code >= 400 {
			r.Code += 50
		}
	}
	return r, r.Code != 0
}

// splitReplyLine splits one line of a reply. want is the code of the lines before
// it, 0 if none: a line of another code is text.
func splitReplyLine(line string, want int) (code int, enhanced mail.EnhancedCode, rest string) {
	rest = line
	if c, after, ok := cutCode(rest); ok && (want == 0 || c == want) {
		code, rest = c, after
	}
	if e, after, ok := cutEnhanced(rest); ok && (code == 0 || e[0] == code/100) {
		enhanced, rest = e, after
	} else if ok && code != 0 && e[0] != code/100 {
		// FAULTS A21: the basic code decides and a contradicting enhanced code is dropped.
		rest = after
	}
	return code, enhanced, rest
}

// cutCode cuts "550 ", "550-" or a final "550" from the start of s.
func cutCode(s string) (code int, rest string, ok bool) {
	if len(s) < 3 || s[0] < '2' || s[0] > '5' || !isDigit(s[1]) || !isDigit(s[2]) {
		return 0, s, false
	}
	if len(s) > 3 && s[3] != ' ' && s[3] != '-' && s[3] != '\t' && s[3] != ':' {
		return 0, s, false
	}
	code = int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
	return code, strings.TrimLeft(s[3:], " -\t:"), true
}

// cutEnhanced cuts "5.1.1 ", "#5.1.1", "(#5.1.1)", "[5.1.1]" or "5.1.1:" from the
// start of s.
func cutEnhanced(s string) (e mail.EnhancedCode, rest string, ok bool) {
	t := strings.TrimLeft(s, "(#[")
	end := 0
	for end < len(t) && end < len("5.999.999")+1 && (isDigit(t[end]) || t[end] == '.') {
		end++
	}
	code := strings.TrimSuffix(t[:end], ".")
	e, ok = mail.ParseEnhancedCode(code)
	if !ok || end < len(t) && (isLetter(t[end]) || t[end] >= utf8.RuneSelf) {
		return mail.EnhancedCode{}, s, false
	}
	return e, strings.TrimLeft(t[end:], ")]:- \t"), true
}

// cleanText makes s valid UTF-8 on one line without control characters, at most
// maxText bytes.
func cleanText(s string) string {
	var b strings.Builder
	space := false
	for _, c := range s {
		if b.Len() >= maxText {
			break
		}
		switch {
		case c <= ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0x2028 || c == 0x2029:
			space = b.Len() > 0
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(c)
	}
	t := b.String()
	for len(t) > maxText {
		_, n := utf8.DecodeLastRuneInString(t)
		t = t[:len(t)-n]
	}
	return t
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
