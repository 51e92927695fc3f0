// Package smtptest has the other side of an SMTP conversation, for tests, for
// rehearsals and for benchmarks:
//
//   - [Sink] stands for every recipient's mail server: a small, fast, well-behaved
//     SMTP server on loopback that catches mail, keeps the last of it, counts what it
//     accepted, and can be told per address to greylist, refuse, stall or vanish.
//   - [Network] plays transcripts, for what no server library can be made to say:
//     each connection to an address gets the next script of that address, over
//     net.Pipe (for testing/synctest) or over loopback (for what only a kernel does).
//
// Neither is a mail server for anything but our own mail: nothing is relayed,
// nothing is stored on disk.
package smtptest
