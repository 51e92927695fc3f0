package bounces

import (
	"bytes"
	"encoding/base64"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
)

// maxDecoded is how much of a part is decoded: a report's human-readable text and its
// fields are a few KiB; what is longer is the original message.
const maxDecoded = 64 << 10

// text returns the part's body decoded to UTF-8, at most maxDecoded bytes of it. HTML
// is turned into text.
func (p *part) text() []byte {
	b := decodeTransfer(p.body, p.header.get("content-transfer-encoding"))
	if len(b) > maxDecoded {
		b = b[:maxDecoded]
	}
	b = decodeCharset(b, param(p.ctype, "charset"))
	if p.is("text/html") || p.ctype == nil && looksLikeHTML(b) {
		b = htmlText(b)
	}
	return b
}

// decodeTransfer undoes a Content-Transfer-Encoding, tolerantly. It reads no more of
// the body than maxDecoded bytes of text need.
func decodeTransfer(b, encoding []byte) []byte {
	switch {
	case hasPrefixFold(encoding, "quoted-printable"):
		return decodeQuotedPrintable(b[:min(len(b), 3*maxDecoded)])
	case hasPrefixFold(encoding, "base64"):
		return decodeBase64(b[:min(len(b), 2*maxDecoded)])
	}
	return b[:min(len(b), maxDecoded)]
}

