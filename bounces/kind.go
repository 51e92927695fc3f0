package bounces

import "bytes"

// kind decides what a mail is. What says so in its structure is believed first; free
// form is weighed.
func (m *reading) kind() Kind {
	m.weigh()
	switch {
	case m.feedback != nil:
		return m.feedbackKind()
	case m.receipt:
		return KindReport
	case m.status != nil || m.isStatusText():
		return m.statusKind()
	case m.isTransportReport():
		return KindReport
	case m.isComplaint():
		return KindComplaint
	case m.isAutoReply():
		return KindAutoReply
	case m.isBounce():
		if m.isDelay() {
			return KindDelay
		}
		return KindBounce
	}
	return KindNotABounce
}

// weigh finds the signs in the sender, the subject and the text.
func (m *reading) weigh() {
	subject := signsOf(m.subject)
	intro := m.form.intro
	body := signsOf(intro)
	if len(intro) > 1500 {
		body |= signsOf(intro[1500:])
	}
	const ofSubject = 1<<signBounceSubject | 1<<signAutoReply | 1<<signAutoReplyHint | 1<<signComplaint
	m.signs = subject&ofSubject | body&(1<<signBounceBody) | (subject|body)&(1<<signDelay)
	// The local part counts as much as the name: mailer-daemon@, postmaster@.
	from := signsOf(bytes.ReplaceAll(decodeHeaderText(m.header.get("from")), []byte("@"), []byte(" ")))
	m.daemon = from.has(signDaemon)
}

// nullSender reports whether the mail was sent from <>, as reports are (RFC 5321
// 4.5.5).
func (m *reading) nullSender() bool {
	v := m.header.get("return-path")
	return bytes.Equal(bytes.TrimSpace(v), []byte("<>"))
}

// feedbackKind tells a complaint from the other reports in the form of RFC 5965:
// failed authentication is for our postmaster (RFC 6591).
func (m *reading) feedbackKind() Kind {
	h, _ := parseHeader(bytes.TrimLeft(decodeTransfer(m.feedback.body, m.feedback.header.get("content-transfer-encoding")), "\r\n"))
	switch kind := h.get("feedback-type"); {
	case hasPrefixFold(kind, "auth-failure"), hasPrefixFold(kind, "dmarc"), hasPrefixFold(kind, "not-spam"), h.has("auth-failure"):
		return KindReport
	}
	return KindComplaint
}

// isStatusText reports whether the text has the fields of a delivery status
// notification.
func (m *reading) isStatusText() bool {
	for _, r := range m.dsn.recipients {
		if r.action != "" && (r.final != "" || r.original != "") {
			return true
		}
	}
	return false
}

// statusKind decides by the actions of a delivery status notification: one failure
// makes it a bounce.
func (m *reading) statusKind() Kind {
	delayed, fine, unknown := false, false, false
	for _, r := range m.dsn.recipients {
		switch Action(r.action) {
		case ActionFailed:
			return KindBounce
		case ActionDelayed:
			delayed = true
		case ActionDelivered, ActionRelayed, ActionExpanded:
			fine = true
		default:
			unknown = true
		}
	}
	switch {
	case delayed:
		return KindDelay
	case fine && !unknown:
		return KindReport
	case m.signs.has(signDelay) && !m.signs.has(signBounceSubject):
		return KindDelay
	}
	return KindBounce
}

// isTransportReport knows DMARC aggregate reports (RFC 7489 7.2.1.1) and TLS reports
// (RFC 8460 5.3).
func (m *reading) isTransportReport() bool {
	if containsFold(param(m.ctype, "report-type"), "tlsrpt") {
		return true
	}
	if hasPrefixFold(m.subject, "dmarc forensic report") || hasPrefixFold(m.subject, "dmarc failure report") {
		return true
	}
	if !hasPrefixFold(bytes.TrimSpace(m.subject), "report domain:") && !containsFold(m.subject, "report domain:") {
		return false
	}
	for i := range m.parts {
		p := &m.parts[i]
		if p.is("application/") || p.is("text/xml") {
			return true
		}
	}
	return containsFold(m.subject, "report-id:")
}

