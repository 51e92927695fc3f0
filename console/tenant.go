package console

import (
	"context"
	"database/sql"
)

const (
	// tenantRecent of a tenant's latest messages that were handed over tell its domains.
	tenantRecent = 200
	// tenantLeast of them make a domain the tenant's own: one may be a slip that some
	// server took.
	tenantLeast = 2
	tenantMost  = 10
)

// TenantDomains returns the domains that a tenant's mail has lately been handed over
// to, the most usual first, at most 10: what a mistyped domain most likely means.
func (v *View) TenantDomains(ctx context.Context, tenant string) ([]string, error) {
	var domains []string
	err := v.query(ctx, func(rows *sql.Rows) error {
		var d string
		if err := rows.Scan(&d); err != nil {
			return err
		}
		domains = append(domains, d)
		return nil
	}, `SELECT substr(address, instr(address, '@') + 1) AS domain FROM
		(SELECT address FROM messages WHERE tenant = ? AND state = 'accepted' ORDER BY id DESC LIMIT ?)
		GROUP BY domain HAVING count(*) >= ? ORDER BY count(*) DESC, domain LIMIT ?`,
		tenant, tenantRecent, tenantLeast, tenantMost)
	return domains, err
}
