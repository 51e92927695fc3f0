package intake

import (
	"slices"

	"github.com/deliverd/deliverd/mail"
)

// AllTenants in Caller.Tenants stands for every tenant.
const AllTenants = "*"

// Caller is who hands a request over: the owner of a token, or a NATS source. The
// zero Caller may do nothing.
type Caller struct {
	// Source names the caller in the log and in the message, e.g. "login".
	Source string
	// Tenants are those that the caller may speak for, or [AllTenants].
	Tenants []string
}

// May reports whether the caller may speak for a tenant.
func (c Caller) May(tenant string) bool {
	return slices.Contains(c.Tenants, AllTenants) || tenant != "" && slices.Contains(c.Tenants, tenant)
}

// fill sets the tenant that the caller implies where the request names none, and
// refuses one that the caller may not speak for. That answer is "not found",
// whether or not there is such a tenant: another tenant's name tells nothing.
func (c Caller) fill(r *mail.Request) error {
	if r.Tenant == "" && !c.May("") && len(c.Tenants) == 1 {
		r.Tenant = c.Tenants[0]
	}
	switch {
	case r.Tenant == AllTenants:
		return invalid("tenant", "A message is one tenant's.")
	case c.May(r.Tenant):
		return nil
	case r.Tenant == "" && len(c.Tenants) > 1:
		return invalid("tenant", "This caller may speak for several tenants: name one.")
	}
	return notFound("tenant", "There is no such tenant, or this caller may not speak for it.")
}
