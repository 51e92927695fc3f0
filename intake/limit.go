package intake

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Limit is a rate: Burst at once, and one more each Every after that. The zero
// Limit stands for the default, and a negative Burst for no limit.
type Limit struct {
	Burst int
	Every time.Duration
}

// Limits are the rates at which mail is taken. They are kept in a table of a fixed
// size (2 MiB); where more tenants and recipients are active at once than fit, the
// ones nearest to having their whole burst again are forgotten first.
type Limits struct {
	// Tenant is for one tenant's requests of every kind, validations and retries
	// included, so that one tenant's flood is no load for others. Requests without a
	// tenant count together by source. Default: 2000, then 100 a second.
	Tenant Limit
	// Recipient is for one tenant's messages of one kind to one address, so that a
	// flood of invites is no reason to refuse a PIN. Default: 10, then 1 a minute.
	Recipient Limit
	// Address is for all messages to one address, whatever tenant and kind, against
	// a flood that comes through many tenants. Default: 40, then 4 a minute.
	Address Limit
}

func (l Limits) withDefaults() Limits {
	def := func(l, d Limit) Limit {
		if l == (Limit{}) {
			return d
		}
		return l
	}
	return Limits{
		Tenant:    def(l.Tenant, Limit{Burst: 2000, Every: 10 * time.Millisecond}),
		Recipient: def(l.Recipient, Limit{Burst: 10, Every: time.Minute}),
		Address:   def(l.Address, Limit{Burst: 40, Every: 15 * time.Second}),
	}
}

func (l Limits) forTenant(c Caller, tenant string) charges {
	if tenant == "" {
		return charges{all: []charge{{l.Tenant, []string{"source", c.Source}}}}
	}
	return charges{all: []charge{{l.Tenant, []string{"tenant", tenant}}}}
}

func (l Limits) forRecipient(m *mail.Message) charges {
	return charges{all: []charge{
		{l.Recipient, []string{"recipient", m.Tenant, m.Kind, m.To.Key()}},
		{l.Address, []string{"address", m.To.Key()}},
	}}
}

// retryWindow is how long a request with an idempotency key is remembered as
// counted: longer than any client goes on trying.
const retryWindow = 10 * time.Minute

// charges is what a request costs: all of it or, where one rate is exhausted,
// nothing.
type charges struct {
	all  []charge
	mark []string // not nil: costs nothing if these were charged within retryWindow
	peek bool     // costs nothing
}

type charge struct {
	Limit
	key []string
}

func (c charges) once(key ...string) charges { c.mark = key; return c }
func (c charges) peeking() charges           { c.peek = true; return c }

// rates remembers how much of each limit is used, as the moment at which it will
// be whole again (the generic cell rate algorithm, ITU-T I.371 annex A). The table
// is a cache of sets: a key has a place among the few cells of one set, so that
// neither memory nor time depends on how many keys there are, and no sweep is
// needed. The hash is seeded: nobody can choose an address that evicts another's.
type rates struct {
	seed  maphash.Seed
	start time.Time

	mu   sync.Mutex
	sets [][ways]cell // guarded by mu
}

const (
	setBits = 15
	ways    = 4
)

// cell is one key's use: whole is when all of the burst is there again, counted
// from rates.start. The zero cell is free.
type cell struct {
	key   uint64
	whole time.Duration
}

func newRates(now time.Time) *rates {
	return &rates{seed: maphash.MakeSeed(), start: now, sets: make([][ways]cell, 1<<setBits)}
}

// take charges c and returns 0, or charges nothing and returns how long to wait.
func (r *rates) take(now time.Time, c charges) time.Duration {
	at := now.Sub(r.start)
	r.mu.Lock()
	defer r.mu.Unlock()
	var mark *cell
	if c.mark != nil {
		if mark = r.cell(c.mark); mark.whole > at {
			return 0
		}
	}
	wait := time.Duration(0)
	for _, ch := range c.all {
		if ch.Burst >= 0 {
			spare := time.Duration(max(ch.Burst, 1)-1) * ch.Every
			wait = max(wait, r.cell(ch.key).whole-at-spare)
		}
	}
	if wait > 0 || c.peek {
		return wait
	}
	for _, ch := range c.all {
		if ch.Burst >= 0 {
			used := r.claim(ch.key)
			used.whole = max(used.whole, at) + ch.Every
		}
	}
	if c.mark != nil {
		r.claim(c.mark).whole = at + retryWindow
	}
	return 0
}

// cell returns the key's cell as it is, a free one if it has none.
func (r *rates) cell(key []string) *cell {
	h := r.hash(key)
	set := &r.sets[h>>(64-setBits)]
	if i := slices.IndexFunc(set[:], func(c cell) bool { return c.key == h }); i >= 0 {
		return &set[i]
	}
	return &cell{key: h}
}

// claim returns the key's cell in the table, in the place of the one that is
// forgotten at the least cost if it has none.
func (r *rates) claim(key []string) *cell {
	h := r.hash(key)
	set := &r.sets[h>>(64-setBits)]
	least := 0
	for i := range set {
		if set[i].key == h {
			return &set[i]
		}
		if set[i].whole < set[least].whole {
			least = i
		}
	}
	set[least] = cell{key: h}
	return &set[least]
}

// hash keeps the parts of a key apart: "a", "bc" and "ab", "c" are two keys.
func (r *rates) hash(key []string) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	for _, part := range key {
		maphash.WriteComparable(&h, len(part))
		h.WriteString(part)
	}
	return h.Sum64()
}
