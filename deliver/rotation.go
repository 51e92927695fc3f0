package deliver

import (
	"cmp"
	"slices"
	"time"
)

// Rotation is the DKIM keys of one domain over time, oldest first. A generation is
// the keys that are made, used and revoked together, one of each algorithm:
//
//	next     made; its records are being published. Nothing is signed with it
//	active   signs: each resolver has shown its records twice, SettleTime apart
//	old      signs no more, but what it signed may still be on its way
//	revoke   nothing that it signed is of use any more, or it leaked: its records are
//	         to be replaced by an empty p= (RFC 6376 3.6.1), or removed
//
// A generation whose records are gone is dropped. At most one is next and at most
// one is active; a domain without an active one has its mail held, not sent unsigned.
// The methods are pure: the time and what DNS shows are told to them.
type Rotation struct {
	Generations []Generation `json:"generations"`
}

// Phase is where a generation stands.
type Phase string

// The phases, in their order.
const (
	PhaseNext   Phase = "next"
	PhaseActive Phase = "active"
	PhaseOld    Phase = "old"
	PhaseRevoke Phase = "revoke"
)

// SettleTime is how long every resolver must have shown a new key before it signs:
// one good answer may come from the one secondary server that was updated first.
const SettleTime = 5 * time.Minute

// Generation is keys that live together.
type Generation struct {
	Phase    Phase         `json:"phase"`
	Keys     []RotatingKey `json:"keys"`
	MadeAt   time.Time     `json:"made_at,omitzero"`   // zero: configured by hand
	SeenAt   time.Time     `json:"seen_at,omitzero"`   // since when every resolver shows it
	UsedAt   time.Time     `json:"used_at,omitzero"`   // when it began to sign
	UnusedAt time.Time     `json:"unused_at,omitzero"` // when it ceased to
	Leaked   bool          `json:"leaked,omitempty"`
}

// RotatingKey names a key without holding it.
type RotatingKey struct {
	Selector string `json:"selector"`
	Key      string `json:"key"` // reference to the private key, "file:…"
}

// Name names a generation by its first selector.
func (g *Generation) Name() string {
	if len(g.Keys) == 0 {
		return ""
	}
	return g.Keys[0].Selector
}

// Sighting is what DNS shows of a generation's records.
type Sighting struct {
	Right bool // each configured resolver shows each record as it should be
	Gone  bool // no resolver shows any record with a key in it
}

// News is a step that a generation has taken.
type News struct {
	Generation Generation // as it is now
	Dropped    bool       // its records are gone, and so may be its keys
}

// Next returns the generation that is being published, nil if there is none.
func (r *Rotation) Next() *Generation { return r.in(PhaseNext) }

// Active returns the generation that signs, nil if there is none.
func (r *Rotation) Active() *Generation { return r.in(PhaseActive) }

func (r *Rotation) in(p Phase) *Generation {
	if i := slices.IndexFunc(r.Generations, func(g Generation) bool { return g.Phase == p }); i >= 0 {
		return &r.Generations[i]
	}
	return nil
}

// Has reports whether a selector is, or lately was, in use.
func (r *Rotation) Has(selector string) bool { return r.holding(selector) != nil }

func (r *Rotation) holding(selector string) *Generation {
	i := slices.IndexFunc(r.Generations, func(g Generation) bool {
		return slices.ContainsFunc(g.Keys, func(k RotatingKey) bool { return k.Selector == selector })
	})
	if i < 0 {
		return nil
	}
	return &r.Generations[i]
}

// Begin adds a next generation; it reports false, and adds nothing, where one is
// being published already.
func (r *Rotation) Begin(keys []RotatingKey, now time.Time) bool {
	if r.Next() != nil {
		return false
	}
	r.Generations = append(r.Generations, Generation{Phase: PhaseNext, Keys: keys, MadeAt: now})
	return true
}

// Retire ends a generation at once, because a key of it is in wrong hands: nothing
// more is signed with it, and its records are to be revoked now. It reports false
// where no generation has the selector.
func (r *Rotation) Retire(selector string, now time.Time) bool {
	g := r.holding(selector)
	if g == nil {
		return false
	}
	g.Phase, g.Leaked = PhaseRevoke, true
	g.UnusedAt = cmp.Or(g.UnusedAt, now)
	return true
}

// Advance takes the steps that are due. seen has what DNS shows of generations, by
// name; one without an entry was not looked at, or DNS did not answer. life is the
// longest that a message can wait before it is sent or expires: an old generation's
// records stay for so long.
func (r *Rotation) Advance(now time.Time, life time.Duration, seen map[string]Sighting) (news []News) {
	if g := r.Next(); g != nil {
		if s, looked := seen[g.Name()]; looked && r.settled(g, s, now) {
			if former := r.Active(); former != nil {
				former.Phase, former.UnusedAt = PhaseOld, now
				news = append(news, News{Generation: *former})
			}
			g.Phase, g.UsedAt = PhaseActive, now
			news = append(news, News{Generation: *g})
		}
	}
	for i := range r.Generations {
		if g := &r.Generations[i]; g.Phase == PhaseOld && now.Sub(g.UnusedAt) >= life {
			g.Phase = PhaseRevoke
			news = append(news, News{Generation: *g})
		}
	}
	r.Generations = slices.DeleteFunc(r.Generations, func(g Generation) bool {
		// A leaked one is remembered for as long as something that it signed may wait.
		over := g.Phase == PhaseRevoke && seen[g.Name()].Gone && now.Sub(g.UnusedAt) >= life
		if over {
			news = append(news, News{Generation: g, Dropped: true})
		}
		return over
	})
	return news
}

// settled notes what was seen of the next generation, and says whether it may sign.
func (r *Rotation) settled(g *Generation, s Sighting, now time.Time) bool {
	if !s.Right {
		g.SeenAt = time.Time{} // from the start
		return false
	}
	g.SeenAt = cmp.Or(g.SeenAt, now)
	// With no active generation mail is being held: once must do.
	return r.Active() == nil || now.Sub(g.SeenAt) >= SettleTime
}
