package queue

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// KeyRing holds the keys that wrap messages' keys. Every sealed value has a random
// AES-256 key of its own, wrapped by the ring's newest key; the envelope names the
// ring key (kid), and the message's id and the field's name are associated data, so
// that no envelope opens under another message's name.
//
//	envelope = 1 | kid 8 | nonce 12 | wrapped key 48 | nonce 12 | sealed value
//
// A secret dies when its envelope is dropped from the store, and again, for every
// backup of the store, when its ring key is destroyed. The ring remembers durably
// until when each of its keys is needed, before the key is used for it, and
// [KeyRing.Tend] destroys a key only after that. What can't be promised: that the
// disk itself forgets the ring file's old blocks, or a backup of the ring file.
// Keep the ring out of the store's backups.
type KeyRing struct {
	path string // "" for a ring in memory

	mu    sync.Mutex
	keys  []ringKey // oldest first; the last one seals
	aeads map[string]cipher.AEAD
}

type ringKey struct {
	ID     string    `json:"id"` // 16 hex digits
	Key    []byte    `json:"key"`
	Made   time.Time `json:"made"`
	Needed time.Time `json:"needed"` // no message sealed under it is of use later
}

const (
	envelopeVersion = 1
	kidLen          = 8
	nonceLen        = 12
	wrappedLen      = 32 + 16
	envelopeHead    = 1 + kidLen + nonceLen + wrappedLen + nonceLen

	// neededStep is how coarsely Needed grows: one write of the ring file a day
	// rather than one a message.
	neededStep = 24 * time.Hour
)

// errKeyGone: the value was sealed under a key that the ring does not have.
var errKeyGone = errors.New("sealed under a key that is not in the ring")

var errEnvelope = errors.New("not a sealed value, or sealed for another message or field")