// isComplaint knows the complaints that have another form than RFC 5965.
func (m *reading) isComplaint() bool {
	return m.signs.has(signComplaint) && m.attached != nil || m.original.has("x-hmxmroriginalrecipient")
}

// isAutoReply knows what answers for a person: RFC 3834, and the older marks.
func (m *reading) isAutoReply() bool {
	if m.failed != nil || m.daemon && m.signs.has(signBounceSubject) {
		return false
	}
	for _, name := range [...]string{"x-autoreply", "x-autorespond", "x-autoresponse", "x-auto-reply", "x-auto-response", "x-autoreply-from", "x-vacation"} {
		if m.header.has(name) {
			return true
		}
	}
	if hasPrefixFold(m.header.get("precedence"), "auto") {
		return true
	}
	auto := m.header.get("auto-submitted")
	answers := m.header.has("in-reply-to") || m.header.has("references")
	switch {
	case hasPrefixFold(auto, "auto-replied"), hasPrefixFold(auto, "auto-notified"):
		return answers || !m.daemon || m.signs.has(signAutoReply)
	case hasPrefixFold(auto, "auto-generated"):
		return (m.signs.has(signAutoReply) || answers && (m.nullSender() || m.signs.has(signAutoReplyHint))) && !m.daemon
	}
	if m.daemon {
		return false
	}
	// Without a mark, it has to answer something, and not as people do ("Re: ...").
	return m.signs.has(signAutoReply) && (answers || m.nullSender()) && !m.isConversation() && !m.signs.has(signBounceSubject)
}

// isBounce weighs the signs of a bounce in free form: no single one is enough, and an
// answer of a person or mail of a list is none.
func (m *reading) isBounce() bool {
	if m.failed != nil {
		return true
	}
	original := m.attached != nil || m.form.original != nil
	quoted := findReply(string(m.form.intro[:min(len(m.form.intro), maxFreeText)])) >= 0
	subject := m.signs.has(signBounceSubject) || m.signs.has(signDelay)
	switch {
	case !subject && !original && !quoted:
		return false // mail systems also write of quotas and of themselves
	case !m.daemon && !m.nullSender() && !original && !quoted:
		return false // couriers and shops fail to deliver too
	}
	weight := 0
	for _, sign := range [...]struct {
		found bool
		worth int
	}{
		{m.daemon, 2}, {m.nullSender(), 1}, {subject, 2}, {m.signs.has(signBounceBody), 2}, {original, 1},
		{m.namesRecipient(), 1}, {!m.daemon && m.isConversation(), -3},
	} {
		if sign.found {
			weight += sign.worth
		}
	}
	return weight >= 5 || weight == 4 && m.daemon
}

// namesRecipient reports whether the text names a recipient where bounces do, and not
// the one whom the mail itself is for.
func (m *reading) namesRecipient() bool {
	to := m.header.get("to")
	for _, f := range m.form.failures {
		if f.rank == rankLead && !bytes.Contains(to, f.address) {
			return true
		}
	}
	return false
}

// isConversation reports whether the mail is part of an exchange between people, or
// was sent to many.
func (m *reading) isConversation() bool {
	s := bytes.TrimSpace(m.subject)
	return hasPrefixFold(s, "re:") || hasPrefixFold(s, "fwd:") || hasPrefixFold(s, "fw:") || hasPrefixFold(s, "aw:") || hasPrefixFold(s, "wg:") ||
		hasPrefixFold(s, "vs:") || hasPrefixFold(s, "sv:") || hasPrefixFold(s, "vl:") || m.header.has("list-unsubscribe") || m.header.has("list-id")
}

// isDelay tells a delay notice from a bounce.
func (m *reading) isDelay() bool { return m.signs.has(signDelay) }
