package dnscheck

import "time"

// Report is what one check found out about a domain. Its JSON is a contract with
// scripts: fields are added, never renamed.
type Report struct {
	Version int       `json:"version"` // 1
	Query   string    `json:"query"`   // as given
	Domain  string    `json:"domain"`  // as looked up: lower case, A-labels
	At      time.Time `json:"at"`
	TookMS  int64     `json:"took_ms"`
	Queries int       `json:"queries"` // different questions put to the DNS

	Verdict Verdict `json:"verdict"`
	Summary string  `json:"summary"`  // the answer in one sentence
	Next    string  `json:"next"`     // the one thing to do; empty if there is nothing
	WhoActs Who     `json:"who_acts"` // who does it

	Provider *Product `json:"provider,omitempty"` // the product that their MX leads to
	Behind   *Product `json:"behind,omitempty"`   // the mailbox product that stands behind a gateway

	Facts     map[string]any `json:"facts"`
	Findings  []Finding      `json:"findings"` // the gravest first
	Allowlist []Advice       `json:"allowlist"`
	Clients   []ClientAdvice `json:"clients,omitempty"` // what a person can do in their own mail program
	History   *History       `json:"history,omitempty"`
	SMTP      []Conversation `json:"smtp,omitempty"` // one an exchanger, if it was asked for
}

// Verdict answers whether mail from us will arrive.
type Verdict string

// The verdicts.
const (
	Arrives       Verdict = "arrives"       // nothing known stands in the way
	Held          Verdict = "held"          // something will refuse or hide it
	Undeliverable Verdict = "undeliverable" // nobody there takes mail
	Unknown       Verdict = "unknown"       // the DNS did not answer
)

// Who has to act.
type Who string

// The actors.
const (
	Nobody  Who = "nobody"
	TheirIT Who = "their_it"
	Us      Who = "us"
)

// State is how grave a finding is.
type State string

// The states. Unknown things are never reported as missing.
const (
	StateFail    State = "fail"
	StateWarn    State = "warn"
	StateInfo    State = "info"
	StateOK      State = "ok"
	StateUnknown State = "unknown"
)

// Concern says whose mail a finding is about.
type Concern string

// The concerns.
const (
	// Receiving: it decides whether they can receive mail, ours too.
	Receiving Concern = "receiving"
	// TheirMail: it is about the mail that they send. It doesn't hold ours back.
	TheirMail Concern = "their_mail"
	// OurMail: it is about our own sending side.
	OurMail Concern = "our_mail"
)

// Finding is one fact that is not as it should be, or worth knowing.
type Finding struct {
	Code     string   `json:"code"` // stable, see Codes
	State    State    `json:"state"`
	Subject  string   `json:"subject"` // which include, which exchanger, which address
	Text     string   `json:"text"`
	Evidence []string `json:"evidence,omitempty"` // records as published, by whom, how fresh
	Fix      string   `json:"fix,omitempty"`      // the literal record to publish, or the step
	RFC      string   `json:"rfc,omitempty"`
	WhoActs  Who      `json:"who_acts"`
	Concerns Concern  `json:"concerns"`
	Matters  bool     `json:"matters"` // it matters for mail from us
}

// Product is something that receives or filters mail.
type Product struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Advice is one way to let our mail in, with our values filled in.
type Advice struct {
	Product     string              `json:"product"`
	Method      string              `json:"method"`
	Rank        int                 `json:"rank"` // 1 is what we recommend
	Recommended bool                `json:"recommended"`
	Steps       []string            `json:"steps"`
	Values      map[string][]string `json:"values"`
	Identifier  []string            `json:"identifier"` // what the rule recognises us by
	Skips       string              `json:"skips,omitempty"`
	Applies     string              `json:"still_applies,omitempty"`
	Caveats     []string            `json:"caveats,omitempty"`
	Header      string              `json:"header,omitempty"` // what to look for in a message that arrived
	Source      string              `json:"source,omitempty"`
	Verified    bool                `json:"verified"` // against the maker's own documentation; else menus may differ
}

// ClientAdvice is what one person can do in a mail program.
type ClientAdvice struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Steps    []string `json:"steps"`
	Limits   string   `json:"limits,omitempty"`
	Source   string   `json:"source,omitempty"`
	Verified bool     `json:"verified"`
}

// History is what happened to mail that we have sent to the domain.
type History struct {
	Since    time.Time      `json:"since"`
	Accepted int            `json:"accepted"`
	Delayed  int            `json:"delayed"`
	Refused  int            `json:"refused"`
	Causes   map[string]int `json:"causes,omitempty"`
	// TypicalDelayMS is the median time from the queue to the hand-over.
	TypicalDelayMS int64 `json:"typical_delay_ms,omitempty"`
	// SlowDelayMS is the time within which nine of ten were handed over.
	SlowDelayMS int64          `json:"slow_delay_ms,omitempty"`
	TLS         map[string]int `json:"tls,omitempty"` // messages by TLS version
	LastReplies []string       `json:"last_replies,omitempty"`
}
