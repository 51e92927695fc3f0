package console

import (
	"fmt"
	"slices"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

func TestTenantDomains(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	n := 0
	add := func(tenant, domain string, ends mail.State, times int) {
		for range times {
			n++
			m := invite(n)
			m.Tenant, m.To = tenant, mail.Address(fmt.Sprintf("Kari%d@%s", n, domain))
			life := greylistedThenHandedOver(m)
			end := life[len(life)-1]
			end.State = ends
			fill(t, v, life[0], end)
		}
	}
	add("04711", "old.example", mail.StateAccepted, 5) // pushed out below
	add("04711", "nordlys.example", mail.StateAccepted, tenantRecent-20)
	add("04711", "sydlys.example", mail.StateAccepted, 18)
	add("04711", "slip.example", mail.StateAccepted, 1)
	add("04711", "gone.example", mail.StateReturned, 3)
	add("04711", "refused.example", mail.StateRefused, 3)
	add("04711", "last.example", mail.StateAccepted, 1)
	add("other", "other.example", mail.StateAccepted, 3)
	for i := range tenantMost + 5 {
		add("many", fmt.Sprintf("company%02d.example", i), mail.StateAccepted, 2)
	}
	for tenant, want := range map[string][]string{
		"04711": {"nordlys.example", "sydlys.example"},
		"other": {"other.example"},
		"none":  nil,
	} {
		got, err := v.TenantDomains(t.Context(), tenant)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", tenant, got, err, want)
		}
	}
	if got, err := v.TenantDomains(t.Context(), "many"); err != nil || len(got) != tenantMost {
		t.Errorf("many: %q, %v", got, err)
	}
}
