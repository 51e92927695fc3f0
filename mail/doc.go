// Package mail is the vocabulary that every other package speaks: the message
// that an auth service hands over, the attempt and its outcome, the events that
// tell its story, and what a caller is told when a message can't be taken. It
// also owns what is true of a message before any network is involved: address
// hygiene, kinds, templates, and rendering to RFC 5322 bytes.
//
// It is a leaf: it imports nothing else of this module, so that no neighbour has
// to import a neighbour to get at a type.
//
// The order in which a message passes through it:
//
//	Request ── Prepare ──▶ Message        addresses cleaned, kind's rules, template
//	                                      and variables checked, or a Problem
//	Message ── PublicData, Scrub ▶ text   what may be stored in clear, shown, logged
//	Message ── Render ───▶ RFC 5322 bytes the same bytes for the same message, always
//	Attempt ── (deliver) ▶ Outcome        a refusal is a result, not an error
//	Outcome ── (queue) ──▶ Event          one fact per message, attempt and state
package mail
