// Package queue keeps messages until they are settled and remembers what happened to
// them. It is the one place where deliverd meets NATS JetStream: an embedded server or
// a cluster, there is no other database.
//
// # The walk of a message
//
//	Enqueue   the idempotency key is looked up; Data is sealed
//	          1. the record           DELIVERD_Q<shard>, key = id, created
//	          2. side by side         DELIVERD_KEYS    idempotency key → id, hash of the request
//	                                  DELIVERD_LATEST  supersede key → newest id; not
//	                                                   where one process has the store, newest.go
//	          nil: safe (law 1)
//	feed      the shard's owner hears of the record (headers only) and holds 72 bytes of it
//	Work      the most urgent due message whose destination has a free slot; cancelled,
//	          superseded, expired or suppressed: ended without an attempt
//	attempt   package deliver
//	next      a pure function of message, attempt, outcome and clock: an event and the next due time
//	record    compare-and-set: the outcome is safe, with the events that it brings; after
//	          the last word the sealed Data goes with the same write
//	say       the events are published to DELIVERD_EVENTS
//	bury      the record of an ended message is replaced by a marker that lapses
//
// # States
//
//	queued      the record is there; no attempt has ended
//	sending     a worker has it; in no record, as a crash repeats the attempt anyway
//	delayed     an attempt ended without a decision; its number and the next due time are in the record
//	terminal    accepted, refused, expired, superseded, cancelled, suppressed: the record is an outbox
//	buried      gone from the bucket; the event log has the story
//	kept        not buried: an invite that may be sent again as it is, until it expires (kept.go)
//
//	from      outcome or wish                     to          written
//	queued    delayed                             delayed     record (and signed bytes, once), event
//	delayed   delayed                             delayed     record, event; at_risk once, when the next is too late
//	both      accepted, refused                   terminal    record without Data, event, marker
//	both      expires_at has passed               expired     the same
//	both      a newer one is in LATEST            superseded  the same
//	both      Cancel                              cancelled   the same
//	both      the address was suppressed          suppressed  the same
//	both      "" (interrupted, our own fault)     as it was   nothing; again after 1 s, doubling to 1 min
//	delayed   maybe accepted, kind at_most_once   refused     with possible_duplicate
//
// # Crashes
//
// Nothing is written before an attempt begins: attempt n+1's number is part of the
// record that is written after attempt n. What a crash leaves is finished by the next
// owner of the shard, a new process on the same store included:
//
//	after the record       its keys are entered (the client was not answered; its retry finds them)
//	after the keys         the client's retry with the same idempotency key gets the first id
//	in an attempt          the attempt is repeated
//	after the outcome      the record's events are published again; the same event has the same ID
//	after the events       the record is buried
//
// Which records' events are in the log is known from a mark per shard that is saved
// every second, so a restart says again what the last second said and not everything.
// A revision written while an earlier one's events are still on their way carries them
// along. TestCrashLoop kills the process at each of its calls of the store in turn and
// looks at the laws.
//
// # Duplicates
//
// A message is sent twice only if the connection broke between the final dot and its
// reply, or if deliverd, its machine or the store died between that reply and the
// record of it: at most as many messages as attempts were under way, and the event of
// the repeated attempt says so (see journal.go). The repeated attempt has the same
// number; it sends the same bytes if an attempt before it ended in a delay, and the
// same Message-ID always. When the store takes no writes, nothing
// new is begun, and outcomes wait for it with their slots. With several nodes, an
// owner that lost its lease is told by Attempt.Proceed before it dials and before the
// dot; a dot that is already out when the lease ends may be followed by the other
// node's.
//
// Attempt.Proceed answers at both of its moments alike: it says ErrSuperseded also
// before the final dot. Whoever has sent DATA goes on regardless (law 4), and stops for
// ErrExpired, ErrCancelled and ErrInterrupted.
//
// # Shards
//
// A message waits in the shard of its recipient's domain, so that one node sees all of
// a domain's mail; lane 1 has one more shard to itself, because a PIN's write would
// otherwise wait for the group of a backlog's writes that its stream is busy with.
// A node's share of the shards is their number through that of the nodes; Options.Alone
// takes all and waits for no dead lease.
//
// # Destinations
//
// What is due waits by where it goes: a destination is what mail of several domains has
// in common, the servers. Only an attempt finds that out (mail.Attempt.Enter), so a
// domain is a destination of its own until one has, and its ready mail follows then; an
// attempt that finds no room goes back before it dials, and does not count.
//
//	window    how many attempts at once, by Postfix's feedback        window.go
//	turns     which tenant's message is next, lane by lane            dest.go
//	room      a tenth for lane 1; a second attempt where there is one
//	doubt     what has not shown that it takes mail has half of all slots: a hundred black
//	          holes can't have the other half
//	down      a look at a time, after 30 s and up to 5 min, but lane 1 whenever it is due,
//	          and what would expire before the look
//	pace      attempts a minute, where the limit is not of connections
//	lessons   what one node learns the others hear within a second; nodes that send to
//	          one destination share its window evenly                 learned.go
//
// Only connections count against a destination (mail.Contact), never what was said of a
// message or a recipient. What one node is asked of the queue it asks the others
// (nodes.go), over the subjects deliverd.v1.node.*: whoever may publish there can slow
// mail down.
//
// # Newest wins
//
// Messages with one supersede key are ordered by QueuedAt, and by id where that is the
// same. Before every attempt the owner looks into DELIVERD_LATEST, a direct get
// of some 60 µs. When no other process can enqueue (Options.Alone) the newest waiting
// message of each key is known in memory, and Enqueue writes a wish into the record of
// the older one before it returns; a record that this process took in is not looked
// up, and DELIVERD_LATEST is written only while the memory is still being filled: see
// newest.go.
//
// # Clock
//
// The schedule runs on the monotonic clock and follows the wall clock's small
// corrections. A jump is believed when it has lasted two minutes; until then nothing
// expires by it, and nothing is tried that would have expired by it: a clock that is
// wrong for a moment kills no message (FAULTS F19 asks for an attempt after the jump
// instead, which law 3 forbids where the jump was true), and a machine that slept
// sends nothing late.
//
// # Chain
//
// DELIVERD_LOG holds records in one order for all nodes, each made in view of the one
// before it: [Queue.Link] appends by compare-and-set on the stream's one subject. It is
// not what the mail needs: a record that can't be written delays none.
//
// # Secrets
//
// Data and the signed bytes are sealed, see [KeyRing]; the record's other parts are
// what may be shown. The store removes a record by itself 72 hours after its expiry,
// if no deliverd runs to end it. Data that may be sent again is kept beyond a message's
// end, but not beyond its expiry.
//
// # Measured
//
// On 2 cores (Xeon, ext4), nats-server 2.15.2 embedded, fsync with every write, 8
// shards, records of 1.1 KiB. The rates are the machine's, which was never free (the
// better ones at a load of 3 to 6, before DELIVERD_LATEST was spared; the worse ones at
// 16, after); the CPU is the queue's, the server's and the event's:
//
//	                                       1 caller       64 callers       256 callers
//	Enqueue, with a supersede key          620-2,140/s    1,560-3,300/s    900-4,250/s
//	  CPU, DELIVERD_LATEST written         446 µs         358 µs           310 µs
//	  CPU, the newest known in memory      282 µs         236 µs           201 µs
//	Enqueue, an idempotency key as well    470-1,720/s    885-2,730/s      600-3,230/s
//	  CPU                                  457 µs         332 µs           379 µs
//	whole life, the attempt does nothing   450-1,670/s    560-1,720/s      890-2,270/s
//	  CPU                                  599-704 µs     536-757 µs       537-588 µs
//
//	a PIN, Enqueue to its attempt          p50        p99
//	  alone                                0.7 ms     2.8 to 10 ms
//	  behind 29,000 invites at 600/s       0.8 ms     68 ms
//	  behind 14,000 at the store's limit   16 ms      112 ms
//
//	1,000,000 waiting, with DELIVERD_LATEST  595 MB of heap with the server's, after a collection;
//	                                         1.5 GB resident before one (GOMEMLIMIT bounds it)
//	  from a cold start to the whole scan    17 s, 3.4 s of them the server's; 60,000: 1.2 s
//	558,000, without                         400 MB of heap, some 290 bytes a message the server's
//	  in the first minutes after a start     some 460 bytes, until the server forgets what each
//	                                         block holds by subject, which a scan makes it read
//	  the scan after a clean stop            17 µs of CPU a message: a quarter the server's recovery
//
// What a PIN waits for behind a backlog that is delivered is neither the store nor this
// package but its turn to run: each of the shards' streams is in an fsync and keeps one of
// GOMAXPROCS places meanwhile. The program therefore asks for more of them than there are
// cores. A bound on the attempts at once was not needed: what is rendered and signed is
// bounded already, and the places were not taken by attempts.
//
// The scheduler's part of a message, with a million others that are due: 6.3 µs over
// 10,000 destinations, 5.4 µs with all in one; before there were windows, turns and looks
// it was 5.0 and 3.0. What windows do is printed by
//
//	go test ./queue -run 'A5[234]Simulation' -v
//
// A batch is worth it late: staging one costs the server 1 ms of CPU and a dozen file
// operations, so that batches from 6 writes on made everything slower than single
// writes did, up to some 15; hence the pace that each appender learns. The PIN's own
// shard took its p50 behind a saturated store from 38 ms to 17 ms. Repeat with
//
//	go test ./queue -run - -bench 'Enqueue|WholeLife' -benchtime 4000x
//	go test ./queue -run - -bench Take -benchtime 200000x
//	QUEUE_BACKLOG=30000 go test ./queue -run - -bench PIN -benchtime 200x
//	QUEUE_WAITING=1000000 go test ./queue -run - -bench Restart -benchtime 1x -timeout 1h
package queue
