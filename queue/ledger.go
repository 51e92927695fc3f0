package queue

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/mail"
)

// Stored is one message of a stream as it lies in the store, or in a copy of it.
type Stored struct {
	Seq     uint64
	Subject string
	Time    time.Time
	Header  nats.Header // nil without
	Data    []byte
}

// StreamsToCopy puts the streams of a store into the order in which they have to be
// copied while the store is in use: what marks places in others first, then the
// records, and the event log after all of them, so that whatever became of a record
// that was copied is in the log that was copied. The leases are left out: they are the
// running nodes' own.
func StreamsToCopy(names []string) []string {
	rank := func(name string) int {
		switch {
		case name == kvStream(bucketShared):
			return 0
		case name == eventStream:
			return 3
		case HoldsRecords(name):
			return 1
		}
		return 2
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		ours := IsLog(name) || strings.HasPrefix(name, kvStream("DELIVERD_"))
		return !ours || name == kvStream(bucketLeases)
	})
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}

// A Ledger holds what lies in a copy of the store, or in a store that nobody uses,
// against its own event log: what was accepted, what has ended, what waits. It is law
// 2 for data at rest. Give it every message of every stream in the order of
// [StreamsToCopy], and where Suspects says so the event log once more.
//
// Its memory grows with the messages that wait, not with the log.
type Ledger struct {
	// Unsure says that the last places of the copy's streams are not known: then
	// Restores leaves out what refers to places, and the store finds it out anew.
	Unsure bool

	r       Reckoning                 // but for what Reckon sums up
	records map[[16]byte]ledgerRecord // of every message that has one
	open    map[[16]byte]time.Time    // accepted by the log, not ended, without a record
	early   map[[16]byte]struct{}     // ended before the log said that they were accepted
	last    map[string]uint64         // place by stream
	shards  int                       // as the store says; 0 until it did
}

type ledgerRecord struct{ open, ended bool }

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{records: map[[16]byte]ledgerRecord{}, open: map[[16]byte]time.Time{},
		early: map[[16]byte]struct{}{}, last: map[string]uint64{}}
}

// Add takes one message in.
func (l *Ledger) Add(stream string, m *Stored) {
	last := l.last[stream]
	l.last[stream] = max(last, m.Seq)
	bucket := strings.TrimPrefix(stream, "KV_")
	switch {
	case IsLog(stream):
		if last > 0 && m.Seq > last+1 {
			l.r.Holes += int(m.Seq - last - 1)
		}
		if stream == chainStream {
			l.r.Links++
			return
		}
		l.r.Events++
		l.addEvent(stream, m)
	case HoldsRecords(stream):
		l.addRecord(stream, strings.TrimPrefix(m.Subject, kvSubject(bucket, "")), m)
	case bucket == bucketShared && m.Subject == kvSubject(bucket, "queue.shards"):
		l.shards, _ = strconv.Atoi(string(m.Data))
	}
}

func (l *Ledger) addRecord(stream, key string, m *Stored) {
	id, err := mail.ID(key).Bytes()
	if err != nil {
		return // signed bytes, which say nothing of the state
	}
	if Removes(m.Header) {
		delete(l.records, id)
		return
	}
	r, err := decodeRecord(m.Data)
	if err == nil && string(r.Message.ID) != key {
		err = errRecord
	}
	if err == nil {
		_, err = decodeIndex(m.Header.Get(indexHeader))
	}
	if err != nil {
		l.unreadable(stream, m)
		return
	}
	_, ended := l.early[id]
	l.records[id] = ledgerRecord{open: !r.State.Terminal(), ended: ended || l.records[id].ended}
	delete(l.open, id)
	delete(l.early, id)
}

func (l *Ledger) unreadable(stream string, m *Stored) {
	if len(l.r.Unreadable) < auditMost {
		l.r.Unreadable = append(l.r.Unreadable, fmt.Sprintf("%s/%d", stream, m.Seq))
	}
}

func (l *Ledger) addEvent(stream string, m *Stored) {
	var e mail.Event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		l.unreadable(stream, m)
		return
	}
	id, err := e.Message.Bytes()
	if err != nil {
		return // about no message
	}
	r, waits := l.records[id]
	switch {
	case e.State.Terminal() && waits:
		r.ended = true
		l.records[id] = r
	case e.State.Terminal():
		if _, known := l.open[id]; !known {
			l.early[id] = struct{}{}
		}
		delete(l.open, id)
	case e.State == mail.StateQueued && !waits:
		if _, ended := l.early[id]; ended {
			delete(l.early, id)
		} else {
			l.open[id] = m.Time
		}
	}
}

// Suspects reports whether messages seem to be missing. An event may stand in the log
// twice; the log has to be given to Confirm before they are.
func (l *Ledger) Suspects() bool { return len(l.open) > 0 }

