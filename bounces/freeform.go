package bounces

import (
	"bytes"
)

// A bounce in free form is read by the role that addresses have in its lines: the
// recipient stands at the start of a line ("<a@b.example>:"), behind a reply code
// ("550 <a@b.example>... User unknown") or behind words that announce it ("could not
// be delivered to", "Recipient:"). What follows, up to the next recipient, is about
// it.

// failure is one recipient of a bounce in free form, and what the text says of it.
type failure struct {
	address []byte
	rank    int
	text    []byte // the lines about it
}

// The ranks of a mention.
const (
	rankNever = iota // a sender, a contact
	rankOther        // somewhere in a sentence
	rankTo           // "To:", "RCPT TO:"
	rankLead         // where recipients stand
)

// freeForm is what the human-readable text of a report says.
type freeForm struct {
	intro    []byte // the text before the original message
	original []byte // the original message, if it is part of the text
	failures []failure
}

const (
	maxFreeText = 16 << 10
	maxMentions = 200
)

// parseFreeForm reads the text of a report. Addresses in own are the senders of the
// original message: they are recipients only if there is no other.
func parseFreeForm(text []byte, own [][]byte) freeForm {
	var f freeForm
	f.intro, f.original = splitOriginal(text)
	s := mentionScanner{own: own, current: -1, indent: -1}
	s.scan(f.intro[:min(len(f.intro), maxFreeText)])
	f.failures = s.best()
	if len(f.failures) == 1 && onlyAddress(f.failures[0].text) {
		f.failures[0].text = f.intro // the reason stands above the address
	}
	return f
}

// onlyAddress reports whether the lines about a recipient say nothing but its address.
func onlyAddress(text []byte) bool {
	_, start, end := findAddress(text, 0)
	words := 0
	for _, b := range [...][]byte{text[:start], text[end:]} {
		for _, c := range b {
			if isLetter(c) || c >= 0x80 {
				words++
			}
		}
	}
	return words < 4
}

// mentionScanner reads a report's text line by line.
type mentionScanner struct {
	own      [][]byte
	all      []failure
	mentions int
	current  int // the failure that the lines are about, -1 for none
	before   []byte
	indent   int // of the first line that begins with a recipient, -1 before it
}

func (s *mentionScanner) scan(text []byte) {
	for len(text) > 0 {
		line, rest := cutLine(text)
		s.line(line, text[:len(text)-len(rest)])
		if len(bytes.TrimSpace(line)) > 0 {
			s.before = line
		}
		text = rest
	}
}

// line takes one line into the failure that it is about. whole is the line with its
// break, in the array of the whole text.
func (s *mentionScanner) line(line, whole []byte) {
	from := 0
	lead := -1
	for s.mentions < maxMentions {
		address, start, end := findAddress(line, from)
		if address == nil {
			break
		}
		s.mentions++
		from = end
		rank := s.rank(line, start, end)
		if rank == rankNever {
			continue
		}
		n := s.find(address)
		if (n < 0 || s.all[n].rank < rankLead) && s.indent >= 0 && !s.atIndent(line, start) {
			rank = min(rank, rankTo-1) // an address that a reply speaks of
		}
		if n < 0 {
			if len(s.all) == maxReports {
				continue
			}
			n = len(s.all)
			s.all = append(s.all, failure{address: address, rank: rank})
		} else {
			if rank > s.all[n].rank {
				s.all[n].rank, s.all[n].text = rank, nil // what stood before was a summary
			}
		}
		if rank == rankLead && s.indent < 0 && isLineStart(line, start) {
			s.indent = indentOf(line)
		}
		if rank >= rankTo && lead < 0 && (s.current < 0 || !s.isOwn(address)) {
			lead = n
		}
	}
	if lead >= 0 {
		s.current = lead
	}
	if s.current >= 0 {
		f := &s.all[s.current]
		switch {
		case f.text == nil:
			f.text = whole[:len(whole):cap(whole)]
		case len(f.text) < 4*maxText:
			f.text = adjoin(f.text, whole)
		}
	}
}

