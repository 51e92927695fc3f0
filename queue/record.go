package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/mail"
)

// record is one waiting message in the store.
type record struct {
	Message  mail.Message `json:"message"`
	State    mail.State   `json:"state"`
	Attempts int          `json:"attempts,omitempty"` // that ended and counted
	Due      time.Time    `json:"due"`
	AtRisk   bool         `json:"at_risk,omitempty"` // was said
	// Says are the facts that this revision brings to the event log; the record is
	// their outbox.
	Says []mail.Event `json:"says,omitempty"`
	// Signed: the key id.signed holds the bytes that every attempt sends.
	Signed bool `json:"signed,omitempty"`
	// Cancel and SupersededBy are wishes of nodes that do not own the shard; the owner
	// carries them out.
	Cancel       *wish   `json:"cancel,omitempty"`
	SupersededBy mail.ID `json:"superseded_by,omitempty"`
	// Kept: the message has ended, and its Data stays while it is valid, see keepsData.
	Kept bool `json:"kept,omitempty"`
	// Hash is the request's, for the idempotency key.
	Hash string `json:"hash,omitempty"`

	sealed []byte // Data; nil once it can't be sent any more
	writer string // the session that wrote this revision; set when read
}

type wish struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// last is the newest fact that the record holds.
func (r *record) last() mail.Event {
	if len(r.Says) > 0 {
		return r.Says[len(r.Says)-1]
	}
	return mail.NewEvent(&r.Message, mail.StateQueued, 0, r.Message.QueuedAt)
}

// recordVersion is the first byte of a record: a reader that knows only older ones
// leaves the record alone rather than guessing.
const recordVersion = 1

var errRecord = errors.New("not a record that this version can read")

// encode writes version, length of the JSON, the JSON, and the sealed data.
func (r *record) encode() ([]byte, error) {
	head, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	b := make([]byte, 0, 1+binary.MaxVarintLen64+len(head)+len(r.sealed))
	b = append(b, recordVersion)
	b = binary.AppendUvarint(b, uint64(len(head)))
	b = append(b, head...)
	return append(b, r.sealed...), nil
}

func decodeRecord(b []byte) (*record, error) {
	if len(b) < 2 || b[0] != recordVersion {
		return nil, errRecord
	}
	n, used := binary.Uvarint(b[1:])
	if used <= 0 || n > uint64(len(b)-1-used) {
		return nil, errRecord
	}
	head, rest := b[1+used:1+used+int(n)], b[1+used+int(n):]
	r := &record{}
	if err := json.Unmarshal(head, r); err != nil {
		return nil, errRecord
	}
	if len(rest) > 0 {
		r.sealed = rest
	}
	return r, nil
}

const (
	fieldData   = "data"
	fieldSigned = "signed"
)

// sealData seals the message's Data into the record, which forgets it in clear.
func (r *record) sealData(ring *KeyRing, until time.Time) error {
	plain, err := json.Marshal(r.Message.Data)
	if err != nil {
		return errors.New("the message's data can't be written as JSON") // err may quote it
	}
	r.sealed, err = ring.Seal(r.Message.ID, fieldData, plain, until)
	clear(plain)
	r.Message.Data = nil // the caller's own is its own
	return err
}

// openData returns the message with its Data.
func (r *record) openData(ring *KeyRing) (mail.Message, error) {
	m := r.Message
	plain, err := ring.Open(m.ID, fieldData, r.sealed)
	if err != nil {
		return m, err
	}
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber() // 1e21 and 4711 render as they were written
	if err := d.Decode(&m.Data); err != nil {
		return m, errEnvelope
	}
	clear(plain)
	return m, nil
}

// index is what an owner holds of a record in memory. It travels as a header beside
// the record, so that a scan does not move the messages themselves.
type index struct {
	state    mail.State
	due, exp int64 // Unix milliseconds
	attempts int
	keyed    bool  // has an idempotency key
	wish     flags // flagCancelled, flagSuperseded, flagKept: what the record says
	writer   string
	domain   string
	kind     string
	tenant   string
}

const (
	indexHeader = "D"
	indexFields = 11
)

var errIndex = errors.New("not an index header that this version can read")

func (r *record) index(writer string) index {
	x := index{
		state: r.State, due: r.Due.UnixMilli(), exp: r.Message.ExpiresAt.UnixMilli(),
		attempts: r.Attempts, keyed: r.Message.IdempotencyKey != "",
		writer: writer, domain: r.Message.To.Domain(), kind: r.Message.Kind, tenant: r.Message.Tenant,
	}
	if r.Cancel != nil {
		x.wish |= flagCancelled
	}
	if r.SupersededBy != "" {
		x.wish |= flagSuperseded
	}
	if r.Kept {
		x.wish |= flagKept
	}
	return x
}

func bit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func (x index) encode() string {
	return strings.Join([]string{"1", string(x.state), strconv.FormatInt(x.due, 36),
		strconv.FormatInt(x.exp, 36), strconv.Itoa(x.attempts), bit(x.keyed), strconv.Itoa(int(x.wish)),
		x.writer, x.domain, url.QueryEscape(x.kind), url.QueryEscape(x.tenant)}, " ")
}

func decodeIndex(s string) (x index, err error) {
	var f [indexFields]string
	n := 0
	for part := range strings.SplitSeq(s, " ") {
		if n == indexFields {
			return x, errIndex
		}
		f[n] = part
		n++
	}
	// A header's value is trimmed on its way: an empty tenant, the last field, is gone.
	if n < indexFields-1 || f[0] != "1" {
		return x, errIndex
	}
	due, err1 := strconv.ParseInt(f[2], 36, 64)
	exp, err2 := strconv.ParseInt(f[3], 36, 64)
	attempts, err3 := strconv.Atoi(f[4])
	wish, err6 := strconv.ParseUint(f[6], 10, 8)
	kind, err4 := url.QueryUnescape(f[9])
	tenant, err5 := url.QueryUnescape(f[10])
	if errors.Join(err1, err2, err3, err4, err5, err6) != nil {
		return x, errIndex
	}
	return index{state: mail.State(f[1]), due: due, exp: exp, attempts: attempts,
		keyed: f[5] == "1", wish: flags(wish) & (flagCancelled | flagSuperseded | flagKept), writer: f[7], domain: f[8], kind: kind, tenant: tenant}, nil
}

// madeAt is when a message's id was made, in Unix milliseconds (UUIDv7, RFC 9562 5.7).
func madeAt(id [16]byte) int64 {
	return int64(binary.BigEndian.Uint64(id[:8]) >> 16)
}

const (
	kvOperation = "KV-Operation"
	kvPurge     = "PURGE"
	headerTTL   = "Nats-TTL"
	headerCAS   = "Nats-Expected-Last-Subject-Sequence"
	headerMsgID = "Nats-Msg-Id"
)

// ttl is a Nats-TTL header's value: whole seconds, at least one.
func ttl(d time.Duration) string {
	return strconv.FormatInt(max(int64((d+time.Second-1)/time.Second), 1), 10) + "s"
}

// marker is what stands in the place of a removed key for a short while, so that
// watchers hear of it.
func marker(life time.Duration) nats.Header {
	return nats.Header{kvOperation: {kvPurge}, headerTTL: {ttl(life)}}
}
