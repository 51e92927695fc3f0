package bounces

import (
	"fmt"
	"strings"
)

// The data files of this package share one form: a block begins with a line at the
// margin, "keyword name"; its lines indented by two spaces are "keyword value", and
// may repeat; a line indented further goes on with the value; "#" begins a comment at
// the start of a line; blank lines mean nothing.

type block struct {
	keyword, name string
	line          int
	fields        []field
}

type field struct {
	keyword, value string
	line           int
}

// parseBlocks reads a data file.
func parseBlocks(file, text string) ([]block, error) {
	var blocks []block
	line := 0
	for s := range strings.Lines(text) {
		line++
		s = strings.TrimRight(s, " \t\r\n")
		body := strings.TrimLeft(s, " \t")
		if body == "" || body[0] == '#' {
			continue
		}
		keyword, value, _ := strings.Cut(body, " ")
		value = strings.TrimSpace(value)
		if len(body) == len(s) {
			blocks = append(blocks, block{keyword: keyword, name: value, line: line})
			continue
		}
		if len(blocks) == 0 {
			return nil, fmt.Errorf("%s:%d: a field before the first block", file, line)
		}
		b := &blocks[len(blocks)-1]
		if n := len(b.fields); len(s)-len(body) > 2 && n > 0 {
			b.fields[n-1].value += " " + body
			continue
		}
		b.fields = append(b.fields, field{keyword: keyword, value: value, line: line})
	}
	return blocks, nil
}

// splitTop splits s at the "|" that are not in parentheses.
func splitTop(s string) []string {
	var parts []string
	depth, start := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case '|':
			if depth == 0 {
				parts = append(parts, strings.TrimSpace(s[start:i]))
				start = i + 1
			}
		}
	}
	return append(parts, strings.TrimSpace(s[start:]))
}