// atIndent reports whether an address begins its line, no further in than the first
// recipient did: mail systems list recipients in one manner and quote replies further
// in.
func (s *mentionScanner) atIndent(line []byte, start int) bool {
	return isLineStart(line, start) && indentOf(line) <= s.indent
}

func isLineStart(line []byte, start int) bool {
	return len(bytes.TrimRight(line[:start], leadMarks)) == 0
}

func indentOf(line []byte) int { return len(line) - len(bytes.TrimLeft(line, " \t")) }

// leadMarks are what may stand before an address that begins a line.
const leadMarks = " \t<\"'([:-=>|*#."

// adjoin returns a with b: the same array where b follows a, which is the rule.
func adjoin(a, b []byte) []byte {
	if cap(a) >= len(a)+len(b) && len(b) > 0 {
		if joined := a[:len(a)+len(b)]; &joined[len(a)] == &b[0] {
			return joined
		}
	}
	return append(a[:len(a):len(a)], b...)
}

func (s *mentionScanner) find(address []byte) int {
	for n := range s.all {
		if bytes.EqualFold(s.all[n].address, address) {
			return n
		}
	}
	return -1
}

// rank tells a mention's role by what stands before it.
func (s *mentionScanner) rank(line []byte, start, end int) int {
	before := bytes.TrimRight(line[:start], leadMarks)
	after := line[end:]
	if isSenderLabel(before) || len(after) > 0 && after[0] == '@' {
		return rankNever
	}
	if len(before) == 0 {
		if s.introducesSender() {
			return rankNever
		}
		return rankLead
	}
	if endsWithCode(before) || isRecipientLabel(before) {
		return rankLead
	}
	if hasSuffixFold(before, "to") && isWordEnd(before, 2) {
		return rankTo
	}
	return rankOther
}

// introducesSender reports whether the line before names what follows it as a
// sender ("A message sent by").
func (s *mentionScanner) introducesSender() bool {
	b := bytes.TrimRight(s.before, " \t:")
	return hasSuffixFold(b, " by") || hasSuffixFold(b, " from") || hasSuffixFold(b, "sender") || hasSuffixFold(b, " contact")
}

// isSenderLabel reports whether an address behind these words is no recipient.
func isSenderLabel(b []byte) bool {
	b = b[max(0, len(b)-40):]
	for _, w := range [...]string{"from", "sender", "by", "contact", "reply-to", "message-id", "return-path", "postmaster",
		"von", "de la part de", "envelope-from", "sent as", "e-mail to", "email to", "mail to:", "mailto", "please send mail to",
		"send mail to", "help", "cc", "errors-to", "message id", "id"} {
		if hasSuffixFold(b, w) && isWordEnd(b, len(w)) {
			return true
		}
	}
	return false
}

// isRecipientLabel reports whether words announce the recipient of a failed message.
func isRecipientLabel(b []byte) bool {
	b = bytes.TrimRight(b[max(0, len(b)-60):], " \t:")
	for _, w := range [...]string{"recipient", "recipients", "address", "user", "userid", "mailbox", "failed", "attempts", "addressee",
		"account", "rcpt", "unknown", "invalid", "final-recipient", "addresses", "destination", "size", "empfänger", "destinataire",
		"destinatario", "vastaanottaja", "mottagare", "modtager", "adresse", "addr", "emails", "for"} {
		if hasSuffixFold(b, w) && isWordEnd(b, len(w)) {
			return true
		}
	}
	if !hasSuffixFold(b, "to") || !isWordEnd(b, 2) {
		return false
	}
	for _, w := range [...]string{"deliver", "mail to", "message to", "sent to", "send to", "email to"} {
		if containsFold(b, w) {
			return true
		}
	}
	return false
}

