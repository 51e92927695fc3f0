package mail

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Render returns m as RFC 5322 bytes with CRLF line ends, ready to be signed: two
// alternatives, text and HTML, in quoted-printable, 7-bit throughout, every line within
// 998 octets and nearly all within 78. The same message gives the same bytes, as long
// as the templates are the same. Data has to be there.
//
// A mail that goes along ([Request.Attached]) makes them the first part of two.
//
// Auto-Submitted (RFC 3834 5) and X-Auto-Response-Suppress (Exchange) keep vacation
// notices away, but never a bounce. There is no List-Unsubscribe, no picture and nothing
// that reports an opening: this is mail that a person asked for.
func (t *Templates) Render(m *Message) ([]byte, error) {
	said, err := t.say(m)
	if err != nil {
		return nil, fmt.Errorf("template %s.%s: %w", m.Template, m.Locale, withoutValues(err))
	}
	id, err := m.ID.Bytes()
	if err != nil {
		return nil, err
	}
	name, from, err := ParseMailbox(m.From)
	if err != nil {
		return nil, err
	}
	attached, err := m.attached()
	if err != nil {
		return nil, err
	}
	// "=_" can't occur in quoted-printable (RFC 2045 6.7), so the boundary in no part of
	// ours; nor in a mail that goes along, which was there before the id was drawn.
	boundary := "=_" + hex.EncodeToString(id[:])
	mixed := "=_m" + hex.EncodeToString(id[:])

	b := make([]byte, 0, 2048+len(said.text)*5/4+len(said.html)*5/4+len(attached)*7/5)
	b = appendHeader(b, "Date", m.QueuedAt.UTC().Format(time.RFC1123Z))
	b = appendMailbox(b, "From", name, from)
	b = appendMailbox(b, "To", m.ToName, m.To)
	if m.ReplyTo != "" {
		replyName, replyTo, err := ParseMailbox(m.ReplyTo)
		if err != nil {
			return nil, err
		}
		b = appendMailbox(b, "Reply-To", replyName, replyTo)
	}
	b = appendHeader(b, "Message-ID", "<"+string(m.ID)+"@"+from.Domain()+">")
	b = appendText(b, "Subject", said.subject)
	b = appendHeader(b, "Content-Language", said.lang)
	b = appendHeader(b, "Auto-Submitted", "auto-generated")
	b = appendHeader(b, "X-Auto-Response-Suppress", "DR, RN, NRN, OOF, AutoReply")
	b = appendHeader(b, "X-Deliverd-Ref", string(m.Ref))
	b = appendHeader(b, "MIME-Version", "1.0")
	if attached != nil {
		b = appendHeader(b, "Content-Type", "multipart/mixed;\r\n boundary=\""+mixed+"\"")
		b = append(b, crlf+"--"+mixed+crlf...)
	}
	b = appendHeader(b, "Content-Type", "multipart/alternative;\r\n boundary=\""+boundary+"\"")
	b = append(b, crlf...)
	b = appendPart(b, boundary, "text/plain", said.text)
	b = appendPart(b, boundary, "text/html", said.html)
	b = append(b, "--"+boundary+"--\r\n"...)
	if attached != nil {
		b = appendAttached(b, mixed, attached)
	}
	return b, nil
}

const crlf = "\r\n"

func appendPart(b []byte, boundary, mediaType, text string) []byte {
	b = append(b, "--"+boundary+crlf...)
	b = appendHeader(b, "Content-Type", mediaType+"; charset=utf-8")
	b = appendHeader(b, "Content-Transfer-Encoding", "quoted-printable")
	b = append(b, crlf...)
	b = appendQuotedPrintable(b, text)
	return append(b, crlf...) // belongs to the delimiter that follows (RFC 2046 5.1.1)
}

// Preview returns what Render would send, with every secret blanked, for people to look
// at.
func (t *Templates) Preview(m *Message) (subject, text, html string, err error) {
	shown := *m
	shown.Data = m.PublicData()
	said, err := t.say(&shown)
	if err != nil {
		return "", "", "", fmt.Errorf("template %s.%s: %w", m.Template, m.Locale, withoutValues(err))
	}
	return said.subject, said.text, said.html, nil
}

// withoutValues replaces an error of the template packages, which may quote the data,
// by one that may be logged.
func withoutValues(err error) error {
	if err == nil {
		return nil
	}
	for _, ours := range []error{errPartLong, errSubjectLong, errNoSubject, errUnsafe, errZone} {
		if errors.Is(err, ours) {
			return ours
		}
	}
	return errShape
}

var errShape = errors.New("the data has another shape than the template expects")
