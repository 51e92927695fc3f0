// Package bounces knows what a refusal means, whether a server said it during
// delivery or mailed it back later, and takes the mail that comes back.
//
// The order in which a refusal passes through it:
//
//	"550 5.1.1 ..." ── ParseReply ──▶ mail.Reply
//	mail.Reply ─────── Classify ────▶ Verdict      cause, hard or soft, retry, suppress
//	a mail's bytes ─── Parse ───────▶ Returned     kind; a Report a recipient, each with a Verdict
//	Returned ───────── Event ───────▶ mail.Event   returned, delayed or complained
//	mail.Event ─────── Suppress ────▶ mail.Suppression, or none: one policy for both ways
//	mail.Cause ─────── Explain ─────▶ Explanation  a sentence, who acts, what to answer
//
// A mail that comes back is addressed to the return path of one message: an opaque
// token with an HMAC ([ReturnPath]). The token alone decides whom the mail is about;
// what the mail says is evidence. [Receiver] is the SMTP listener that takes it:
// go-smtp's server behind a guard.
//
// What the package knows is data, embedded from commented files beside the code:
//
//	rules/           how servers speak: one rule a block, each with an example that a test runs
//	providers.txt    by which host names and words a provider is known
//	mails.txt        by which phrases a bounce, a delay notice or an answer is known
//	causes/          the catalogue: who acts on a cause, and its words in each language;
//	                 a language is added by adding a file
//
// How a text is read: normalise brings it to words in one form, the matcher finds all
// patterns of all rules in one pass, and the first rule whose conditions hold decides.
// How a mail is read: parseMIME splits it into parts, dsn.go reads the fields of a
// notification, freeform.go the text of a bounce that has none, kind.go weighs what the
// mail is, judge.go what was said. All of it is linear in the input and bounded, since
// anybody may send us anything: a text to 1 KiB, a mail to 1 MiB, 100 parts, 10 levels,
// 100 recipients.
//
// Two laws shape it. A text that is about us (our address, our authentication, our
// sender, spam, rate) wins over a code that blames the recipient; and nobody is
// suppressed for a policy: 5.7.x never does, nor does any reply that has words about us
// in it. Both are held by tests, as are the figures of the conformance runs, which
// compare with labelled mails and replies where DELIVERD_SHARED names them.
package bounces
