package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/mail"
)

// The streams. All but the event log have the shape of a NATS key-value bucket, so
// that `nats kv ls` and its like show them.
const (
	eventStream   = "DELIVERD_EVENTS"
	eventSubjects = "deliverd.v1.event.>"
	chainStream   = "DELIVERD_LOG"
	chainSubject  = "deliverd.v1.log"

	bucketKeys       = "DELIVERD_KEYS"
	bucketLatest     = "DELIVERD_LATEST"
	bucketLeases     = "DELIVERD_LEASES"
	bucketSuppressed = "DELIVERD_SUPPRESSED"
	bucketShared     = "DELIVERD_SHARED"
)

func bucketQueue(shard int) string { return "DELIVERD_Q" + strconv.Itoa(shard) }

func kvStream(bucket string) string { return "KV_" + bucket }

func kvSubject(bucket, key string) string { return "$KV." + bucket + "." + key }

const (
	ackTimeout = 5 * time.Second
	getTimeout = 5 * time.Second
	// dedupeWindow is how long the event log itself refuses an event twice: longer
	// than a restart with a full queue takes.
	dedupeWindow = 2 * time.Minute
)

// store is the streams of one queue.
type store struct {
	nc        *nats.Conn
	js        jetstream.JetStream
	replicas  int
	acks      *acks
	appenders map[string]*appender // by stream; read-only after open
}

func openStore(ctx context.Context, nc *nats.Conn, o *Options) (*store, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	s := &store{nc: nc, js: js, replicas: o.Replicas, appenders: map[string]*appender{}}
	if err := s.ensure(ctx, s.bucket(bucketShared, 0)); err != nil {
		return nil, err
	}
	s.acks, err = newAcks(nc, ackTimeout)
	if err != nil {
		return nil, err
	}
	s.acks.fault = o.fault
	s.appender(kvStream(bucketShared))
	if err := s.fixShards(ctx, o); err != nil {
		s.acks.close()
		return nil, err
	}
	streams := []jetstream.StreamConfig{
		s.bucket(bucketKeys, o.KeyLife),
		s.bucket(bucketLatest, 0),
		s.bucket(bucketLeases, 0),
		s.bucket(bucketSuppressed, 0),
		s.eventLog(o.EventLife),
		s.chainLog(o.ChainLife),
	}
	for i := range o.Shards + 1 {
		streams = append(streams, s.bucket(bucketQueue(i), 0))
	}
	for _, c := range streams {
		if err := s.ensure(ctx, c); err != nil {
			s.acks.close()
			return nil, err
		}
		s.appender(c.Name)
	}
	return s, nil
}

func (s *store) appender(stream string) {
	s.appenders[stream] = &appender{stream: stream, acks: s.acks, pace: newPace()}
}

// bucket is a key-value bucket that refuses, rather than forgets, when it is full.
func (s *store) bucket(name string, maxAge time.Duration) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               kvStream(name),
		Subjects:           []string{kvSubject(name, ">")},
		MaxMsgsPerSubject:  1,
		MaxAge:             maxAge,
		Discard:            jetstream.DiscardNew,
		Storage:            jetstream.FileStorage,
		Replicas:           s.replicas,
		AllowDirect:        true,
		AllowRollup:        true,
		DenyDelete:         true,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
		// No key is ever written twice with one Nats-Msg-Id; the smallest window.
		Duplicates: 100 * time.Millisecond,
	}
}

func (s *store) eventLog(life time.Duration) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               eventStream,
		Subjects:           []string{eventSubjects},
		MaxAge:             life,
		Discard:            jetstream.DiscardNew,
		Storage:            jetstream.FileStorage,
		Replicas:           s.replicas,
		AllowDirect:        true,
		DenyDelete:         true,
		AllowAtomicPublish: true,
		Duplicates:         dedupeWindow,
	}
}

// chainLog is a stream that nothing is taken out of but by its age.
func (s *store) chainLog(life time.Duration) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        chainStream,
		Subjects:    []string{chainSubject},
		MaxAge:      life,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Replicas:    s.replicas,
		AllowDirect: true,
		DenyDelete:  true,
		DenyPurge:   true,
		Duplicates:  dedupeWindow,
	}
}

