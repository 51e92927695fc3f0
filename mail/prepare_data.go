package mail

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What data may hold: enough for a letter, too little to be a load.
const (
	maxDataValue = 4 << 10
	maxDataTotal = 32 << 10
	maxDataItems = 200
	maxDataDepth = 4
	maxSecrets   = 32
	maxLink      = 2048
)

// dataName is what a template can refer to.
var dataName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// prepareData copies the data, in a form that a JSON round trip does not change and
// that templates can only read: strings, booleans, lists and maps. A number becomes its
// digits, so that a PIN is shown as it was sent, whichever way it came.
func prepareData(m *Message, r Request) *Problem {
	var c dataCopy
	data, problem := c.copyMap("data", r.Data, 1)
	m.Data = data
	return problem
}

// prepareSecrets sets Secrets: what the request names and what always is one.
func prepareSecrets(m *Message, named []string) *Problem {
	if len(named) > maxSecrets {
		return invalid("secrets", "There are too many names of secrets", fmt.Sprintf("At most %d are taken.", maxSecrets))
	}
	names := dataNames(nil, m.Data)
	for _, name := range named {
		if !slices.Contains(names, name) {
			return invalid("secrets", "A secret is named that is not in the data",
				"Correct the name: what is misspelled here would be shown in clear.")
		}
	}
	m.Secrets = slices.Clone(named)
	for _, name := range names {
		if slices.Contains(alwaysSecret, asciiLower(name)) {
			m.Secrets = append(m.Secrets, name)
		}
	}
	slices.Sort(m.Secrets)
	m.Secrets = slices.Compact(m.Secrets)
	return checkSecretLengths(m, "data", m.Data, false)
}

// dataNames appends the names at every depth of data.
func dataNames(names []string, v any) []string {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			names = dataNames(names, item)
		}
	case map[string]any:
		for name, item := range v {
			names = dataNames(append(names, name), item)
		}
	}
	return names
}

// dataCopy counts while it copies.
type dataCopy struct {
	items, bytes int
}

func (c *dataCopy) copyMap(field string, in map[string]any, depth int) (map[string]any, *Problem) {
	out := make(map[string]any, min(len(in), maxDataItems))
	if len(in) > maxDataItems {
		return nil, dataTooLarge(field)
	}
	for _, name := range sortedKeys(in) {
		if !dataName.MatchString(name) {
			return nil, invalid(field, "A name in the data can't be used", "Use up to 64 letters, digits and _, and begin with no digit.")
		}
		v, problem := c.copyValue(field+"."+name, in[name], depth)
		if problem != nil {
			return nil, problem
		}
		if s, ok := v.(string); ok && isLinkName(name) {
			if err := checkLink(s); err != nil {
				return nil, invalid(field+"."+name, "The link can't be used", sentence(err))
			}
		}
		out[name] = v
	}
	return out, nil
}

func (c *dataCopy) copyValue(field string, v any, depth int) (any, *Problem) {
	if c.items++; c.items > maxDataItems {
		return nil, dataTooLarge(field)
	}
	switch v := v.(type) {
	case nil, bool:
		return v, nil
	case string:
		return c.copyText(field, v)
	case json.Number:
		return c.copyText(field, v.String())
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case []any, map[string]any:
		if depth >= maxDataDepth {
			return nil, invalid(field, "The data is nested too deeply", fmt.Sprintf("At most %d levels are taken.", maxDataDepth))
		}
		if list, ok := v.([]any); ok {
			return c.copyList(field, list, depth+1)
		}
		return c.copyMap(field, v.(map[string]any), depth+1)
	}
	return nil, invalid(field, "The data holds something else than JSON", "Use strings, numbers, booleans, lists and objects.")
}

func (c *dataCopy) copyList(field string, in []any, depth int) (any, *Problem) {
	out := make([]any, 0, min(len(in), maxDataItems))
	for _, item := range in {
		v, problem := c.copyValue(field, item, depth)
		if problem != nil {
			return nil, problem
		}
		out = append(out, v)
	}
	return out, nil
}

func (c *dataCopy) copyText(field, s string) (any, *Problem) {
	if c.bytes += len(s); len(s) > maxDataValue || c.bytes > maxDataTotal {
		return nil, dataTooLarge(field)
	}
	return s, checkShown(field, s, maxDataValue)
}

func dataTooLarge(field string) *Problem {
	return &Problem{
		Type: ProblemTooLarge, Title: "The data is too large", Status: 413, Field: field,
		Detail: fmt.Sprintf("At most %d values, %d KiB each and %d KiB together.", maxDataItems, maxDataValue>>10, maxDataTotal>>10),
	}
}

// isLinkName: the names whose values are links and must be sound ones.
func isLinkName(name string) bool {
	name = asciiLower(name)
	return name == "link" || name == "url" || strings.HasSuffix(name, "_link") || strings.HasSuffix(name, "_url")
}

// checkLink wants a link that leads where it seems to: http or https, a host, and no
// user name, which is there to look like a host. An empty one is missing, which is for
// the template to mind.
func checkLink(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > maxLink {
		return errors.New("a link may have 2048 bytes at most")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, strings.ContainsFunc(s, unicode.IsSpace):
		return errors.New("it is not a valid URL; escape spaces and other special characters")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("a link has to begin with https:// or http://")
	case u.Hostname() == "":
		return errors.New("a link has to be absolute, with the name of a host")
	case u.User != nil:
		return errors.New("a link may have no user name or password before its host")
	}
	return nil
}

