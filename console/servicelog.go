package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// LogEntry is one entry of the service log: what somebody did, or what the system
// noticed by itself.
type LogEntry struct {
	N      uint64    `json:"n"` // its place: 1, 2, 3 …
	At     time.Time `json:"at"`
	Node   string    `json:"node"`
	Act    string    `json:"act"`              // "cancel", "pause", "signin", "store.trouble" …
	By     string    `json:"by,omitempty"`     // who did it; "" for what the system noticed
	ByID   string    `json:"by_id,omitempty"`  // the token's or the session's id
	Via    string    `json:"via,omitempty"`    // how they came: "token", "session", "proxy", "dev", "oidc", "link"
	Tenant string    `json:"tenant,omitempty"` // whose thing it was; "" for nobody's in particular
	On     string    `json:"on,omitempty"`     // a message's id, an address, a selector, a domain …
	Reason string    `json:"reason,omitempty"`
	Detail string    `json:"detail,omitempty"`
	Prev   string    `json:"prev"` // the SHA-256 of the entry before, as it is stored; "" for the first
}

// entry begins an entry about what a principal did.
func (p *Principal) entry(act, on, tenant, reason string) LogEntry {
	return LogEntry{Act: act, By: p.Name, ByID: p.ID, Via: p.Via, Tenant: tenant, On: on, Reason: reason}
}

// reads reports whether the principal may read an entry: all of them who may operate
// for every tenant, those about their tenants who may for some, and what they did
// themselves everybody.
func (p *Principal) reads(e *LogEntry) bool {
	if p.Can(ScopeOperate) && (p.seesAll() || e.Tenant != "" && p.Sees(e.Tenant)) {
		return true
	}
	own := e.By != "" && e.By == p.Name && e.Via == p.Via && (p.Via != ViaToken || e.ByID == p.ID)
	return own && (e.Tenant == "" || p.Sees(e.Tenant))
}

// ChainRecord is one record of a Chain.
type ChainRecord struct {
	Seq  uint64
	Data []byte
}

// Chain keeps records in one order for all nodes: the queue's, in the program.
type Chain interface {
	// Link appends the record that next makes of the newest one, nil for none. next is
	// called again when another node was quicker. The same id is there once.
	Link(ctx context.Context, id string, next func(last []byte) ([]byte, error)) error
	// Links yields the records from after a place up to the newest. An error is the last.
	Links(ctx context.Context, after uint64) iter.Seq2[ChainRecord, error]
	// LinkBounds are the places of the oldest and the newest record, 0 and 0 for none.
	LinkBounds(ctx context.Context) (first, last uint64, err error)
}

// ServiceLog is what the system noticed and what people did, in one chain for all
// nodes: an entry holds the hash of the one before, so that none can be changed, taken
// out or put in between without all after it showing that. See [VerifyLog].
//
// Entries are written by one goroutine, [ServiceLog.Run], in the order in which they
// were handed in. When the store takes none, they wait in memory and say later when they
// were; each is also written to the process's own log at once. What a crash takes from
// memory is there.
type ServiceLog struct {
	chain Chain
	node  string
	now   func() time.Time
	log   *slog.Logger
	wake  chan struct{}

	mu      sync.Mutex
	waiting []*waitingEntry // guarded by mu
	lost    int             // guarded by mu: those for which there was no room
}

type waitingEntry struct {
	entry LogEntry
	id    string
	done  chan struct{} // closed when it is safe
}

const (
	// waitingMost bounds what waits for a store that takes nothing.
	waitingMost = 1000
	// logPatience is how long an act waits for its entry to be safe.
	logPatience = 5 * time.Second
	// logRetry is the pause after a write that failed.
	logRetry = time.Second
	// fieldLongest bounds each text of an entry, in bytes.
	fieldLongest = 1000
)

// NewServiceLog returns the log kept in chain. node names this one; now is the clock,
// nil for time.Now.
func NewServiceLog(chain Chain, node string, now func() time.Time, log *slog.Logger) *ServiceLog {
	if now == nil {
		now = time.Now
	}
	return &ServiceLog{chain: chain, node: node, now: now, log: log, wake: make(chan struct{}, 1)}
}

// Note hands in an entry and does not wait for it.
func (l *ServiceLog) Note(e LogEntry) { l.handIn(e) }

// Append hands in an entry and waits until it is safe, or some seconds: a store that
// takes nothing gets it later.
func (l *ServiceLog) Append(ctx context.Context, e LogEntry) {
	t := time.NewTimer(logPatience)
	defer t.Stop()
	select {
	case <-l.handIn(e):
	case <-t.C:
	case <-ctx.Done():
	}
}

