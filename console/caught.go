package console

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"time"
	"unicode/utf8"
)

// CaughtMail is one mail that the catching server took, when deliverd is tried out:
// that server stands for every recipient's, so this is what they would have got.
type CaughtMail struct {
	Number   int // 1 for the first
	At       time.Time
	From, To string // the envelope
	Hello    string // the name that the client gave itself
	TLS      string // "TLS 1.3", "" in clear
	Raw      []byte
}

// Caught is where caught mail is kept.
type Caught interface {
	// Mails returns what is kept, the newest first.
	Mails() []CaughtMail
	Mail(number int) (CaughtMail, bool)
}

// The bounds of reading a caught mail. Our own have two parts, but the door is open
// to anyone's on this machine.
const (
	maxMailHeader = 64 << 10
	maxMailParts  = 50
	maxMailDepth  = 5
	maxMailText   = 1 << 20
)

// readMail is a caught mail, read for showing.
type readMail struct {
	CaughtMail
	Subject string
	Sender  string // the From header
	Ref     string // X-Deliverd-Ref
	Header  string // as it came
	Text    string
	HTML    string
}

// read takes a mail apart as far as it can be: what can't be read stays empty, and
// the raw mail shows it.
func read(m CaughtMail) readMail {
	r := readMail{CaughtMail: m}
	header, body, _ := bytes.Cut(m.Raw, []byte("\r\n\r\n"))
	r.Header = toText(header[:min(len(header), maxMailHeader)])
	if len(header) > maxMailHeader {
		return r
	}
	parsed, err := mail.ReadMessage(io.MultiReader(bytes.NewReader(header), strings.NewReader("\r\n\r\n")))
	if err != nil {
		return r
	}
	r.Subject = decodeWords(parsed.Header.Get("Subject"))
	r.Sender = decodeWords(parsed.Header.Get("From"))
	r.Ref = parsed.Header.Get("X-Deliverd-Ref")
	p := partReader{mail: &r, left: maxMailParts}
	p.part(parsed.Header.Get("Content-Type"), parsed.Header.Get("Content-Transfer-Encoding"), bytes.NewReader(body), 0)
	return r
}

// subject reads no more than the header.
func subject(m CaughtMail) string {
	header, _, _ := bytes.Cut(m.Raw, []byte("\r\n\r\n"))
	return read(CaughtMail{Raw: append(bytes.Clone(header), "\r\n\r\n"...)}).Subject
}

// partReader walks the parts of a mail and keeps the first text of each sort.
type partReader struct {
	mail *readMail
	left int
}

func (p *partReader) part(contentType, encoding string, body io.Reader, depth int) {
	if p.left--; p.left < 0 || depth > maxMailDepth {
		return
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = "text/plain" // RFC 2045 5.2
	}
	if strings.HasPrefix(media, "multipart/") {
		parts := multipart.NewReader(body, params["boundary"])
		for p.left > 0 {
			inner, err := parts.NextRawPart()
			if err != nil {
				return
			}
			p.part(inner.Header.Get("Content-Type"), inner.Header.Get("Content-Transfer-Encoding"), inner, depth+1)
		}
		return
	}
	var into *string
	switch {
	case media == "text/plain":
		into = &p.mail.Text
	case media == "text/html":
		into = &p.mail.HTML
	}
	if into == nil || *into != "" {
		return
	}
	b, _ := io.ReadAll(io.LimitReader(decoded(encoding, body), maxMailText)) // what came before an error is shown
	*into = toText(b)
}

func decoded(encoding string, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	}
	return body
}

func decodeWords(s string) string {
	if d, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		return d
	}
	return s
}

// toText makes valid UTF-8 of bytes that should be.
func toText(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