// checkSecretLengths refuses secrets that are so short that they can't be told from any
// other text.
func checkSecretLengths(m *Message, field string, v any, secret bool) *Problem {
	switch v := v.(type) {
	case string:
		if secret && v != "" && len(v) < minSecret {
			return invalid(field, "The value is too short to be kept secret",
				fmt.Sprintf("Use at least %d characters, or another name if it is no secret.", minSecret))
		}
	case []any:
		for _, item := range v {
			if problem := checkSecretLengths(m, field, item, secret); problem != nil {
				return problem
			}
		}
	case map[string]any:
		for _, name := range sortedKeys(v) {
			if problem := checkSecretLengths(m, field+"."+name, v[name], secret || m.isSecretName(name)); problem != nil {
				return problem
			}
		}
	}
	return nil
}

// unshowable returns what keeps s from being shown on one line, "" if nothing does:
// control characters, Unicode's own line breaks, and what turns the direction of the
// text around it, so that a name could rewrite the sentence that it stands in.
func unshowable(s string) string {
	if !utf8.ValidString(s) {
		return "bytes that are not UTF-8"
	}
	for _, r := range s {
		switch {
		case r == '\n', r == '\r', r == '\u0085', r == '\u2028', r == '\u2029', r == '\v', r == '\f':
			return "a line break"
		case unicode.IsControl(r):
			return "a control character"
		case r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069':
			return "an invisible character that changes the direction of the text"
		}
	}
	return ""
}

// localeForm is a language tag as people write it, to the extent that a language's file
// can be named for it (RFC 5646 2.1).
var localeForm = regexp.MustCompile(`^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}$`)

// prepareTemplate finds the template and has it say everything once: whatever goes
// wrong with this data goes wrong now, while the caller listens.
func (p *Preparer) prepareTemplate(m *Message, locale string) *Problem {
	if locale != "" && !localeForm.MatchString(locale) {
		return invalid("locale", "This is not a language tag", "Use a tag as fi, en or pt-BR.")
	}
	c, ok := p.Templates.find(m.Template, strings.ReplaceAll(locale, "_", "-"))
	if !ok {
		return unprocessable(ProblemTemplateUnknown, "template", "There is no template with this name",
			"Use one of: "+strings.Join(p.Templates.Names(), ", ")+".")
	}
	m.Locale = c.lang
	for _, n := range c.needs {
		if !slices.ContainsFunc(n, func(path string) bool { return isThere(m.Data, path) }) {
			return unprocessable(ProblemVariableMissing, "data."+n[0], "The template needs a variable that is missing or empty",
				"Add data."+strings.Join(n, " or data.")+".")
		}
	}
	_, err := p.Templates.say(m)
	switch err = withoutValues(err); {
	case err == nil:
		return nil
	case err == errPartLong:
		return &Problem{Type: ProblemTooLarge, Title: "The mail would be too large", Status: 413, Field: "data", Detail: sentence(err) + " Send less data."}
	case err == errZone:
		return invalid("data."+zoneVariable, "The time zone is not known", "Use a name of the IANA database, as Europe/Helsinki, or leave it out.")
	}
	return invalid("data", "The template can't be filled with this data", sentence(err)+" Compare the data with what the template does with it.")
}

func isThere(data map[string]any, path string) bool {
	var v any = data
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	s, isText := v.(string)
	return v != nil && (!isText || strings.TrimSpace(s) != "")
}

// checkNoSecretShown refuses a message that says a secret in a field which is stored and
// shown in clear.
func checkNoSecretShown(m *Message) *Problem {
	set := slices.DeleteFunc(m.secrets(), func(s secret) bool { return s.perhaps })
	// Identifiers are older than a code, so a short one may be the same by chance.
	long := slices.DeleteFunc(slices.Clone(set), func(s secret) bool { return len(s.text) < longSecret })
	type field struct {
		name, value string
		set         secretSet
	}
	fields := []field{
		{"to", string(m.To), long}, {"tenant", m.Tenant, long}, {"person_id", m.PersonID, long},
		{"to_name", m.ToName, set}, {"tenant_name", m.TenantName, set},
		{"supersede_key", m.SupersedeKey, set}, {"idempotency_key", m.IdempotencyKey, set},
		{"from", m.From, set}, {"reply_to", m.ReplyTo, set},
		{"tags", strings.Join(m.Tags, "\n"), set},
	}
	for _, name := range sortedKeys(m.Metadata) {
		fields = append(fields, field{"metadata", name + "\n" + m.Metadata[name], set})
	}
	for _, f := range fields {
		if f.set.holds(f.value) {
			return invalid(f.name, "The field repeats a secret of the data",
				"It would be stored and shown in clear. Keep codes and links in the data alone.")
		}
	}
	if slices.ContainsFunc(dataNames(nil, m.Data), long.holds) {
		return invalid("data", "A name in the data repeats a secret", "Names are stored and shown in clear.")
	}
	return nil
}