// endsWithCode reports whether b ends with a reply code, alone on its line.
func endsWithCode(b []byte) bool {
	b = bytes.TrimSpace(b)
	if len(b) > 3 {
		// "550 5.1.1", "550-5.1.1"
		if i := bytes.LastIndexAny(b, " -"); i >= 3 {
			if _, rest, ok := cutEnhanced(string(b[i+1:])); ok && rest == "" {
				b = b[:i]
			}
		}
	}
	return len(b) == 3 && (b[0] == '4' || b[0] == '5') && isDigit(b[1]) && isDigit(b[2])
}

func hasSuffixFold(b []byte, s string) bool {
	return len(b) >= len(s) && hasPrefixFold(b[len(b)-len(s):], s)
}

// isWordEnd reports whether the last n bytes of b begin a word.
func isWordEnd(b []byte, n int) bool {
	return len(b) == n || !isLetter(b[len(b)-n-1])
}

// best returns the failures of the highest rank that are not our own addresses.
func (s *mentionScanner) best() []failure {
	top := rankNever
	for _, f := range s.all {
		if !s.isOwn(f.address) {
			top = max(top, f.rank)
		}
	}
	var found []failure
	for _, f := range s.all {
		if f.rank == top && !s.isOwn(f.address) || top == rankNever && f.rank == rankLead {
			found = append(found, f)
		}
	}
	return found
}

func (s *mentionScanner) isOwn(address []byte) bool {
	for _, o := range s.own {
		if bytes.EqualFold(o, address) {
			return true
		}
	}
	return false
}

// splitOriginal splits a text where the original message or its header begins.
func splitOriginal(text []byte) (intro, original []byte) {
	rest := text
	for len(rest) > 0 {
		line, after := cutLine(rest)
		if at := text[:len(text)-len(rest)]; isOriginalMark(line) || isHeaderStart(line, after) && len(bytes.TrimSpace(at)) > 0 {
			if isHeaderStart(line, after) {
				after = rest
			}
			return at, bytes.TrimLeft(after, "\r\n \t-=|")
		}
		rest = after
	}
	return text, nil
}

// isOriginalMark reports whether a line announces the original message.
func isOriginalMark(line []byte) bool {
	t := bytes.Trim(line, " \t-=|*#_>+.:")
	if len(t) < 8 || len(t) > 90 {
		return false
	}
	for _, mark := range [...]string{"original message", "unsent message follows", "message header", "message text follows", "returned message",
		"this is a copy of", "below this line is a copy", "a copy of the message", "a copy of your message", "the header of the original",
		"included is a copy", "below is a copy", "header of the original", "headers of the original", "original headers",
		"mensaje original", "mensagem original", "messaggio originale", "message d'origine", "message original", "ursprüngliche nachricht",
		"originalnachricht", "ursprunglig", "alkuperäinen viesti", "oorspronkelijk bericht", "copy of your message", "the first ",
		"your original message", "original mail", "undelivered message", "begin message", "full text of your message", "returned mail follows",
		"original letter", "returned message follows", "start of returned message", "text of your message", "copie de votre message"} {
		if hasPrefixFold(t, mark) {
			return mark != "the first " || containsFold(t, "original message") || containsFold(t, "lines of")
		}
	}
	return false
}

// isHeaderStart reports whether line begins the header of a message that is part of
// the text: a trace field or two fields in a row that only headers have.
func isHeaderStart(line, after []byte) bool {
	line = bytes.TrimPrefix(bytes.TrimPrefix(line, []byte(">")), []byte(" "))
	for _, name := range [...]string{"received:", "return-path:", "dkim-signature:", "delivered-to:", "x-received:", "mime-version:", "message-id:"} {
		if hasPrefixFold(line, name) {
			next, _ := cutLine(after)
			next = bytes.TrimPrefix(next, []byte(">"))
			return isFold(next) || fieldColon(bytes.TrimPrefix(next, []byte(" "))) > 0 || name == "received:"
		}
	}
	return false
}