func (l *ServiceLog) handIn(e LogEntry) (done <-chan struct{}) {
	e.At, e.Node = l.now().UTC(), l.node
	for _, s := range []*string{&e.Act, &e.By, &e.ByID, &e.Via, &e.Tenant, &e.On, &e.Reason, &e.Detail} {
		*s = presentable(*s)
	}
	l.log.Info("service log", "act", e.Act, "by", e.By, "id", e.ByID, "via", e.Via, "tenant", e.Tenant, "on", e.On, "reason", e.Reason, "detail", e.Detail)
	w := &waitingEntry{entry: e, id: rand.Text(), done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= waitingMost {
		l.lost++
		close(w.done)
		return w.done
	}
	l.waiting = append(l.waiting, w)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return w.done
}

// Run writes what is handed in until ctx ends, and then, for as long as last lasts,
// what is left.
func (l *ServiceLog) Run(ctx, last context.Context) {
	for {
		select {
		case <-l.wake:
			l.write(ctx)
		case <-ctx.Done():
			l.write(last)
			return
		}
	}
}

// write writes all that waits, until it is written or ctx ends.
func (l *ServiceLog) write(ctx context.Context) {
	for {
		w := l.first()
		if w == nil {
			return
		}
		err := l.chain.Link(ctx, w.id, func(last []byte) ([]byte, error) { return chained(w.entry, last) })
		if ctx.Err() != nil && err != nil {
			return
		}
		if err != nil {
			l.log.Warn("the service log takes no entry now; it is tried again", "error", err)
			select {
			case <-time.After(logRetry):
			case <-ctx.Done():
				return
			}
			continue
		}
		l.mu.Lock()
		l.waiting = l.waiting[1:]
		lost := l.lost
		if len(l.waiting) == 0 {
			l.lost = 0
		}
		empty := len(l.waiting) == 0
		l.mu.Unlock()
		close(w.done)
		if empty && lost > 0 {
			l.Note(LogEntry{Act: "log.gap", Detail: fmt.Sprintf("%d entries did not fit while the store took none; the process's own log has them", lost)})
		}
	}
}

func (l *ServiceLog) first() *waitingEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return nil
	}
	return l.waiting[0]
}

// chained makes the record of an entry that comes after another's.
func chained(e LogEntry, last []byte) ([]byte, error) {
	e.N = 1
	if last != nil {
		var before struct{ N uint64 }
		if err := json.Unmarshal(last, &before); err != nil {
			return nil, errors.New("the service log's newest entry can't be read")
		}
		e.N, e.Prev = before.N+1, hashOf(last)
	}
	return json.Marshal(e)
}

// hashOf is the hash of an entry: SHA-256 over the bytes of its line.
func hashOf(record []byte) string {
	sum := sha256.Sum256(record)
	return hex.EncodeToString(sum[:])
}

var (
	linkInText  = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]{1,20}://\S+`)
	tokenInText = regexp.MustCompile(`\bdlv_[a-z2-7]{20,}`)
)

// presentable is a text that may stand in the log for years: on one line, of bounded
// length, without tokens, and of links no more than where they lead. Somebody may paste
// what a customer sent them (law 5).
func presentable(s string) string {
	s = strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	s = tokenInText.ReplaceAllString(s, mail.Blank)
	s = linkInText.ReplaceAllStringFunc(s, func(link string) string {
		u, err := url.Parse(link)
		if err != nil || u.Host == "" {
			return mail.Blank
		}
		return u.Scheme + "://" + u.Host + "/" + mail.Blank
	})
	if len(s) > fieldLongest {
		s = strings.ToValidUTF8(s[:fieldLongest], "") + "…"
	}
	return s
}

// LogVerdict is what [VerifyLog] finds.
type LogVerdict struct {
	Entries     int    `json:"entries"`
	First, Last uint64 `json:"-"`
	// Head is the hash of the newest entry. Whoever keeps it elsewhere can tell later
	// that nothing up to there was changed, not even the end.
	Head string `json:"head"`
	// Bad is the place of the first entry that does not fit, and Problem why; 0 if all
	// do.
	Bad     uint64 `json:"bad,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// VerifyLog holds the lines of an exported service log, oldest first, against each
// other: each holds the number and the hash of the one before it. The first may follow
// entries that were too old to keep. The error is that of lines.
func VerifyLog(lines iter.Seq2[[]byte, error], known map[uint64]string) (LogVerdict, error) {
	var v LogVerdict
	for line, err := range lines {
		if err != nil {
			return v, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			continue
		}
		if problem := v.fits(line, known); problem != "" {
			v.Bad, v.Problem = v.Last+1, problem
			return v, nil
		}
	}
	return v, nil
}

// fits takes in the next line, or says why it can't be.
func (v *LogVerdict) fits(line []byte, known map[uint64]string) string {
	var e LogEntry
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return "it can't be read"
	}
	switch {
	case v.Entries == 0 && (e.N == 1) != (e.Prev == ""):
		return "it says that it is the first, and names one before it, or the other way round"
	case v.Entries > 0 && e.N != v.Last+1:
		return fmt.Sprintf("entry %d stands in its place: entries are missing or were put in", e.N)
	case v.Entries > 0 && e.Prev != v.Head:
		return fmt.Sprintf("it follows another entry %d than the one that is there: that one was changed, or this one", v.Last)
	}
	if v.Entries == 0 {
		v.First = e.N
	}
	v.Entries++
	v.Last, v.Head = e.N, hashOf(line)
	if want, ok := known[e.N]; ok && want != v.Head {
		v.Last--
		return "it is not the one whose hash was kept"
	}
	return ""
}
