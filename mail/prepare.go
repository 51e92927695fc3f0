package mail

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Preparer makes messages of requests. It has no state of its own and may be used
// concurrently.
type Preparer struct {
	Kinds     map[string]Kind
	Templates *Templates
	// From is the mailbox that mail comes from if the request names none:
	// "Acme <no-reply@example.com>".
	From string
	// FromDomains are the domains that a request may send from, in A-labels. From's own
	// always is.
	FromDomains []string
	Now         func() time.Time // nil: time.Now
	// TenantDomains returns the domains of a tenant's own people, to notice slips in an
	// address; it may be nil.
	TenantDomains func(tenant string) []string
}

// What a request may hold, in bytes and in numbers. Everything here is shown to people
// in one line, or stored with a million others.
const (
	maxIdentifier = 128
	maxKey        = 256
	maxTags       = 20
	maxTag        = 64
	maxMetadata   = 20
	maxMetaValue  = 500

	minLife = 5 * time.Second // what expires sooner can't arrive
)

// MaxLife bounds how long a message waits, and so how long its secrets are kept and
// its signature is of use.
const MaxLife = 30 * 24 * time.Hour

// Prepare checks a request and makes the message of it that may be enqueued: addresses
// cleaned, the template known and able to say it all, its links sound, no line break
// anywhere, the secrets where they can be sealed and nowhere else, the expiry within
// bounds. The error is always a *[Problem], and repeats no value of the request.
func (p *Preparer) Prepare(r Request) (Message, []Warning, error) {
	kind, ok := p.Kinds[r.Kind]
	if !ok {
		return Message{}, nil, unprocessable(ProblemUnknownKind, "kind", "There is no kind of mail with this name",
			"Use one of: "+strings.Join(sortedKeys(p.Kinds), ", ")+".")
	}
	m := p.begin(r)
	var warnings []Warning
	for _, step := range []func() *Problem{
		func() (problem *Problem) { warnings, problem = p.prepareTo(&m, r); return problem },
		func() *Problem { return checkFields(&m) },
		func() *Problem { return p.prepareSender(&m, r) },
		func() *Problem { return prepareExpiry(&m, kind, r.ExpiresAt) },
		func() *Problem { return prepareData(&m, r) },
		func() *Problem { return p.prepareTemplate(&m, r.Locale) },
		func() *Problem { return prepareSecrets(&m, r.Secrets) },
		func() *Problem { return checkNoSecretShown(&m) },
		func() *Problem { return prepareAttached(&m, r) },
	} {
		if problem := step(); problem != nil {
			return Message{}, nil, problem
		}
	}
	m.SupersedeKey = supersedeKey(&m, kind)
	return m, warnings, nil
}

// begin makes the message of what needs no decision.
func (p *Preparer) begin(r Request) Message {
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	queued := now().UTC().Truncate(time.Microsecond) // what the log's readers keep
	m := Message{
		ID: NewID(queued), Kind: r.Kind, Tenant: r.Tenant, TenantName: strings.TrimSpace(r.TenantName),
		ToName: strings.TrimSpace(r.ToName), PersonID: r.PersonID,
		Template: cmp.Or(r.Template, r.Kind), Tags: slices.Clone(r.Tags), Metadata: maps.Clone(r.Metadata),
		QueuedAt: queued, SupersedeKey: r.SupersedeKey, IdempotencyKey: r.IdempotencyKey, ResendOf: r.ResendOf,
	}
	m.Ref = m.ID.Ref()
	return m
}

func unprocessable(kind, field, title, detail string) *Problem {
	return &Problem{Type: kind, Title: title, Status: 422, Field: field, Detail: detail}
}

func invalid(field, title, detail string) *Problem {
	return unprocessable(ProblemInvalid, field, title, detail)
}

func (p *Preparer) prepareTo(m *Message, r Request) ([]Warning, *Problem) {
	var domains []string
	if p.TenantDomains != nil && r.Tenant != "" {
		domains = p.TenantDomains(r.Tenant)
	}
	to, warnings, err := cleanAddress(r.To, domains)
	if err != nil {
		return nil, unprocessable(ProblemAddressInvalid, "to", "The recipient's address can't be used",
			sentence(err)+" Ask the person how the address is spelled.")
	}
	m.To = to
	return warnings, nil
}