// ensure makes a stream, or brings an existing one to this configuration; an
// operator's own limits on size stay.
func (s *store) ensure(ctx context.Context, c jetstream.StreamConfig) error {
	if have, err := s.js.Stream(ctx, c.Name); err == nil {
		now := have.CachedInfo().Config
		c.MaxBytes, c.MaxMsgs, c.Placement, c.Compression = now.MaxBytes, now.MaxMsgs, now.Placement, now.Compression
		c.Metadata = now.Metadata
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %s: %w", c.Name, err)
	}
	if _, err := s.js.CreateOrUpdateStream(ctx, c); err != nil {
		return fmt.Errorf("stream %s: %w", c.Name, err)
	}
	return nil
}

// fixShards settles the number of shards: the one that the store was made with.
func (s *store) fixShards(ctx context.Context, o *Options) error {
	const key = "queue.shards"
	_, err := s.put(ctx, bucketShared, key, []byte(strconv.Itoa(o.Shards)), casCreate)
	if err == nil {
		return nil
	}
	if !errors.Is(err, errConflict) {
		return fmt.Errorf("the number of shards: %w", err)
	}
	e, err := s.get(ctx, bucketShared, key)
	if err != nil {
		return fmt.Errorf("the number of shards: %w", err)
	}
	n, err := strconv.Atoi(string(e.data))
	if err != nil || n < 1 || n > maxShards {
		return errors.New("the number of shards in the store can't be read")
	}
	if n != o.Shards {
		o.Log.Warn("the store was made with another number of shards, which stays", "configured", o.Shards, "store", n)
		o.Shards = n
	}
	return nil
}

// entry is what a key holds.
type entry struct {
	seq    uint64
	header nats.Header
	data   []byte
}

func (e *entry) removed() bool { return e.header.Get(kvOperation) != "" }

// get reads the newest value of a key: ErrNotFound if there is none. With replicas it
// asks the stream's leader, as a follower may be behind.
func (s *store) get(ctx context.Context, bucket, key string) (*entry, error) {
	if s.acks != nil && s.acks.fault != nil {
		if err := s.acks.fault("get " + bucket); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	e, err := s.newest(ctx, kvStream(bucket), kvSubject(bucket, key))
	if err == nil && e.removed() {
		return nil, ErrNotFound
	}
	return e, err
}

// newest reads the last message of a subject: ErrNotFound if there is none.
func (s *store) newest(ctx context.Context, stream, subject string) (*entry, error) {
	if s.replicas > 1 {
		return s.getFromLeader(ctx, stream, subject)
	}
	return s.getDirect(ctx, stream, subject)
}

func (s *store) getDirect(ctx context.Context, stream, subject string) (*entry, error) {
	m, err := s.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", errStore, stream, err)
	}
	switch m.Header.Get("Status") {
	case "":
	case "404":
		return nil, ErrNotFound
	default:
		return nil, fmt.Errorf("%w: read %s: status %s", errStore, stream, m.Header.Get("Status"))
	}
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: no sequence in the answer", errStore, stream)
	}
	return &entry{seq: seq, header: m.Header, data: m.Data}, nil
}

func (s *store) getFromLeader(ctx context.Context, stream, subject string) (*entry, error) {
	body, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return nil, err
	}
	m, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", errStore, stream, err)
	}
	var answer struct {
		Error *struct {
			Code        int    `json:"code"`
			Description string `json:"description"`
		} `json:"error"`
		Message struct {
			Seq  uint64 `json:"seq"`
			Hdrs []byte `json:"hdrs"`
			Data []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, fmt.Errorf("%w: read %s: unreadable answer", errStore, stream)
	}
	if answer.Error != nil {
		if answer.Error.Code == 404 {
			return nil, ErrNotFound
		}
		return nil, fmt.Errorf("%w: read %s: %s", errStore, stream, answer.Error.Description)
	}
	e := &entry{seq: answer.Message.Seq, data: answer.Message.Data}
	if len(answer.Message.Hdrs) > 0 {
		if e.header, err = nats.DecodeHeadersMsg(answer.Message.Hdrs); err != nil {
			return nil, fmt.Errorf("%w: read %s: unreadable headers", errStore, stream)
		}
	}
	return e, nil
}

// casCreate as the expected revision of a key: it must hold nothing.
const (
	casCreate = uint64(0)
	casNone   = ^uint64(0)
)

// newWrite makes a write of one key. rev is the revision that it must have now,
// casCreate or casNone.
func newWrite(bucket, key string, data []byte, rev uint64, h nats.Header, done func(uint64, error)) *write {
	if h == nil {
		h = nats.Header{}
	}
	if rev != casNone {
		h[headerCAS] = []string{strconv.FormatUint(rev, 10)}
	}
	return &write{msg: &nats.Msg{Subject: kvSubject(bucket, key), Data: data, Header: h}, done: done}
}

