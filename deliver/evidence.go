package deliver

import (
	"regexp"
	"strings"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
)

// maxTries bounds the tries that are kept, as mail.Evidence says.
const maxTries = 10

// evidence is what the tries saw, told from the one that had the last word.
func (t *tries) evidence(f *failure) mail.Evidence {
	word := f.try()
	e := mail.Evidence{
		Provider: t.plan.Provider, Host: word.Host, IP: word.IP, Stage: word.Stage, Reply: word.Reply,
		Error: word.Error, TLS: f.tls, Reused: f.reused, Bytes: t.bytes, Capabilities: f.offers, Conversation: f.said,
	}
	for _, g := range t.failed {
		if g != f && len(e.Tries) < maxTries {
			e.Tries = append(e.Tries, g.try())
		}
	}
	return e
}

// handedOver is the evidence of an accept.
func (t *tries) handedOver(c *conn, said mail.Reply, reused bool) mail.Evidence {
	e := mail.Evidence{
		Provider: t.plan.Provider, Host: c.target.host, IP: c.target.addr.Addr().String(), Stage: mail.StageDot,
		Reply: &said, QueueID: queueID(said.Text), TLS: c.tls, Reused: reused, Bytes: t.bytes,
		Capabilities: c.caps.lines, Conversation: c.said.exchanges,
	}
	if e.Provider == "" {
		e.Provider = c.providerBy(said)
	}
	for _, g := range t.failed[:min(len(t.failed), maxTries)] {
		e.Tries = append(e.Tries, g.try())
	}
	return e
}

// providerBy is the provider that the server's words give away. The first few replies
// of a connection tell.
func (c *conn) providerBy(said mail.Reply) string {
	if c.provider == "" && c.carried < 3 {
		c.provider = bounces.Classify(bounces.Said{Reply: said, Stage: mail.StageDot, Host: c.target.host}).Provider
	}
	return c.provider
}

// scrub blanks whatever of the message's secrets a server put into its words:
// content filters answer with the link that they didn't like.
func scrub(o *mail.Outcome, m *mail.Message) {
	e := &o.Evidence
	clean := m.Scrubber()
	o.Local = scrubText(o.Local, clean)
	e.Error = scrubText(e.Error, clean)
	e.QueueID = scrubText(e.QueueID, clean)
	e.Reply = scrubReply(e.Reply, clean)
	for i := range e.Tries {
		e.Tries[i].Error = scrubText(e.Tries[i].Error, clean)
		e.Tries[i].Reply = scrubReply(e.Tries[i].Reply, clean)
	}
	for i := range e.Conversation {
		x := &e.Conversation[i]
		x.Reply, x.Error = scrubText(x.Reply, clean), scrubText(x.Error, clean)
	}
	if e.TLS != nil && e.TLS.Problem != "" {
		ours := *e.TLS // the other one is the connection's
		ours.Problem = scrubText(ours.Problem, clean)
		e.TLS = &ours
	}
}

func scrubReply(r *mail.Reply, clean func(string) string) *mail.Reply {
	if r == nil {
		return nil
	}
	return &mail.Reply{Code: r.Code, Enhanced: r.Enhanced, Text: scrubText(r.Text, clean)}
}

// scrubText also finds a secret that the lines of a reply cut in two, by looking
// again without the blanks that joined them; there is no telling then which of the
// words are its parts.
func scrubText(s string, clean func(string) string) string {
	if s == "" {
		return ""
	}
	scrubbed := clean(s)
	if !strings.Contains(s, " ") {
		return scrubbed
	}
	joined := clean(strings.ReplaceAll(s, " ", ""))
	if strings.Count(joined, mail.Blank) > strings.Count(scrubbed, mail.Blank) {
		return mail.Blank
	}
	return scrubbed
}

// The ways in which servers name what they took, so that their administrator can
// search for it. Each is from a reply to a final dot as the server's source or its
// public behaviour has it.
var queueIDs = []*regexp.Regexp{
	regexp.MustCompile(`queued as ([0-9A-Za-z._-]{4,64})`),               // Postfix: "Ok: queued as 4VNkGp2Zwz9s"
	regexp.MustCompile(`\bid=([0-9A-Za-z-]{6,64})`),                      // Exim: "OK id=1rZq3X-0004Jd-1x"
	regexp.MustCompile(`<([^<>@\s]{1,80}@[^<>@\s]{1,80})> \[InternalId`), // Exchange: "<id@host> [InternalId=123, Hostname=…] Queued mail"
	regexp.MustCompile(`InternalId=([0-9]{4,30})`),
	regexp.MustCompile(`\b([0-9a-f]+-[0-9a-f]+si[0-9]+[a-z]+\.[0-9]+) - gsmtp`), // Google: "OK  1700000000 a1-2…si123ejc.45 - gsmtp"
	regexp.MustCompile(`^([0-9A-Za-z]{8,20}) Message accepted for delivery`),    // Sendmail, OpenSMTPD
	regexp.MustCompile(`(?i)\bqueued (?:mail )?(?:for delivery )?(?:with id |\()?([0-9A-Za-z-]{8,64})\b`),
	regexp.MustCompile(`(?i)^ok:? +(?:message )?([0-9A-Za-z._-]{8,64})$`),
}

// queueID finds the name under which the next server keeps the message, "" if its
// reply has none that we know how to find.
func queueID(text string) string {
	for _, re := range queueIDs {
		if m := re.FindStringSubmatch(text); m != nil {
			return m[1]
		}
	}
	return ""
}