// Confirm takes in a message of the event log once more.
func (l *Ledger) Confirm(m *Stored) {
	var e mail.Event
	if json.Unmarshal(m.Data, &e) != nil || !e.State.Terminal() {
		return
	}
	if id, err := e.Message.Bytes(); err == nil {
		delete(l.open, id)
	}
}

// HoldsRecords reports whether a stream is one of those that messages wait in. What
// came to these while the event log was copied has to be copied after it, but for what
// Removes names: the log that was copied may not know why.
func HoldsRecords(stream string) bool { return strings.HasPrefix(stream, kvStream("DELIVERD_Q")) }

// Removes reports whether a message with these headers stands for a removal.
func Removes(h nats.Header) bool { return h.Get(kvOperation) != "" }

// IsLog reports whether a stream is one that nothing is taken out of but by its age.
func IsLog(stream string) bool { return stream == eventStream || stream == chainStream }

// EventLog reports whether a stream is the log that [Ledger.Confirm] wants.
func EventLog(stream string) bool { return stream == eventStream }

// Reckoning is what a ledger comes to.
type Reckoning struct {
	Waiting int `json:"waiting"` // records that wait for an attempt
	Events  int `json:"events"`
	Links   int `json:"service_log_entries"`
	// Ended wait, and the log knows that they have ended: a crash or the moment of the
	// copy came between the two. None of them may be tried again.
	Ended []mail.ID `json:"ended,omitempty"`
	// Missing were accepted, have not ended, and have no record. Late are those of them
	// that were accepted after the copy was begun, and ended before it was done.
	Missing []mail.ID `json:"missing,omitempty"`
	Late    []mail.ID `json:"late,omitempty"`
	// Holes, Unreadable and Streams tell of damage: places in the middle of a log that
	// hold nothing, messages that can't be decoded (as stream/place, at most 1000),
	// streams that are not there.
	Holes      int      `json:"log_holes,omitempty"`
	Unreadable []string `json:"unreadable,omitempty"`
	Streams    []string `json:"missing_streams,omitempty"`
}

// OK reports whether nothing is damaged and nobody's message is missing.
func (r *Reckoning) OK() bool {
	return len(r.Missing) == 0 && r.Holes == 0 && len(r.Unreadable) == 0 && len(r.Streams) == 0
}

// Reckon sums up. began is when the copy was begun; zero for a store at rest. streams
// are those that were there, empty ones too.
func (l *Ledger) Reckon(began time.Time, streams []string) Reckoning {
	r := l.r
	for id, rec := range l.records {
		switch {
		case rec.open && rec.ended:
			r.Ended = append(r.Ended, mail.IDFromBytes(id))
		case rec.open:
			r.Waiting++
		}
	}
	for id, at := range l.open {
		if !began.IsZero() && !at.Before(began) {
			r.Late = append(r.Late, mail.IDFromBytes(id))
		} else {
			r.Missing = append(r.Missing, mail.IDFromBytes(id))
		}
	}
	slices.Sort(r.Ended)
	slices.Sort(r.Missing)
	slices.Sort(r.Late)
	for _, want := range l.wanted() {
		if !slices.Contains(streams, want) {
			r.Streams = append(r.Streams, want)
		}
	}
	return r
}

// wanted are the streams that every store has had since the first version. Where one of
// a later version is lost, the event log names the messages.
func (l *Ledger) wanted() []string {
	names := []string{kvStream(bucketShared), kvStream(bucketSuppressed), kvStream(bucketKeys), kvStream(bucketLatest), eventStream}
	if l.shards > 0 && l.shards <= maxShards {
		for i := range l.shards {
			names = append(names, kvStream(bucketQueue(i)))
		}
	}
	return names
}

// Restores reports whether a message of a copy belongs into a store that is made of
// it. What has ended is not tried again; and nobody left the shards in order: whatever
// was due may have been sent after the copy was made, and is sent with a doubt.
func (l *Ledger) Restores(stream string, m *Stored) bool {
	bucket, isKV := strings.CutPrefix(stream, "KV_")
	if !isKV {
		return true
	}
	key := strings.TrimPrefix(m.Subject, kvSubject(bucket, ""))
	if bucket == bucketShared {
		refers := strings.HasPrefix(key, "queue.said.") || key == auditKey
		return !strings.HasPrefix(key, "queue.clean.") && !(l.Unsure && refers)
	}
	if !HoldsRecords(stream) {
		return true
	}
	id, err := mail.ID(strings.TrimSuffix(key, ".signed")).Bytes()
	if err != nil {
		return true
	}
	r := l.records[id]
	return !(r.open && r.ended)
}
