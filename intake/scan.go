package intake

import (
	"encoding/json"
	"strconv"
	"unicode/utf16"
)

// scanner walks JSON text (RFC 8259) and finds what encoding/json lets pass: a name
// twice in one object, of which one reader takes the first and another the last; half
// of a surrogate pair, which becomes U+FFFD without a word; numbers that lose digits;
// and depth. It is recursive, to a depth of maxDepth.
type scanner struct {
	text []byte
	at   int
}

const (
	// maxDepth is how deep objects and lists may be nested, the body included.
	maxDepth = 10
	// maxDigits is how many digits of a number every reader of JSON keeps.
	maxDigits = 15
)

// syntaxError says what is wrong at a byte. It quotes nothing.
type syntaxError struct {
	at   int
	what string
}

func (s *scanner) fail(what string) *syntaxError { return &syntaxError{s.at, what} }

// document walks one object and nothing after it. For each name it calls member,
// which has to walk the value.
func (s *scanner) document(member func(name string, at int) *syntaxError) *syntaxError {
	s.space()
	if s.peek() != '{' {
		return s.fail("the body has to be a JSON object")
	}
	if err := s.object(member); err != nil {
		return err
	}
	s.space()
	if s.at != len(s.text) {
		return s.fail("something follows the object")
	}
	return nil
}

func (s *scanner) value(depth int) *syntaxError {
	switch c := s.peek(); {
	case (c == '{' || c == '[') && depth >= maxDepth:
		return s.fail("objects and lists are nested more than " + strconv.Itoa(maxDepth) + " deep")
	case c == '{':
		return s.object(func(string, int) *syntaxError { return s.value(depth + 1) })
	case c == '[':
		return s.list(depth)
	case c == '"':
		_, err := s.string()
		return err
	case c == '-' || isDigit(c):
		return s.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if s.word(word) {
			return nil
		}
	}
	return s.fail("a value is expected")
}

func (s *scanner) object(member func(name string, at int) *syntaxError) *syntaxError {
	s.at++
	s.space()
	if s.skip('}') {
		return nil
	}
	seen := make(map[string]struct{})
	for {
		at := s.at
		if s.peek() != '"' {
			return s.fail("a name in double quotes is expected")
		}
		name, err := s.string()
		if err != nil {
			return err
		}
		if _, twice := seen[name]; twice {
			return &syntaxError{at, "this name was there before in the same object"}
		}
		seen[name] = struct{}{}
		s.space()
		if !s.skip(':') {
			return s.fail("a colon is expected")
		}
		s.space()
		if err := member(name, at); err != nil {
			return err
		}
		s.space()
		if s.skip('}') {
			return nil
		}
		if !s.skip(',') {
			return s.fail("a comma or a closing brace is expected")
		}
		s.space()
	}
}

func (s *scanner) list(depth int) *syntaxError {
	s.at++
	s.space()
	if s.skip(']') {
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		s.space()
		if s.skip(']') {
			return nil
		}
		if !s.skip(',') {
			return s.fail("a comma or a closing bracket is expected")
		}
		s.space()
	}
}

// string walks a string and returns what it says.
func (s *scanner) string() (string, *syntaxError) {
	start := s.at
	escaped := false
	for s.at++; s.at < len(s.text); {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			raw := s.text[start:s.at]
			if !escaped {
				return string(raw[1 : len(raw)-1]), nil
			}
			var v string
			if json.Unmarshal(raw, &v) != nil {
				return "", &syntaxError{start, "this string can't be read"}
			}
			return v, nil
		case c < ' ':
			return "", s.fail("a control character in a string has to be escaped")
		case c == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return "", err
			}
		default:
			s.at++
		}
	}
	return "", &syntaxError{start, "this string has no end"}
}

// escape walks a backslash and what belongs to it.
func (s *scanner) escape() *syntaxError {
	at := s.at
	s.at++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
		return nil
	case 'u':
	default:
		return &syntaxError{at, "this is no escape of JSON"}
	}
	first, ok := s.hex4()
	if !ok {
		return &syntaxError{at, `\u needs four hexadecimal digits`}
	}
	if !utf16.IsSurrogate(first) {
		return nil
	}
	if s.peek() == '\\' {
		s.at++
		if s.peek() == 'u' {
			if second, ok := s.hex4(); ok && utf16.DecodeRune(first, second) != '\uFFFD' {
				return nil
			}
		}
	}
	return &syntaxError{at, "this is half of a surrogate pair"}
}

// hex4 walks the u of an escape and four hexadecimal digits.
func (s *scanner) hex4() (rune, bool) {
	s.at++
	if s.at+4 > len(s.text) {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s.text[s.at:s.at+4]), 16, 16)
	s.at += 4
	return rune(v), err == nil
}

func (s *scanner) number() *syntaxError {
	start := s.at
	s.skip('-')
	digits := s.at
	for isDigit(s.peek()) {
		s.at++
	}
	n := s.at - digits
	if n == 0 || n > 1 && s.text[digits] == '0' {
		return &syntaxError{start, "this is no number of JSON; a code with leading zeros is a string"}
	}
	if s.skip('.') {
		fraction := s.at
		for isDigit(s.peek()) {
			s.at++
		}
		if s.at == fraction {
			return &syntaxError{start, "this is no number of JSON"}
		}
		n += s.at - fraction
	}
	if c := s.peek(); c == 'e' || c == 'E' || n > maxDigits {
		return &syntaxError{start, "a number has at most 15 digits and no exponent; write it as a string"}
	}
	return nil
}

func (s *scanner) word(w string) bool {
	if len(s.text)-s.at < len(w) || string(s.text[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// peek returns the byte under way, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) skip(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