// add queues a write for its bucket's stream.
func (s *store) add(bucket string, w *write) { s.appenders[kvStream(bucket)].add(w) }

// ack is how a write ended.
type ack struct {
	seq uint64
	err error
}

// await queues a write and waits for its end. The end of ctx does not end the wait
// for a write that is under way: whoever asks needs to know, and the acknowledgement
// has a time-out of its own.
func (s *store) await(bucket string, w *write) (uint64, error) {
	done := make(chan ack, 1)
	w.done = func(seq uint64, err error) { done <- ack{seq, err} }
	s.add(bucket, w)
	a := <-done
	return a.seq, a.err
}

// put writes one key and waits. A key that was removed can be created again.
func (s *store) put(ctx context.Context, bucket, key string, data []byte, rev uint64) (uint64, error) {
	return s.putWith(ctx, bucket, key, data, rev, nil)
}

func (s *store) putWith(ctx context.Context, bucket, key string, data []byte, rev uint64, h nats.Header) (uint64, error) {
	return s.putAs(ctx, false, bucket, key, data, rev, h)
}

// putAs is putWith for a write that may be urgent.
func (s *store) putAs(ctx context.Context, urgent bool, bucket, key string, data []byte, rev uint64, h nats.Header) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	w := newWrite(bucket, key, data, rev, cloneHeader(h), nil)
	w.urgent = urgent
	seq, err := s.await(bucket, w)
	if rev != casCreate || !errors.Is(err, errConflict) {
		return seq, err
	}
	// The last value may be the marker of a removal.
	e, err := s.newest(ctx, kvStream(bucket), kvSubject(bucket, key))
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, errConflict // it lapsed meanwhile; the caller may try again
	case err != nil:
		return 0, err
	case !e.removed():
		return 0, errConflict
	}
	return s.await(bucket, newWrite(bucket, key, data, e.seq, cloneHeader(h), nil))
}

func cloneHeader(h nats.Header) nats.Header {
	c := make(nats.Header, len(h)+1)
	maps.Copy(c, h)
	return c
}

// remove leaves a short-lived marker in the place of a key.
func (s *store) remove(ctx context.Context, bucket, key string, rev uint64) error {
	_, err := s.putWith(ctx, bucket, key, nil, rev, marker(markerLife))
	return err
}

// markerLife is how long a removed key's marker stays: long enough for every watcher
// to hear of it.
const markerLife = time.Minute

// failing returns the stream that has not answered for the longest, "" if all do.
func (s *store) failing() (stream string, since time.Time) {
	for name, a := range s.appenders {
		if at := a.failing.Load(); at != 0 && (stream == "" || at < since.UnixNano()) {
			stream, since = name, time.Unix(0, at)
		}
	}
	return stream, since
}

// probe writes to the streams that failed, so that they are known to be well again
// without a message being risked.
func (s *store) probe(ctx context.Context) {
	for name, a := range s.appenders {
		if a.failing.Load() == 0 {
			continue
		}
		bucket, isKV := strings.CutPrefix(name, "KV_")
		if !isKV {
			continue // the event log's own writes are tried again and again
		}
		_ = s.remove(ctx, bucket, "probe.alive", casNone) // its result is the appender's state
	}
}

// hashKey makes a bucket's key of any strings: 32 hex digits.
func hashKey(parts ...string) string {
	sum := sumOf(parts...)
	return hex.EncodeToString(sum[:])
}

// sumOf is a hash of strings that nobody can make meet another's.
func sumOf(parts ...string) keySum {
	h := sha256.New()
	for _, p := range parts {
		// The length keeps ("a", "bc") apart from ("ab", "c").
		h.Write([]byte(strconv.Itoa(len(p))))
		h.Write([]byte{0})
		h.Write([]byte(p))
	}
	return keySum(h.Sum(nil)[:16])
}

const maxShards = 64

// shardOf is the shard of a recipient's domain (FNV-1a).
func shardOf(domain string, shards int) int {
	h := uint32(2166136261)
	for i := range len(domain) {
		h = (h ^ uint32(domain[i])) * 16777619
	}
	return int(h % uint32(shards))
}

func idKey(id mail.ID) string     { return string(id) }
func signedKey(id mail.ID) string { return string(id) + ".signed" }
