package mail

import (
	"cmp"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Blank is what stands in place of a secret wherever one is shown.
const Blank = "[secret]"

// alwaysSecret are the names in Message.Data whose values are secret whatever the
// request says, in lower case.
var alwaysSecret = []string{"code", "link", "otp", "pin", "token", "url"}

// minSecret is the length below which a value can't be kept secret, as it occurs in any
// text; longSecret the length from which it is recognised inside of a word.
const (
	minSecret  = 4
	longSecret = 8
)

// isSecretName reports whether the value of a name is secret, at any depth of the data.
func (m *Message) isSecretName(name string) bool {
	return slices.Contains(alwaysSecret, asciiLower(name)) || slices.Contains(m.Secrets, name)
}

// PublicData returns Data as it may be stored in clear and shown: the values of secret
// names are [Blank], of a link the scheme and host are left; links and secrets that
// stand inside of other values are blanked as well.
func (m *Message) PublicData() map[string]any {
	s := m.secrets()
	public := make(map[string]any, len(m.Data))
	for name, v := range m.Data {
		public[name] = s.public(m, v, m.isSecretName(name))
	}
	return public
}

// Scrub returns s with every secret of the message replaced by [Blank]: the values of
// secret names, whole links and what in a link looks like a token, in any case of
// letters, as HTML, JSON or quoted-printable would write them, and cut off by the end of
// s. It is for texts that others wrote and that may quote our mail, as the reply of a
// server. A secret shorter than 8 characters is replaced only where it is a word of its
// own.
func (m *Message) Scrub(s string) string { return m.Scrubber()(s) }

// Scrubber returns a Scrub for several texts, which finds the message's secrets once.
func (m *Message) Scrubber() func(string) string { return m.secrets().scrub }

// secret is a text that must not be shown.
type secret struct {
	text string // in lower case
	// perhaps: a part of a link so short that it may be a number of an invite which
	// everybody may know. It is blanked where others quote us, but a caller may repeat it.
	perhaps bool
}

// sureToken is the length from which the part of a link that looks like a token is one:
// 16 characters of base64 are 96 bits.
const sureToken = 16

// secretSet is what of a message must not be shown, the longest first.
type secretSet []secret

func (m *Message) secrets() secretSet {
	var set secretSet
	for name, v := range m.Data {
		set.collect(m, v, m.isSecretName(name))
	}
	set = slices.DeleteFunc(set, func(s secret) bool { return len(s.text) < minSecret })
	slices.SortFunc(set, func(a, b secret) int {
		return cmp.Or(len(b.text)-len(a.text), strings.Compare(a.text, b.text), sureFirst(a, b))
	})
	return slices.CompactFunc(set, func(a, b secret) bool { return a.text == b.text })
}

func sureFirst(a, b secret) int {
	switch {
	case a.perhaps == b.perhaps:
		return 0
	case b.perhaps:
		return -1
	}
	return 1
}

func (set *secretSet) collect(m *Message, v any, secret bool) {
	switch v := v.(type) {
	case string:
		set.collectString(m, v, secret)
	case []any:
		for _, item := range v {
			set.collect(m, item, secret)
		}
	case map[string]any:
		for name, item := range v {
			set.collect(m, item, secret || m.isSecretName(name))
		}
	}
}

// links finds links in a text.
var links = regexp.MustCompile(`(?i)https?://[^\s<>"]+`)

func (set *secretSet) collectString(m *Message, v string, secret bool) {
	if secret && !isBareLink(v) {
		set.add(strings.TrimSpace(v), false)
	}
	if !strings.Contains(v, "://") {
		return
	}
	for _, link := range links.FindAllString(v, -1) {
		set.addLink(m, link)
	}
}

// add adds a secret and the forms in which others write it.
func (set *secretSet) add(v string, perhaps bool) {
	v = asciiLower(v)
	*set = append(*set, secret{v, perhaps})
	if len(v) < longSecret {
		return
	}
	forms := [...]string{
		html.EscapeString(v),
		asciiLower(url.QueryEscape(v)),
		strings.ReplaceAll(v, "&", `\u0026`),
		strings.ReplaceAll(v, "=", "=3d"),
	}
	for _, form := range forms {
		if form != v {
			*set = append(*set, secret{form, perhaps})
		}
	}
}

// addLink adds a link and the tokens in it. The recipient's address is none, and the
// tenant or the person's id only if there is no other.
func (set *secretSet) addLink(m *Message, link string) {
	u, err := url.Parse(link)
	if err != nil {
		set.add(link, false)
		return
	}
	if isBareLink(link) {
		return
	}
	set.add(link, false)
	var tokens, known []string
	for _, part := range linkParts(u) {
		switch {
		case !looksLikeToken(part), strings.EqualFold(part, string(m.To)):
		case part == m.Tenant, part == m.PersonID:
			known = append(known, part)
		default:
			tokens = append(tokens, part)
		}
	}
	if len(tokens) == 0 {
		tokens = known
	}
	for _, token := range tokens {
		set.add(token, len(token) < sureToken)
	}
}

// linkParts returns what stands between the separators of path, query and fragment, as
// it is written and, where that differs, as it is meant.
func linkParts(u *url.URL) []string {
	var parts []string
	for _, text := range []string{u.EscapedPath(), u.RawQuery, u.EscapedFragment()} {
		for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune("/?&=;#,", r) }) {
			parts = append(parts, part)
			if plain, err := url.QueryUnescape(part); err == nil && plain != part {
				parts = append(parts, plain)
			}
		}
	}
	return parts
}

