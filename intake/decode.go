package intake

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/deliverd/deliverd/mail"
)

// MaxBody is the largest request in bytes: twice what package mail takes as data, for
// the rest of the request and for escapes.
const MaxBody = 64 << 10

// Decode reads the body of a send request. It is strict, because what is guessed
// at the door is sent to a person: UTF-8 without a byte order mark, one object of
// at most [MaxBody] bytes, known names, each once and in lower case. Null is as if
// the name were absent. Numbers in data keep their digits, as [json.Number].
//
// An error is a *mail.Problem that says the field and the byte, counted from 0,
// and repeats nothing of the body.
func Decode(body []byte) (mail.Request, error) {
	var r mail.Request
	if err := bind(body, requestFields(&r)); err != nil {
		return mail.Request{}, err
	}
	return r, nil
}

const (
	aString  = "a string"
	aTime    = `a time by RFC 3339, e.g. "2026-11-26T13:00:00Z"`
	strList  = "a list of strings"
	strMap   = "an object of strings"
	anObject = "an object"
)

func requestFields(r *mail.Request) []field {
	return []field{
		{"kind", &r.Kind, aString},
		{"to", &r.To, aString},
		{"to_name", &r.ToName, aString},
		{"tenant", &r.Tenant, aString},
		{"tenant_name", &r.TenantName, aString},
		{"person_id", &r.PersonID, aString},
		{"locale", &r.Locale, aString},
		{"template", &r.Template, aString},
		{"data", &r.Data, anObject},
		{"secrets", &r.Secrets, strList},
		{"from", &r.From, aString},
		{"reply_to", &r.ReplyTo, aString},
		{"expires_at", &r.ExpiresAt, aTime},
		{"supersede_key", &r.SupersedeKey, aString},
		{"tags", &r.Tags, strList},
		{"metadata", &r.Metadata, strMap},
		{"resend_of", &r.ResendOf, aString},
		{"idempotency_key", &r.IdempotencyKey, aString},
	}
}

// field is a name that an object may have, where its value goes, and what it has
// to be, in words.
type field struct {
	name string
	into any
	want string
}

// bind reads body, one object, into fields.
func bind(body []byte, fields []field) error {
	switch {
	case len(body) > MaxBody:
		return tooLarge()
	case bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return invalid("", "The body begins with a byte order mark. JSON is UTF-8 without one (RFC 8259 8.1).")
	case !utf8.Valid(body):
		return invalid("", "The body is not valid UTF-8, at byte "+strconv.Itoa(firstInvalid(body))+".")
	}
	// The field under way is known to the error, whatever is wrong inside it.
	s := scanner{text: body}
	current := ""
	err := s.document(func(name string, at int) *syntaxError {
		i := fieldIndex(fields, name)
		if i < 0 {
			current = ""
			return &syntaxError{at, "there is no such field" + hint(fields, name)}
		}
		current = fields[i].name
		start := s.at
		if err := s.value(1); err != nil {
			return err
		}
		if !decodeValue(body[start:s.at], fields[i].into) {
			return &syntaxError{start, "this has to be " + fields[i].want}
		}
		current = ""
		return nil
	})
	if err != nil {
		return invalid(current, "At byte "+strconv.Itoa(err.at)+": "+err.what+".")
	}
	return nil
}

func fieldIndex(fields []field, name string) int {
	for i := range fields {
		if fields[i].name == name {
			return i
		}
	}
	return -1
}

// decodeValue reads text, which is known to be well formed, and reports whether it
// has the type of into. The library's own errors quote the value: they go nowhere.
func decodeValue(text []byte, into any) bool {
	if s, ok := into.(*string); ok && text[0] == '"' && bytes.IndexByte(text, '\\') < 0 {
		*s = string(text[1 : len(text)-1]) // nothing in it means anything else
		return true
	}
	if t, ok := into.(*time.Time); ok {
		// A string only; the library's reader of times is asked for nothing else.
		var s *string
		if json.Unmarshal(text, &s) != nil {
			return false
		}
		if s == nil {
			return true
		}
		v, err := time.Parse(time.RFC3339, *s)
		*t = v
		return err == nil
	}
	if _, free := into.(*map[string]any); !free {
		return json.Unmarshal(text, into) == nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(into) == nil
}

func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// hint names the known field that an unknown one was probably meant to be. It says
// nothing of the unknown one, which may be a secret in the wrong place.
func hint(fields []field, name string) string {
	if len(name) > 40 { // longer than any by more than a misspelling: not worth the work
		return ""
	}
	best, least := "", 3 // further away than two letters is no misspelling
	for _, f := range fields {
		if d := distance(plainName(name), plainName(f.name)); d < least {
			best, least = f.name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; the nearest that is known is " + best
}

// plainName makes expiresAt, Expires-At and expires_at alike.
func plainName(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

// distance is the number of letters to add, drop or change to make b of a
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