// OpenKeyRing reads the ring in a file. A missing file is made, with one key,
// readable by its owner only.
func OpenKeyRing(path string) (*KeyRing, error) {
	r := &KeyRing{path: path, aeads: map[string]cipher.AEAD{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, r.Rotate()
	}
	if err != nil {
		return nil, fmt.Errorf("key ring: %w", err)
	}
	var file struct {
		Keys []ringKey `json:"keys"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		// The decoder's message could quote the file.
		return nil, fmt.Errorf("key ring %s: not a key ring", path)
	}
	if len(file.Keys) == 0 {
		return nil, fmt.Errorf("key ring %s: holds no key", path)
	}
	for _, k := range file.Keys {
		if err := r.learn(k); err != nil {
			return nil, fmt.Errorf("key ring %s: %w", path, err)
		}
	}
	return r, nil
}

// NewKeyRing makes a ring with one key that lives in memory only: what is sealed
// under it dies with the process.
func NewKeyRing() *KeyRing {
	r := &KeyRing{aeads: map[string]cipher.AEAD{}}
	r.keys = []ringKey{newRingKey()}
	r.aeads[r.keys[0].ID] = newAEAD(r.keys[0].Key)
	return r
}

func newRingKey() ringKey {
	id, key := make([]byte, kidLen), make([]byte, 32)
	rand.Read(id)
	rand.Read(key)
	now := time.Now().UTC().Truncate(time.Second)
	return ringKey{ID: hex.EncodeToString(id), Key: key, Made: now, Needed: now}
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the length is ours
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

func (r *KeyRing) learn(k ringKey) error {
	if id, err := hex.DecodeString(k.ID); err != nil || len(id) != kidLen || len(k.Key) != 32 {
		return errors.New("a key has the wrong form")
	}
	r.keys = append(r.keys, k)
	r.aeads[k.ID] = newAEAD(k.Key)
	return nil
}

// Rotate adds a key and seals with it from now on. Older keys still open.
func (r *KeyRing) Rotate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := newRingKey()
	keys := append(r.keys[:len(r.keys):len(r.keys)], k)
	if err := r.write(keys); err != nil {
		return err
	}
	r.keys, r.aeads[k.ID] = keys, newAEAD(k.Key)
	return nil
}

// Tend rotates when the newest key is older than every, and destroys the keys that
// nothing alive needs. It must be called only where the ring is this process's own:
// a copy elsewhere may have sealed for longer than this one knows of.
func (r *KeyRing) Tend(now time.Time, every time.Duration) error {
	r.mu.Lock()
	newest := r.keys[len(r.keys)-1]
	r.mu.Unlock()
	if now.Sub(newest.Made) >= every {
		if err := r.Rotate(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var keep, gone []ringKey
	for i, k := range r.keys {
		if i < len(r.keys)-1 && now.After(k.Needed) {
			gone = append(gone, k)
		} else {
			keep = append(keep, k)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := r.write(keep); err != nil {
		return err
	}
	r.keys = keep
	for _, k := range gone {
		delete(r.aeads, k.ID)
		clear(k.Key)
	}
	return nil
}

// Newest is the id of the key that seals.
func (r *KeyRing) Newest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys[len(r.keys)-1].ID
}

// Seal closes a field of a message that is of use until the given time.
func (r *KeyRing) Seal(id mail.ID, field string, plain []byte, until time.Time) ([]byte, error) {
	kid, wrap, err := r.sealer(until)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	rand.Read(key)
	aad := associated(id, field)
	out := make([]byte, 0, envelopeHead+len(plain)+16)
	out = append(out, envelopeVersion)
	out = append(out, kid...)
	out = sealInto(out, wrap, key, aad)
	out = sealInto(out, newAEAD(key), plain, aad)
	clear(key)
	return out, nil
}

func sealInto(out []byte, a cipher.AEAD, plain, aad []byte) []byte {
	n := len(out)
	out = append(out, make([]byte, nonceLen)...)
	rand.Read(out[n:])
	return a.Seal(out, out[n:n+nonceLen], plain, aad)
}

// Open opens what Seal closed, for the same message and field.
func (r *KeyRing) Open(id mail.ID, field string, envelope []byte) ([]byte, error) {
	if len(envelope) < envelopeHead+16 || envelope[0] != envelopeVersion {
		return nil, errEnvelope
	}
	kid := hex.EncodeToString(envelope[1 : 1+kidLen])
	r.mu.Lock()
	wrap := r.aeads[kid]
	r.mu.Unlock()
	if wrap == nil {
		return nil, errKeyGone
	}
	aad := associated(id, field)
	b := envelope[1+kidLen:]
	key, err := wrap.Open(nil, b[:nonceLen], b[nonceLen:nonceLen+wrappedLen], aad)
	if err != nil {
		return nil, errEnvelope
	}
	b = b[nonceLen+wrappedLen:]
	plain, err := newAEAD(key).Open(nil, b[:nonceLen], b[nonceLen:], aad)
	clear(key)
	if err != nil {
		return nil, errEnvelope
	}
	return plain, nil
}

func associated(id mail.ID, field string) []byte {
	return append(append([]byte(id), 0), field...)
}

// sealer returns the newest key, and sees to it that the ring file says that it is
// needed until then before anything is sealed under it.
func (r *KeyRing) sealer(until time.Time) (kid []byte, wrap cipher.AEAD, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := &r.keys[len(r.keys)-1]
	if until.After(k.Needed) {
		keys := append([]ringKey(nil), r.keys...)
		keys[len(keys)-1].Needed = until.UTC().Truncate(neededStep).Add(neededStep)
		if err := r.write(keys); err != nil {
			return nil, nil, err
		}
		r.keys = keys
		k = &r.keys[len(r.keys)-1]
	}
	kid, _ = hex.DecodeString(k.ID) // checked when learnt
	return kid, r.aeads[k.ID], nil
}

// write replaces the ring file, durably and as a whole.
func (r *KeyRing) write(keys []ringKey) error {
	if r.path == "" {
		return nil
	}
	b, err := json.MarshalIndent(struct {
		Keys []ringKey `json:"keys"`
	}{keys}, "", "  ")
	if err != nil {
		return fmt.Errorf("key ring: %w", err)
	}
	dir := filepath.Dir(r.path)
	f, err := os.CreateTemp(dir, ".ring-*") // mode 0600
	if err != nil {
		return fmt.Errorf("key ring: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), r.path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("key ring: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
