package bounces

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNormal bounds the normalised text: a reply's text and the two spaces around it,
// with room for what a bounce mail says in several sentences.
const maxNormal = 2048

// normalise returns the words of text in the form that patterns are written in,
// between two spaces:
//
//   - lower case, Latin letters without their accents, apostrophes dropped;
//   - "@" for every mail address, "ip" for every IP address;
//   - URLs kept as one word in which every mark but the dot is "/";
//   - dots kept inside a word only (host names, enhanced codes);
//   - every other mark a space, spaces single;
//   - codes repeated on continuation lines ("550-5.7.1") dropped, and "relay=" of a line
//     of a mail log, which names the server and says nothing of relaying.
//
// It stops at maxNormal bytes.
func (n *normaliser) normalise(text string, code int) []byte {
	n.size, n.code, n.repeated = 0, code, false
	n.byte(' ')
	for len(text) > 0 && n.size < maxNormal-1 {
		i := 0
		for i < len(text) && isSeparator(text[i]) {
			i++
		}
		text = text[i:]
		i = 0
		for i < len(text) && !isSeparator(text[i]) {
			i++
		}
		n.token(text[:i])
		text = text[i:]
	}
	n.space()
	return n.out[:n.size]
}

// normaliser holds what normalise has written so far, in itself so that it can stay
// on the caller's stack.
type normaliser struct {
	out      [maxNormal]byte
	size     int
	code     int
	repeated bool // the token before was a repeated basic code
}

// isSeparator reports whether c ends a token before it is known what the token is.
func isSeparator(c byte) bool {
	switch c {
	case ' ', '\t', '\r', '\n', '<', '>', '(', ')', '[', ']', '{', '}', '"', ',', ';', '|', '`':
		return true
	}
	return c < ' '
}

func (n *normaliser) token(t string) {
	repeated := n.repeated
	n.repeated = n.isRepeatedCode(t)
	if n.repeated {
		if len(t) <= 4 {
			return
		}
		t, repeated, n.repeated = t[4:], true, false // "550-5.7.1", "550-text"
	}
	switch {
	case t == "", repeated && isEnhancedToken(t), strings.HasPrefix(t, "relay="):
	case isURL(t):
		n.url(t)
	case isMailAddress(t):
		n.address(t)
	case isIPAddress(t):
		n.word("ip")
	default:
		n.words(t)
	}
}

// isRepeatedCode reports whether t begins with the reply's own code, as continuation
// lines do.
func (n *normaliser) isRepeatedCode(t string) bool {
	if n.code == 0 || len(t) < 3 || len(t) > 3 && t[3] != '-' {
		return false
	}
	return int(t[0]-'0')*100+int(t[1]-'0')*10+int(t[2]-'0') == n.code
}

func isEnhancedToken(t string) bool {
	if len(t) < 5 || t[1] != '.' {
		return false
	}
	dots := 0
	for i := range len(t) {
		if t[i] == '.' {
			dots++
		} else if !isDigit(t[i]) {
			return false
		}
	}
	return dots == 2
}

// words writes a token that is none of the special ones, word by word.
func (n *normaliser) words(t string) {
	start := true
	for i := 0; i < len(t); {
		c := t[i]
		switch {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(t[i:])
			i += size
			if r == '’' || r == '‘' {
				continue
			}
			if !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) {
				start = true
				continue
			}
			if start {
				n.space()
				start = false
			}
			n.rune(r)
			continue
		case isLetter(c) || isDigit(c):
			if start {
				n.space()
				start = false
			}
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			n.byte(c)
		case c == '\'':
			// "doesn't" is doesnt
		case c == '.' && !start && i+1 < len(t) && (isLetter(t[i+1]) || isDigit(t[i+1])):
			n.byte('.')
		default:
			start = true
		}
		i++
	}
}

// url writes a URL as one word.
func (n *normaliser) url(t string) {
	n.space()
	for i := range len(t) {
		c := t[i]
		switch {
		case c >= 'A' && c <= 'Z':
			n.byte(c | 0x20)
		case isLetter(c) || isDigit(c) || c == '.':
			n.byte(c)
		default:
			n.byte('/')
		}
	}
}

// address writes "@" for a mail address, and around it the words that were glued to
// it ("found:a@b.example", "a@b.example:blocked").
func (n *normaliser) address(t string) {
	at := 0
	for t[at] != '@' {
		at++
	}
	for i := at - 1; i >= 0; i-- {
		if t[i] == ':' || t[i] == '=' {
			n.words(t[:i])
			break
		}
	}
	n.word("@")
	for i := at + 1; i < len(t); i++ {
		if t[i] == ':' {
			n.words(t[i:])
			return
		}
	}
}

func (n *normaliser) word(w string) {
	n.space()
	for i := range len(w) {
		n.byte(w[i])
	}
}

func (n *normaliser) space() {
	if n.out[n.size-1] != ' ' {
		n.byte(' ')
	}
}

func (n *normaliser) byte(c byte) {
	if n.size < maxNormal {
		n.out[n.size] = c
		n.size++
	}
}

func (n *normaliser) rune(r rune) {
	r = unicode.ToLower(r)
	if r >= 0xc0 && r < 0x180 {
		if f := folded[r-0xc0]; f != ' ' {
			n.byte(f)
			return
		}
	}
	if n.size+utf8.RuneLen(r) <= maxNormal {
		n.size += utf8.EncodeRune(n.out[n.size:], r)
	}
}

// folded are the base letters of U+00C0 to U+017F, a space where there is none.
const folded = "aaaaaaaceeeeiiiidnooooo ouuuuy saaaaaaaceeeeiiiidnooooo ouuuuy y" +
	"aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiii  jjkkklllllll" +
	"lllnnnnnnnnnoooooooorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs"

// isURL reports whether t is a URL: with a scheme, or a host name followed by a path.
func isURL(t string) bool {
	if len(t) > 4 && (t[0]|0x20) == 'w' && (t[1]|0x20) == 'w' && (t[2]|0x20) == 'w' && t[3] == '.' {
		return true
	}
	dot := -1
	for i := range len(t) {
		switch t[i] {
		case '.':
			dot = i
		case ':':
			if i+2 < len(t) && t[i+1] == '/' && t[i+2] == '/' {
				return i > 0
			}
		case '/':
			// "mail.ru/help" but neither "and/or" nor "5.7.1/x".
			return dot > 0 && i > dot+2 && isLetter(t[i-1])
		}
	}
	return false
}

// isMailAddress reports whether t has an "@" with something on both sides.
func isMailAddress(t string) bool {
	for i := 1; i < len(t)-1; i++ {
		if t[i] == '@' {
			return true
		}
	}
	return false
}

// isIPAddress reports whether t looks like an IPv4 address, also one blanked with
// "x" or glued to a port, or an IPv6 address; not a time of day.
func isIPAddress(t string) bool {
	dots, colons, pair := 0, 0, false
	for i := range len(t) {
		switch c := t[i]; {
		case c == '.':
			dots++
		case c == ':':
			colons++
			pair = pair || i > 0 && t[i-1] == ':'
		case isDigit(c):
		case dots > 0 || colons == 0:
			if c|0x20 != 'x' && (c|0x20 < 'a' || c|0x20 > 'f' || dots > 0) {
				return false
			}
		case c|0x20 < 'a' || c|0x20 > 'f':
			return false
		}
	}
	if colons > 1 {
		return pair && colons < 8 && len(t) > 2 || colons == 7
	}
	return dots == 3 && len(t) >= 7
}