// isBareLink reports whether s is a link to a host and nothing more, which is no secret.
func isBareLink(s string) bool {
	u, ok := parseLink(s)
	return ok && (u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.Fragment == ""
}

// parseLink parses a link as people follow it.
func parseLink(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	return u, err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}

// looksLikeToken tells the secret parts of a link from the words of its path: a token is
// long enough not to be guessed, and random letters without a single digit or capital
// among 16 are rarer than words with none.
func looksLikeToken(s string) bool {
	digits := strings.ContainsAny(s, "0123456789")
	capitals := strings.ToLower(s) != s
	return len(s) >= 6 && digits || len(s) >= 16 && capitals || len(s) >= 24
}

// public returns v as it may be shown.
func (set secretSet) public(m *Message, v any, secret bool) any {
	switch v := v.(type) {
	case string:
		if secret {
			v = blankSecret(v)
		} else {
			v = links.ReplaceAllStringFunc(v, blankSecret)
		}
		return set.scrub(v)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = set.public(m, item, secret)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, item := range v {
			out[name] = set.public(m, item, secret || m.isSecretName(name))
		}
		return out
	case bool, nil:
		return v
	}
	return Blank // no other type comes out of Prepare
}

// blankSecret blanks a secret, but leaves of a link where it leads.
func blankSecret(v string) string {
	if v == "" || isBareLink(v) {
		return v
	}
	if u, ok := parseLink(v); ok {
		return u.Scheme + "://" + u.Host + "/" + Blank
	}
	return Blank
}

func (set secretSet) scrub(s string) string {
	low := asciiLower(s)
	for _, secret := range set {
		if at := indexSecret(low, secret.text, 0); at >= 0 {
			s = blankAll(s, low, secret.text, at)
			low = asciiLower(s)
		}
	}
	if at := set.cutOffAt(low); at >= 0 {
		return s[:at] + Blank
	}
	return s
}

// holds reports whether a text contains a secret.
func (set secretSet) holds(s string) bool {
	low := asciiLower(s)
	return slices.ContainsFunc(set, func(s secret) bool { return indexSecret(low, s.text, 0) >= 0 })
}

// blankAll replaces a secret in s, which is low in lower case, from its first place on.
func blankAll(s, low, secret string, at int) string {
	var b strings.Builder
	from := 0
	for at >= 0 {
		b.WriteString(s[from:at])
		b.WriteString(Blank)
		from = at + len(secret)
		at = indexSecret(low, secret, from)
	}
	b.WriteString(s[from:])
	return b.String()
}

// indexSecret finds a secret in low at or after from. A short one counts only as a word
// of its own: 4711 is no secret in 147110.
func indexSecret(low, secret string, from int) int {
	for {
		i := strings.Index(low[from:], secret)
		if i < 0 {
			return -1
		}
		i += from
		end := i + len(secret)
		if len(secret) >= longSecret || (i == 0 || !isAlnum(low[i-1])) && (end == len(low) || !isAlnum(low[end])) {
			return i
		}
		from = i + 1
	}
}

// cutOffAt returns where the beginning of a long secret stands at the end of low, as
// where a text was cut off; -1 if none does.
func (set secretSet) cutOffAt(low string) int {
	for _, secret := range set {
		for n := min(len(secret.text)-1, len(low)); n >= longSecret; n-- {
			if strings.HasSuffix(low, secret.text[:n]) {
				return len(low) - n
			}
		}
	}
	return -1
}
