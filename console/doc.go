// Package console is where people and their scripts look and act: the read model,
// the story told from it, the JSON API with its tokens, and the pages.
//
// What happens on the way from a fact to a sentence:
//
//	event log ── Follow ──▶ View      facts folded into SQLite, in batches
//	View ── Lookup, List ─▶ facts     one message's events, newest-first lists
//	View ── FindPeople ───▶ people    by parts and small typos: a trigram index finds
//	                                  rows, which are held against the query and joined
//	                                  into persons ([API.SearchPeople], [API.TellPerson])
//	View ── Incidents ────▶ incidents many failures with one cause at one place, counted
//	                                  from the facts in slots of ten minutes
//	facts ── Tell ────────▶ Message   verdict, who acts, next step, the timeline,
//	                                  in English or Finnish
//	Message ── API, Pages ▶ JSON, HTML
//	API ── Backend ───────▶ queue     cancel, pause, retry, suppress, with a name
//	                                  and a reason
//
// and from a domain to a page:
//
//	dnscheck ── Domains ──▶ report    one run for all who ask, our history joined,
//	                                  compared with the run before
//	report ── TellDomain ─▶ story     the answer, what to do and who does it, three
//	                                  blocks: for a page behind a signed link, and for
//	                                  a terminal
//
// and from a browser or a program to a name and a role:
//
//	token ────────────────▶ Principal  what its scopes say, for its tenants
//	OIDC, proxy, link ────▶ groups     a session's cookie, or each request's header
//	groups ── grants ─────▶ Principal  a role, by the configuration of the moment
//	Route.Scope ──────────▶ Handler    who may; what is another tenant's isn't there
//	act ── ServiceLog ────▶ Chain      who, what, why: each entry with the hash of the last
//
// The View is a projection and never the truth: it is thrown away and built anew
// whenever it is missing, damaged, of another schema, or no longer fits the log.
// Folding a fact twice changes nothing and the order of facts does not matter, so
// that every node arrives at the same view.
//
// Folding one event of somebody known costs some 60 µs of CPU; the first message to a
// new person some 40 µs more, nearly all of it for the trigram index. Rows of people
// are the set of what facts say and are never updated, see [newcomers].
//
// The package imports the vocabulary, the catalogue of causes, the words of domain
// reports and nothing else of this module: it acts through [Backend] and keeps tokens
// and runs in a [Store], both wired by the program.
package console
