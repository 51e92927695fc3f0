// Package backup copies a deliverd's store into one file while it is in use, makes a
// data directory of such a file, and says of either whether it is whole.
//
// # The file
//
// A tar, so that anybody can look into it:
//
//	backup.json                 format, when it was begun, by which version
//	STREAM/stream.json          the stream's configuration
//	STREAM/00000001.jsonl.gz    its messages, one JSON object a line, some MiB in a piece
//	…
//	manifest.json               size and SHA-256 of every entry, the last place of every stream
//	manifest.sha256             the last, of manifest.json
//
// Nothing in it depends on how the NATS server keeps its files. Memory is bounded by a
// piece on both sides, but for what queue.Ledger needs when a file is read.
//
// # The order
//
// The streams come in the order of queue.StreamsToCopy: records before the event log.
// Each is read to its end, and the records' streams until nothing is left to read
// behind the last message: a record that is written anew during the copy moves to the
// stream's end and is met there. That is why this isn't the server's own snapshot
// (STREAM.SNAPSHOT), which looks at no place after the one that was the last when it
// began: a record written anew meanwhile would be in no copy. After the log, what came
// to the records meanwhile is copied as well.
//
// # Secrets
//
// Data and signed bytes are sealed in the store, and so they are here; tokens are there
// as hashes. The keys are not in the file: WriteKeys makes another one of them.
//
// # Restoring
//
// Places and times of all messages stay as they were. A record that waits although the
// log knows its end is left out, and the marks of an orderly stop are, so that what was
// due is sent with the note that it may be a duplicate: nobody knows what was handed
// over after the copy.
package backup
