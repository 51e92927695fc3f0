package mail

import (
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"maps"
	"path"
	"strings"
	"time"
)

// maxPart bounds the text and the HTML of a mail, maxSubject its subject, in bytes: a
// template over data of 32 KiB has no honest way to more.
const (
	maxPart    = 256 << 10
	maxSubject = 400
)

// content is what the templates say.
type content struct {
	lang, subject, text, html string
}

var (
	errPartLong    = errors.New("the mail is larger than 256 KiB")
	errSubjectLong = errors.New("the subject is longer than 400 bytes")
	errNoSubject   = errors.New("the subject is empty")
	errUnsafe      = errors.New("a value does not fit where the HTML puts it")
)

// say executes the templates of m.
func (t *Templates) say(m *Message) (content, error) {
	c, ok := t.find(m.Template, m.Locale)
	if !ok {
		return content{}, fmt.Errorf("there is no template %q", m.Template)
	}
	zone, err := t.zone(m.Data)
	if err != nil {
		return content{}, err
	}
	return c.execute(m, zone)
}

// zoneVariable is the variable that says in which time zone the person lives.
const zoneVariable = "timezone"

var errZone = errors.New("timezone is not a name of the IANA database, as Europe/Helsinki")

// zone returns the time zone that the data names, else UTC.
func (t *Templates) zone(data map[string]any) (*time.Location, error) {
	if data[zoneVariable] == nil || data[zoneVariable] == "" {
		return time.UTC, nil
	}
	name, _ := data[zoneVariable].(string)
	if known, ok := t.zones.Load(name); ok {
		return known.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	// One spelling a zone, so that no more are remembered than there are.
	if err != nil || name == "" || zone == time.Local || path.Clean(name) != name {
		return nil, errZone
	}
	t.zones.Store(name, zone)
	return zone, nil
}

// values returns what the templates see; subject and preheader are still to come.
func (c *compiled) values(m *Message, zone *time.Location) (map[string]any, error) {
	sender, from, err := ParseMailbox(m.From)
	if err != nil {
		return nil, err
	}
	if sender == "" {
		sender = from.Domain()
	}
	return map[string]any{
		"data":    c.withNames(m.Data),
		"to":      string(m.To),
		"to_name": m.ToName, "tenant": m.Tenant, "tenant_name": m.TenantName, "person_id": m.PersonID,
		"kind": m.Kind, "ref": string(m.Ref), "lang": c.lang,
		"sender": sender, "from": string(from),
		"until":      c.times.until(m.ExpiresAt, m.QueuedAt, zone),
		"until_date": c.times.untilDate(m.ExpiresAt, zone),
		"subject":    "", "preheader": "",
	}, nil
}

func (c *compiled) execute(m *Message, zone *time.Location) (content, error) {
	values, err := c.values(m, zone)
	if err != nil {
		return content{}, err
	}
	out := content{lang: c.lang}
	subject, err := capture(c.subject, values, lineSize)
	if err != nil {
		return out, err
	}
	out.subject = oneLine(subject)
	switch {
	case out.subject == "":
		return out, errNoSubject
	case len(out.subject) > maxSubject:
		return out, errSubjectLong
	}
	preheader, err := capture(c.preheader, values, lineSize)
	if err != nil {
		return out, err
	}
	values["subject"], values["preheader"] = out.subject, oneLine(preheader)
	text, err := capture(c.text, values, textSize)
	if err != nil {
		return out, err
	}
	out.text = tidy(text)
	if out.html, err = capture(c.html, values, htmlSize); err != nil {
		return out, err
	}
	// What html/template writes in place of a value that it can't make safe, such as a
	// javascript: link.
	if strings.Contains(out.html, "ZgotmplZ") {
		return out, errUnsafe
	}
	return out, nil
}

// withNames returns data with an empty value for every variable that the templates name
// and the data does not have, so that an optional one is simply empty. data itself is
// not changed.
func (c *compiled) withNames(data map[string]any) map[string]any {
	full := maps.Clone(data)
	if full == nil {
		full = map[string]any{}
	}
	for _, v := range c.uses {
		var empty any = ""
		if v.list {
			empty = []any(nil)
		}
		setIfMissing(full, v.path, empty)
	}
	return full
}

// setIfMissing sets the value at a path below the map at, unless there is one. The maps
// on the way are copied.
func setIfMissing(at map[string]any, path []string, v any) {
	name := path[0]
	if len(path) == 1 {
		if at[name] == nil {
			at[name] = v
		}
		return
	}
	inner, ok := at[name].(map[string]any)
	if !ok && at[name] != nil {
		return // a value of another shape: executing will say so
	}
	inner = maps.Clone(inner)
	if inner == nil {
		inner = map[string]any{}
	}
	at[name] = inner
	setIfMissing(inner, path[1:], v)
}

// template is what text/template and html/template have in common.
type template interface {
	Execute(w io.Writer, data any) error
}

// What the shipped mails need, in bytes; a guess that is wrong costs a copy.
const (
	lineSize = 128
	textSize = 1 << 10
	htmlSize = 6 << 10
)

func capture(t template, values map[string]any, size int) (string, error) {
	var b cappedBuilder
	b.Grow(size)
	if err := t.Execute(&b, values); err != nil {
		return "", err
	}
	return strings.ToValidUTF8(b.String(), "\ufffd"), nil
}

// cappedBuilder ends an execution that writes too much.
type cappedBuilder struct{ strings.Builder }

func (b *cappedBuilder) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxPart {
		return 0, errPartLong
	}
	return b.Builder.Write(p)
}

// oneLine makes each run of blanks one space, and none at the ends.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// tidy takes away what conditions leave behind in a plain text: blanks at the ends of
// lines, but for the signature separator "-- " (RFC 3676 4.3), and more than one empty
// line in a row. It ends with a line break.
func tidy(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	empty := true // so that none comes first
	for line := range strings.SplitSeq(s, "\n") {
		if line != "-- " {
			line = strings.TrimRight(line, " \t\r")
		}
		if line == "" {
			empty = b.Len() > 0
			continue
		}
		if empty && b.Len() > 0 {
			b.WriteByte('\n')
		}
		empty = false
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// rehearse executes the HTML once, as html/template finds a file's mistakes only then.
// That the invented data does not fit (a text where a list is wanted) is no mistake.
func (c *compiled) rehearse() error {
	m := Message{
		To: "person@example.com", From: "Example <no-reply@example.com>", Data: map[string]any{},
		QueuedAt: time.Unix(0, 0), ExpiresAt: time.Unix(60, 0),
	}
	for _, v := range c.uses {
		setIfMissing(m.Data, v.path, "https://example.com/")
	}
	values, err := c.values(&m, time.UTC)
	if err != nil {
		return err
	}
	_, err = capture(c.html, values, htmlSize)
	if bad, ok := errors.AsType[*htmltemplate.Error](err); ok {
		return errors.New(strings.TrimPrefix(bad.Error(), "html/template:"))
	}
	return nil
}