// sentence makes an error's text one.
func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// checkFields checks everything that is shown as it is.
func checkFields(m *Message) *Problem {
	fields := []struct {
		name, value string
		max         int
	}{
		{"to_name", m.ToName, maxName},
		{"tenant", m.Tenant, maxIdentifier},
		{"tenant_name", m.TenantName, maxName},
		{"person_id", m.PersonID, maxIdentifier},
		{"template", m.Template, maxIdentifier},
		{"supersede_key", m.SupersedeKey, maxKey},
		{"idempotency_key", m.IdempotencyKey, maxKey},
	}
	for _, f := range fields {
		if problem := checkShown(f.name, f.value, f.max); problem != nil {
			return problem
		}
	}
	if len(m.Tags) > maxTags {
		return invalid("tags", "There are too many tags", fmt.Sprintf("At most %d are kept.", maxTags))
	}
	for _, tag := range m.Tags {
		if problem := checkShown("tags", tag, maxTag); problem != nil {
			return problem
		}
	}
	if problem := checkMetadata(m.Metadata); problem != nil {
		return problem
	}
	if m.ResendOf != "" {
		if _, err := m.ResendOf.Bytes(); err != nil {
			return invalid("resend_of", "This is not the id of a message", "Give the id that the first message's receipt named.")
		}
	}
	return nil
}

// metadataName keeps metadata's names fit for a log, a query and a column's head.
var metadataName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}$`)

func checkMetadata(metadata map[string]string) *Problem {
	if len(metadata) > maxMetadata {
		return invalid("metadata", "There is too much metadata", fmt.Sprintf("At most %d entries are kept.", maxMetadata))
	}
	for _, name := range sortedKeys(metadata) {
		if !metadataName.MatchString(name) {
			return invalid("metadata", "A name in the metadata can't be used", "Use up to 64 letters, digits and any of _.:- in them.")
		}
		if problem := checkShown("metadata."+name, metadata[name], maxMetaValue); problem != nil {
			return problem
		}
	}
	return nil
}

// checkShown refuses text that is too long or that does something other than being
// read.
func checkShown(field, value string, most int) *Problem {
	if len(value) > most {
		return invalid(field, "The field is too long", fmt.Sprintf("At most %d bytes of UTF-8.", most))
	}
	if bad := unshowable(value); bad != "" {
		return invalid(field, "The field holds a character that can't be shown", "It holds "+bad+". Send plain text on one line.")
	}
	return nil
}

// prepareSender sets From and Reply-To.
func (p *Preparer) prepareSender(m *Message, r Request) *Problem {
	from := r.From
	if from == "" {
		from = p.From
	}
	name, a, err := ParseMailbox(from)
	if err != nil {
		return invalid("from", "The sender can't be used", sentence(err)+" Write it as: Acme <no-reply@example.com>")
	}
	if r.From != "" && !p.mayUse(a.Domain()) {
		return invalid("from", "This sender's domain is not ours to send from",
			"Leave the field out, or have the operator add the domain and its DKIM key to the configuration.")
	}
	m.From = joinMailbox(name, a)
	if r.ReplyTo == "" {
		return nil
	}
	if name, a, err = ParseMailbox(r.ReplyTo); err != nil {
		return invalid("reply_to", "The address for replies can't be used", sentence(err)+" Give one address.")
	}
	m.ReplyTo = joinMailbox(name, a)
	return nil
}

func (p *Preparer) mayUse(domain string) bool {
	_, own, err := ParseMailbox(p.From)
	return err == nil && domain == own.Domain() ||
		slices.ContainsFunc(p.FromDomains, func(d string) bool { return asciiLower(d) == domain })
}

func prepareExpiry(m *Message, kind Kind, asked time.Time) *Problem {
	m.ExpiresAt = asked.UTC()
	if asked.IsZero() {
		m.ExpiresAt = m.QueuedAt.Add(kind.ValidFor)
	}
	switch life := m.ExpiresAt.Sub(m.QueuedAt); {
	case life < minLife:
		return unprocessable(ProblemExpired, "expires_at", "The message has expired, or is about to",
			"Make a new link or code, and send it with its own expiry. If the time looks right, compare the clocks of the two machines.")
	case life > MaxLife:
		return invalid("expires_at", "The expiry is too far away", "A message is kept for 30 days at most: secrets should not live longer.")
	}
	return nil
}

// supersedeKey names what a newer message takes the place of, "" for nothing. A key
// never reaches beyond its tenant, whoever chose it.
func supersedeKey(m *Message, kind Kind) string {
	tenant := url.PathEscape(m.Tenant)
	switch {
	case m.SupersedeKey != "":
		return "key/" + tenant + "/" + m.SupersedeKey
	case !kind.Supersede:
		return ""
	case m.PersonID != "":
		return m.Kind + "/" + tenant + "/person/" + m.PersonID
	}
	return m.Kind + "/" + tenant + "/to/" + m.To.Key()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
