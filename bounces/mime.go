package bounces

import "bytes"

// The limits of the MIME structure (FAULTS D35, E09).
const (
	// maxMail is how much of a mail is looked at. The receiver takes no more; what a
	// person pastes beyond it is the original message's body.
	maxMail  = 1 << 20
	maxParts = 100
	maxDepth = 10
)

// part is a leaf of a mail's MIME structure.
type part struct {
	header header
	ctype  []byte // the value of Content-Type, nil if there is none
	body   []byte // as it stands, encoded
}

// is reports whether the part's media type begins with the lower-case prefix.
func (p *part) is(prefix string) bool { return hasPrefixFold(p.ctype, prefix) }

// mime is a mail in its parts.
type mime struct {
	header header
	ctype  []byte
	parts  []part
}

// parseMIME splits a mail into the leaves of its MIME structure, in one pass over its
// lines. What is attached as message/rfc822 is a leaf. A missing closing boundary, a
// missing empty line and a boundary that no Content-Type names are forgiven.
func parseMIME(raw []byte) mime {
	if len(raw) > maxMail {
		raw = raw[:maxMail]
	}
	raw = bytes.TrimLeft(raw, "\r\n\ufeff")
	h, body := parseHeader(raw)
	m := mime{header: h, ctype: h.get("content-type"), parts: make([]part, 0, 4)}
	s := splitter{mime: &m}
	if boundary := boundaryOf(m.ctype); boundary != nil {
		s.boundaries = append(s.boundaries, boundary)
	} else if m.ctype == nil || hasPrefixFold(m.ctype, "multipart/") {
		if boundary := sniffBoundary(body); boundary != nil {
			s.boundaries = append(s.boundaries, boundary)
		}
	}
	if len(s.boundaries) > 0 {
		s.split(body)
	}
	if len(m.parts) == 0 {
		p := part{header: h, ctype: m.ctype, body: body}
		if p.is("multipart/") {
			p.ctype = nil // its boundaries are lost: read what is left as text
		}
		m.parts = append(m.parts, p)
	}
	return m
}

// boundaryOf returns the boundary of a multipart type, nil for every other type.
func boundaryOf(ctype []byte) []byte {
	if !hasPrefixFold(ctype, "multipart/") {
		return nil
	}
	b := bytes.TrimRight(param(ctype, "boundary"), " \t")
	if len(b) == 0 || len(b) > 200 { // RFC 2046 5.1.1 allows 70
		return nil
	}
	return b
}

// sniffBoundary finds the boundary of a body whose Content-Type does not name it: a
// line "--x" followed by a field of a part's header, at its beginning.
func sniffBoundary(body []byte) []byte {
	for range 6 {
		var line []byte
		line, body = cutLine(body)
		if body == nil {
			return nil
		}
		if len(line) > 8 && bytes.HasPrefix(line, []byte("--")) && hasPrefixFold(body, "content-") {
			return bytes.TrimRight(line[2:], " \t")
		}
	}
	return nil
}

// splitter is the state of splitting a body at its boundaries.
type splitter struct {
	mime       *mime
	boundaries [][]byte // the ones that are open, outermost first
	open       bool     // a leaf is open: the last of mime.parts
}

func (s *splitter) split(body []byte) {
	var start []byte // of the open leaf's body
	rest := body
	for len(rest) > 0 && len(s.boundaries) > 0 {
		line, after := cutLine(rest)
		level, final := s.boundary(line)
		if level < 0 {
			rest = after
			continue
		}
		s.close(start, rest)
		s.boundaries = s.boundaries[:level+1]
		if final {
			s.boundaries = s.boundaries[:level]
			rest = after
			continue
		}
		if len(s.mime.parts) == maxParts {
			return
		}
		h, partBody := parseHeader(after)
		ctype := h.get("content-type")
		if b := boundaryOf(ctype); b != nil && len(s.boundaries) < maxDepth {
			s.boundaries = append(s.boundaries, b)
		} else {
			s.mime.parts = append(s.mime.parts, part{header: h, ctype: ctype})
			s.open = true
			start = partBody
		}
		rest = partBody
	}
	s.close(start, rest)
}

// boundary returns the level of the boundary that line is, -1 for none, and whether
// it is a closing one.
func (s *splitter) boundary(line []byte) (level int, final bool) {
	if len(line) < 3 || line[0] != '-' || line[1] != '-' {
		return -1, false
	}
	for level = len(s.boundaries) - 1; level >= 0; level-- {
		after, ok := bytes.CutPrefix(line[2:], s.boundaries[level])
		if !ok {
			continue
		}
		after = bytes.TrimRight(after, " \t")
		if len(after) == 0 {
			return level, false
		}
		if bytes.Equal(after, []byte("--")) {
			return level, true
		}
	}
	return -1, false
}

// close ends the open leaf, whose body begins at start and ends where rest begins.
func (s *splitter) close(start, rest []byte) {
	if !s.open {
		return
	}
	s.open = false
	body := start[:len(start)-len(rest)]
	s.mime.parts[len(s.mime.parts)-1].body = body
}
