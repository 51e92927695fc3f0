package console

import "time"

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
