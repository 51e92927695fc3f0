package deliver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/deliverd/deliverd/mail"
)

// Bounds of what a server may say at once. RFC 5321 4.5.3.1.5 asks for 512 bytes a
// line; real ones reach 1 KiB. The longest honest EHLO reply seen has 30 lines.
const (
	maxReplyLine  = 2 << 10
	maxReplyLines = 512
	maxReplyBytes = 64 << 10
	maxReplyText  = 1 << 10 // of the text that is kept, as mail.Reply says
)

// reply is one SMTP reply as it was read, in full: its last line was ended by LF.
type reply struct {
	code  int
	lines string // the text of its lines, raw, joined with '\n'
}

// positive reports a 2xx. RFC 5321 4.3.2 lists few codes, but any 2xx means yes
// (4.2.1), and taking a 251 after the dot for an error would send a duplicate.
func (r reply) positive() bool { return r.code/100 == 2 }

// negative reports a 4xx or 5xx: a definite no to the command.
func (r reply) negative() bool { return r.code/100 == 4 || r.code/100 == 5 }

// errProtocol says that the server's bytes aren't SMTP, or answer a question that
// was not asked. Nothing more can be believed on that connection.
type errProtocol struct{ detail string }

func (e *errProtocol) Error() string { return "not SMTP: " + e.detail }

// errTruncated is the end of the connection before a reply was complete. A line
// that is not ended by LF is not a reply: "250 2.0.0 que" may have been the start
// of anything.
var errTruncated = errors.New("the connection was closed in the middle of a reply")

// replyReader reads replies with bounds. Whoever uses it sets the deadline of the
// connection for the whole reply before each call.
type replyReader struct {
	br   *bufio.Reader
	text []byte // scratch
}

func newReplyReader(r io.Reader) *replyReader {
	return &replyReader{br: bufio.NewReaderSize(r, 2*maxReplyLine)}
}

// buffered reports whether the server has said more than was read.
func (r *replyReader) buffered() bool { return r.br.Buffered() > 0 }

// read reads one reply. Its errors are an *errProtocol, errTruncated, io.EOF where
// the connection ended before the first byte, or the connection's own.
func (r *replyReader) read() (reply, error) {
	r.text = r.text[:0]
	var code, total int
	for n := 1; ; n++ {
		line, err := r.line(n > 1)
		if err != nil {
			return reply{}, err
		}
		total += len(line)
		if n > maxReplyLines || total > maxReplyBytes {
			return reply{}, &errProtocol{"a reply without end"}
		}
		c, more, text, ok := splitReplyLine(line)
		if !ok {
			return reply{}, &errProtocol{"got: " + cleanText(clip(line, 40))}
		}
		if n > 1 && c != code {
			return reply{}, &errProtocol{fmt.Sprintf("a reply with two codes, %d and %d", code, c)}
		}
		code = c
		if n > 1 {
			r.text = append(r.text, '\n')
		}
		r.text = append(r.text, text...)
		if !more {
			return reply{code: code, lines: string(r.text)}, nil
		}
	}
}

// line reads one line without its ending, CRLF or LF alone: servers with bare LF
// exist, and a reply must never be joined with the next one for it.
func (r *replyReader) line(within bool) ([]byte, error) {
	line, err := r.br.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxReplyLine:
		return nil, &errProtocol{"a line of more than 2 KiB"}
	case err == io.EOF && (within || len(line) > 0):
		return nil, errTruncated
	case err != nil:
		// A part of a line before a timeout is no reply either.
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// splitReplyLine takes one line apart: "250-text", "250 text", or "250" alone,
// which RFC 5321 4.2 asks clients to take.
func splitReplyLine(line []byte) (code int, more bool, text []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	switch {
	case len(line) == 3:
		return code, false, nil, true
	case line[3] == ' ':
		return code, false, line[4:], true
	case line[3] == '-':
		return code, true, line[4:], true
	}
	return 0, false, nil, false
}

// said turns a reply into the vocabulary: the enhanced code apart (without it on
// the lines that repeat it), the text clean.
func (r reply) said() mail.Reply {
	out := mail.Reply{Code: r.code}
	var text strings.Builder
	for line := range strings.SplitSeq(r.lines, "\n") {
		// The basic code decides (FAULTS A21): an enhanced one of another class, or of
		// no known form, stays text.
		if e, rest, ok := cutEnhanced(line); ok && e[0] == r.code/100 &&
			(out.Enhanced == mail.EnhancedCode{} || out.Enhanced == e) {
			out.Enhanced, line = e, rest
		}
		if line = strings.TrimSpace(line); line == "" || text.Len() > maxReplyText {
			continue
		}
		if text.Len() > 0 {
			text.WriteByte(' ')
		}
		text.WriteString(line)
	}
	out.Text = cleanText(text.String())
	return out
}

// cutEnhanced cuts "5.1.1" or, as IronPort writes it, "#5.1.1" from the start of a
// line.
func cutEnhanced(line string) (mail.EnhancedCode, string, bool) {
	word, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
	e, ok := mail.ParseEnhancedCode(strings.TrimPrefix(word, "#"))
	return e, rest, ok
}

// cleanText makes foreign text fit to be kept, logged and shown: valid UTF-8 on one
// line, at most maxReplyText bytes, with whatever could move a cursor, reorder or
// hide text written as \xNN (FAULTS A20).
func cleanText(s string) string {
	if len(s) <= maxReplyText && strings.IndexFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+n]
		i += n
		switch {
		case c == '\t' || c == '\n':
			piece = " "
		case c == utf8.RuneError && n <= 1, !unicode.IsGraphic(c):
			piece = escapeBytes(piece)
		}
		if b.Len()+len(piece) > maxReplyText {
			break // without a mark: scrubbing looks for a secret that the end cuts off
		}
		b.WriteString(piece)
	}
	return b.String()
}

func escapeBytes(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteString(`\x`)
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

func clip(b []byte, n int) string {
	if len(b) > n {
		b = b[:n]
	}
	return string(b)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
