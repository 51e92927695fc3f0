package deliver

import (
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// The bounds of what is kept of a conversation: a record in the queue and an event in
// the log are to stay a page long, whatever a server says.
const (
	maxExchangeText = 200     // of a command, and of a reply
	maxTranscript   = 4 << 10 // of all together, as mail.Evidence says
	maxCapabilities = 1 << 10
)

// transcript is what was said on a connection about one message.
type transcript struct {
	exchanges []mail.Exchange
	size      int
}

// note writes down a command that was sent at began and what came of it.
func (t *transcript) note(command string, r reply, f *failure, began time.Time) {
	e := mail.Exchange{Command: presentable(command), Took: time.Since(began)}
	if f != nil && f.reply == nil {
		e.Error = clipText(plain(f.err))
	} else {
		e.Reply = clipText(r.said().String())
	}
	t.add(e)
}

func (t *transcript) add(e mail.Exchange) {
	// 60 bytes are the names of the fields.
	t.size += len(e.Command) + len(e.Reply) + len(e.Error) + 60
	if t.size > maxTranscript {
		return
	}
	if t.exchanges == nil {
		t.exchanges = make([]mail.Exchange, 0, 10)
	}
	t.exchanges = append(t.exchanges, e)
}

// clipText cuts a clean text between two characters.
func clipText(s string) string {
	if len(s) <= maxExchangeText {
		return s
	}
	return strings.ToValidUTF8(s[:maxExchangeText], "")
}

// presentable leaves out of a command what nobody may repeat: the token in our return
// path, which makes a bounce ours.
func presentable(command string) string {
	if address, ok := strings.CutPrefix(command, "MAIL FROM:<"); ok {
		if tag, rest, ok := strings.Cut(address, "+"); ok {
			if _, domain, ok := strings.Cut(rest, "@"); ok {
				command = "MAIL FROM:<" + tag + "+...@" + domain
			}
		}
	}
	return clipText(command)
}

// hidden is a command of AUTH without what it proves.
func hidden(command string) string {
	if mechanism, ok := strings.CutPrefix(command, "AUTH "); ok {
		mechanism, _, _ = strings.Cut(mechanism, " ")
		return "AUTH " + mechanism + " ..."
	}
	return "..."
}

// offered cleans the lines of an EHLO reply.
func offered(lines []string) []string {
	size := 0
	for i, line := range lines {
		lines[i] = clipText(cleanText(line))
		if size += len(lines[i]); size > maxCapabilities {
			return lines[:i]
		}
	}
	return lines
}
