// Package bounces knows what a refusal means, whether a server said it during
// delivery or mailed it back later.
//
// The order in which a refusal passes through it:
//
//	"550 5.1.1 ..." ── ParseReply ──▶ mail.Reply
//	mail.Reply ─────── Classify ────▶ Verdict       cause, hard or soft, retry, suppress
//	Cause ──────────── Explain ─────▶ Explanation   a sentence, who acts, what to answer
//
// What it knows is data, embedded from commented files beside the code: rules.txt
// (how servers speak, one rule a block, each with an example that a test runs),
// providers.txt (by which host names, words and codes a provider is known) and
// causes.<lang>.txt (the catalogue of causes; a language is added by adding a file).
package bounces