// decodeQuotedPrintable decodes RFC 2045 6.7; what is not an encoding stays.
func decodeQuotedPrintable(b []byte) []byte {
	if bytes.IndexByte(b, '=') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != '=' {
			out = append(out, c)
			continue
		}
		if i+2 < len(b) {
			hi, lo := unhex(b[i+1]), unhex(b[i+2])
			if hi >= 0 && lo >= 0 {
				out = append(out, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		// A soft line break, with spaces that were added on the way.
		j := i + 1
		for j < len(b) && (b[j] == ' ' || b[j] == '\t' || b[j] == '\r') {
			j++
		}
		if j == len(b) || b[j] == '\n' {
			i = j
			continue
		}
		out = append(out, c)
	}
	return out
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// decodeBase64 decodes base64 text up to its padding, skipping what is no base64.
func decodeBase64(b []byte) []byte {
	clean := make([]byte, 0, len(b))
	for _, c := range b {
		if isLetter(c) || isDigit(c) || c == '+' || c == '/' {
			clean = append(clean, c)
		} else if c == '=' {
			break
		}
	}
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	n, _ := base64.RawStdEncoding.Decode(clean, clean) // in place: it is never longer
	return clean[:n]
}

// decodeCharset turns b into UTF-8. A charset that is unknown or missing is taken for
// UTF-8, or for ISO-2022-JP where its escape sequences occur, or for Windows-1252.
func decodeCharset(b, charset []byte) []byte {
	if bytes.Contains(b, []byte("\x1b$")) {
		return decodeWith("iso-2022-jp", b)
	}
	if isASCII(b) {
		return b
	}
	if len(charset) > 0 && len(charset) <= 40 && !equalFold(charset, "utf-8") && !equalFold(charset, "us-ascii") {
		if out := decodeWith(string(charset), b); out != nil {
			return out
		}
	}
	if utf8.Valid(b) {
		return b
	}
	if equalFold(charset, "utf-8") {
		return bytes.ToValidUTF8(b, []byte("\ufffd"))
	}
	return decodeWith("windows-1252", b)
}

// decodeWith decodes b, and returns nil for an unknown charset.
func decodeWith(charset string, b []byte) []byte {
	e, err := htmlindex.Get(charset)
	if err != nil || e == encoding.Replacement {
		return nil
	}
	out, err := e.NewDecoder().Bytes(b)
	if err != nil {
		return nil
	}
	return out
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// decodeHeaderText decodes the encoded words of an unstructured field (RFC 2047) and
// unfolds it, at most 1 KiB of it.
func decodeHeaderText(v []byte) []byte {
	v = v[:min(len(v), 1024)]
	if bytes.IndexByte(v, '\n') < 0 && !bytes.Contains(v, []byte("=?")) {
		return decodeCharset(v, nil)
	}
	out := make([]byte, 0, len(v))
	afterWord := false
	for len(v) > 0 {
		charset, kind, text, rest, ok := cutEncodedWord(v)
		if !ok {
			i := 1
			for i < len(v) && v[i] != '=' {
				i++
			}
			plain := v[:i]
			v = v[i:]
			if afterWord && len(bytes.TrimSpace(plain)) == 0 && bytes.HasPrefix(v, []byte("=?")) {
				continue // RFC 2047 6.2: space between encoded words is not shown
			}
			for _, c := range plain {
				if c == '\n' || c == '\r' {
					continue
				}
				out = append(out, c)
			}
			afterWord = false
			continue
		}
		if kind == 'b' {
			text = decodeBase64(text)
		} else {
			text = decodeQuotedPrintable(bytes.ReplaceAll(text, []byte("_"), []byte(" ")))
		}
		out = append(out, decodeCharset(text, charset)...)
		v, afterWord = rest, true
	}
	return decodeCharset(out, nil)
}

// cutEncodedWord cuts "=?charset?B?text?=" from the start of v.
func cutEncodedWord(v []byte) (charset []byte, kind byte, text, rest []byte, ok bool) {
	v, ok = bytes.CutPrefix(v, []byte("=?"))
	if !ok {
		return nil, 0, nil, nil, false
	}
	charset, v, ok = bytes.Cut(v, []byte("?"))
	if !ok || len(v) < 3 || v[1] != '?' {
		return nil, 0, nil, nil, false
	}
	kind = v[0] | 0x20
	if kind != 'b' && kind != 'q' {
		return nil, 0, nil, nil, false
	}
	text, rest, ok = bytes.Cut(v[2:], []byte("?="))
	if i := bytes.IndexByte(charset, '*'); i >= 0 { // RFC 2231 5: a language
		charset = charset[:i]
	}
	return charset, kind, text, rest, ok
}

func looksLikeHTML(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return hasPrefixFold(b, "<html") || hasPrefixFold(b, "<!doctype html")
}

// htmlText returns the text of an HTML document: tags dropped, block ends as line
// breaks, the common entities decoded, scripts and styles left out.
func htmlText(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		switch b[0] {
		case '<':
			end := bytes.IndexByte(b, '>')
			if end < 0 {
				return out
			}
			tag := b[1:end]
			b = b[end+1:]
			switch {
			case hasPrefixFold(tag, "style"), hasPrefixFold(tag, "script"), hasPrefixFold(tag, "title"):
				closing := bytes.Index(b, []byte("</"))
				if closing < 0 {
					return out
				}
				b = b[closing:]
			case breaksLine(tag):
				out = append(out, '\n')
			case bytes.IndexByte(tag, '@') > 0 && bytes.IndexByte(tag, ' ') < 0:
				out = append(out, '<') // "<a@b.example>", left raw by careless senders
				out = append(out, tag...)
				out = append(out, '>')
			}
		case '&':
			c, size := entity(b)
			out = utf8.AppendRune(out, c)
			b = b[size:]
		case '\n', '\r', '\t':
			out = append(out, ' ')
			b = b[1:]
		default:
			out = append(out, b[0])
			b = b[1:]
		}
	}
	return out
}

func breaksLine(tag []byte) bool {
	tag = bytes.TrimPrefix(tag, []byte("/"))
	for _, name := range [...]string{"br", "p", "div", "tr", "li", "td", "table", "h1", "h2", "h3", "h4", "pre", "blockquote"} {
		if hasPrefixFold(tag, name) && (len(tag) == len(name) || !isLetter(tag[len(name)])) {
			return true
		}
	}
	return false
}

// entity decodes the character reference at the start of b.
func entity(b []byte) (c rune, size int) {
	end := bytes.IndexByte(b[:min(len(b), 10)], ';')
	if end < 2 {
		return '&', 1
	}
	name := b[1:end]
	if name[0] == '#' {
		n, digits := leadingNumber(string(name[1:]))
		if digits == len(name)-1 && n > 0 && n <= utf8.MaxRune {
			return rune(n), end + 1
		}
		return '&', 1
	}
	switch string(name) {
	case "lt":
		return '<', end + 1
	case "gt":
		return '>', end + 1
	case "amp":
		return '&', end + 1
	case "quot":
		return '"', end + 1
	case "nbsp":
		return ' ', end + 1
	case "apos", "rsquo", "lsquo":
		return '\'', end + 1
	}
	return '&', 1
}
