package mail

import (
	"errors"
	"time"
)

type Preparer struct {
	Kinds         map[string]Kind
	Templates     *Templates
	From          string
	FromDomains   []string
	Now           func() time.Time
	TenantDomains func(tenant string) []string
}

func (p *Preparer) Prepare(r Request) (Message, []Warning, error) {
	return Message{}, nil, &Problem{Type: ProblemUnavailable, Title: "Not built yet", Status: 503}
}

type Templates struct{}

func LoadTemplates(dir string) (*Templates, error) { return &Templates{}, nil }

func (t *Templates) Render(m *Message) ([]byte, error) { return nil, errors.New("not built yet") }

func (t *Templates) Preview(m *Message) (subject, text, html string, err error) {
	return "", "", "", errors.New("not built yet")
}

func (m *Message) PublicData() map[string]any { return nil }

func (m *Message) Scrub(s string) string { return s }
