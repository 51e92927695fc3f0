// Package intake is the one function by which mail comes in, [Intake.Submit], and
// the doors around it: HTTP ([Intake.Routes]) and NATS ([Intake.HandleSend]). Both
// doors decode with the same strict decoder, ask the same function and answer with
// the same [mail.Problem], so that a request is taken or refused alike whichever
// way it came.
//
// What Submit does, in this order:
//
//  1. tenant: the caller may speak for it, or the answer is "not found"
//  2. key: the idempotency key is one that can be kept
//  3. load: the tenant's rate; before any work is done for the request
//  4. prepare: addresses, kind, template and variables, by package mail
//  5. suppress: an address known not to take mail is answered at once, with why
//  6. flood: the recipient's rates; a retry of the same request is not counted
//  7. advise: warnings that only the network knows, from memory, bounded in time
//  8. enqueue: nil from the queue means that the message is safe (law 1)
//
// What may be assumed: a refusal is always a *mail.Problem, and no part of it
// repeats a value of the request, because values may be secrets; the decoder's
// errors say which field and at which byte instead. A request is read up to
// [MaxBody] and never further. Memory does not grow with the number of tenants or
// recipients: see [Limits].
//
// The package knows neither NATS nor the queue nor DNS. It gets what it needs of
// them as functions, in [Options].
package intake
