package bounces

import "github.com/deliverd/deliverd/mail"

// Explained is what `deliverd explain` and POST /v1/bounces answer: one document for
// a reply or for a mail.
type Explained struct {
	Kind    string            `json:"kind"` // "reply", or a Kind
	Reports []ExplainedReport `json:"reports"`
}

// ExplainedReport is what is to be told of one recipient. The fields of the contract are
// always there, so that scripts need not ask for them.
type ExplainedReport struct {
	Recipient  string     `json:"recipient"`
	Action     Action     `json:"action"` // of a reply: failed for 5xx, delayed for 4xx
	Status     string     `json:"status"` // "5.1.1"
	Code       int        `json:"code"`   // 550
	Cause      mail.Cause `json:"cause"`  // "" where nothing failed
	Hard       bool       `json:"hard"`
	Suppress   bool       `json:"suppress"`
	Retry      bool       `json:"retry"`
	RetryAfter int        `json:"retry_after,omitempty"` // seconds
	WhoActs    mail.Actor `json:"who_acts"`
	Plain      string     `json:"plain"`
	NextStep   string     `json:"next_step"`
	Reply      string     `json:"reply"` // text to paste to the customer
	Provider   string     `json:"provider"`
	Said       string     `json:"said,omitempty"` // the server's words
	Rule       string     `json:"rule,omitempty"` // the name of the rule that decided
}

// ExplainReply explains one SMTP reply, as pasted from a log, in a language. The
// reply may stand within a line of the log: "status=bounced (host x said: 550 ...".
func ExplainReply(text, lang string) Explained {
	var said Said
	var ok bool
	if said.Reply, ok = ParseReply(text); !ok {
		said = saidIn(text, mail.EnhancedCode{}, false)
	}
	reply := said.Reply
	r := Report{Status: reply.Enhanced, Reply: reply, Verdict: Classify(said)}
	switch reply.Code / 100 {
	case 4:
		r.Action = ActionDelayed
	case 5:
		r.Action = ActionFailed
	}
	return Explained{Kind: "reply", Reports: []ExplainedReport{explainReport(r, lang)}}
}

// ExplainMail explains a mail that came back, in a language.
func ExplainMail(raw []byte, lang string) Explained {
	returned := Parse(raw)
	e := Explained{Kind: string(returned.Kind), Reports: []ExplainedReport{}}
	for _, r := range returned.Reports {
		e.Reports = append(e.Reports, explainReport(r, lang))
	}
	return e
}

func explainReport(r Report, lang string) ExplainedReport {
	v := r.Verdict
	text := Explain(v.Cause, lang)
	if v.Cause == "" {
		text = ExplainAction(r.Action, lang)
	}
	facts := Facts{To: r.Recipient, Said: r.Reply.Text}
	if v.Provider != "" {
		facts.Provider = ProviderName(v.Provider)
	}
	if r.Recipient != "" {
		facts.Domain = mail.Address(r.Recipient).Domain()
	}
	text = text.Fill(facts)
	return ExplainedReport{
		Recipient: r.Recipient, Action: r.Action, Status: r.Status.String(), Code: r.Reply.Code,
		Cause: v.Cause, Hard: v.Hard, Suppress: v.Suppress, Retry: v.Retry, RetryAfter: int(v.RetryAfter.Seconds()),
		WhoActs: text.Who, Plain: text.Plain, NextStep: text.NextStep, Reply: text.Reply,
		Provider: v.Provider, Said: r.Reply.Text, Rule: v.Rule,
	}
}
