package console

import (
	"context"
	"slices"
)

// Role is what a person may do; see [Role.Scopes]. What a token may do, its scopes
// say one by one.
type Role string

// The roles. Each includes the one before it.
const (
	RoleSupport  Role = "support"  // find people, see what happened, cancel, send again, suppress and lift, check domains
	RoleOperator Role = "operator" // hold back and let go of what waits, read all of the service log
	RoleAdmin    Role = "admin"    // tokens, sessions, login links
)

// Roles lists every role, the weakest first.
var Roles = [...]Role{RoleSupport, RoleOperator, RoleAdmin}

// ScopeOperate is to hold back and let go of what waits, and to read all of the
// service log. It is issued to nobody by itself: operators have it, and tokens with
// ScopeAct.
const ScopeOperate Scope = "operate"

// Scopes returns what a role allows, nothing for one that there isn't. Nobody who
// looks may hand mail over: that is for programs, whose tokens say as whom.
func (r Role) Scopes() []Scope {
	switch r {
	case RoleSupport:
		return []Scope{ScopeRead, ScopeAct, ScopeDomains}
	case RoleOperator:
		return []Scope{ScopeRead, ScopeAct, ScopeDomains, ScopeOperate}
	case RoleAdmin:
		return []Scope{ScopeAdmin}
	}
	return nil
}

// issued is the scope of tokens that allows what s does.
func (s Scope) issued() Scope {
	if s == ScopeOperate {
		return ScopeAct
	}
	return s
}

// The ways in which a request says whose it is.
const (
	ViaToken   = "token"   // an API token
	ViaSession = "session" // a cookie that a sign-in left: only these can sign out
	ViaProxy   = "proxy"   // a header that a proxy of ours sets
	ViaDev     = "dev"     // this machine, of `deliverd dev`
	ViaNATS    = "nats"    // a request over NATS
)

// Principal is who makes a request.
type Principal struct {
	Name    string // for the log and the page's corner: a token's name, or a person's
	ID      string // tells those of one name apart: a token's or a session's id; "" for the rest
	Via     string // ViaToken …
	Role    Role   // a person's; "" for a token
	Scopes  []Scope
	Tenants []string // or [AllTenants]
	Sources []string

	session *Session // of ViaSession
}

// person returns a principal who has a role for some tenants.
func person(name, id, via string, role Role, tenants []string) *Principal {
	return &Principal{Name: name, ID: id, Via: via, Role: role, Scopes: role.Scopes(), Tenants: tenants}
}

// tokenHolder returns the principal who holds a token.
func tokenHolder(t *Token) *Principal {
	scopes := slices.Clone(t.Scopes)
	if slices.Contains(scopes, ScopeAct) {
		scopes = append(scopes, ScopeOperate)
	}
	return &Principal{Name: t.Name, ID: t.ID, Via: ViaToken, Scopes: scopes, Tenants: t.Tenants, Sources: t.Sources}
}

// Can reports whether the principal has the scope.
func (p *Principal) Can(s Scope) bool {
	return slices.Contains(p.Scopes, s) || slices.Contains(p.Scopes, ScopeAdmin)
}

// Sees reports whether the principal may know of a tenant's things.
func (p *Principal) Sees(tenant string) bool {
	return p.seesAll() || slices.Contains(p.Tenants, tenant)
}

func (p *Principal) seesAll() bool { return slices.Contains(p.Tenants, AllTenants) }

// visible narrows what was asked for, "" for every tenant, to what the principal
// may see, in the form of [Filter].
func (p *Principal) visible(tenant string) []string {
	switch {
	case tenant == "" && p.seesAll():
		return nil
	case tenant == "":
		return p.Tenants
	case p.Sees(tenant):
		return []string{tenant}
	}
	return []string{}
}

// Source is the name under which the principal hands mail over.
func (p *Principal) Source() string {
	if len(p.Sources) > 0 {
		return p.Sources[0]
	}
	return p.Name
}

type principalKey struct{}

// PrincipalFrom returns who makes the request that ctx belongs to; nil before an
// Authenticator has seen it.
func PrincipalFrom(ctx context.Context) *Principal {
	p, _ := ctx.Value(principalKey{}).(*Principal)
	return p
}

// Grant gives a role to the members of a group of the sign-in system.
type Grant struct {
	Group   string
	Role    Role
	Tenants []string // or [AllTenants]
}

// granted returns what all the grants of some groups come to; false for nothing.
// Nobody gets more than one of their grants gives: a role for every tenant is the
// strongest of those, and the ones for single tenants add nothing to it; without
// one, it is the tenants of all of them, in the weakest of the roles.
func granted(grants []Grant, groups []string) (role Role, tenants []string, ok bool) {
	rank := func(r Role) int { return slices.Index(Roles[:], r) }
	var everywhere, somewhere Role
	for _, g := range grants {
		switch {
		case !slices.Contains(groups, g.Group) || rank(g.Role) < 0:
		case slices.Contains(g.Tenants, AllTenants):
			if rank(g.Role) > rank(everywhere) {
				everywhere = g.Role
			}
		default:
			if somewhere == "" || rank(g.Role) < rank(somewhere) {
				somewhere = g.Role
			}
			tenants = append(tenants, g.Tenants...)
		}
	}
	if everywhere != "" {
		return everywhere, []string{AllTenants}, true
	}
	slices.Sort(tenants)
	return somewhere, slices.Compact(tenants), len(tenants) > 0
}
