package console

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"

	"github.com/deliverd/deliverd/mail"
)

// somebody is who a person is: a tenant's person id, or a tenant's address where the
// auth service gave none.
type somebody struct {
	tenant, personID string
	address          string // only where there is no person id
}

func (r *personRow) somebody() somebody {
	if r.personID != "" {
		return somebody{tenant: r.tenant, personID: r.personID}
	}
	return somebody{tenant: r.tenant, address: r.address}
}

func (i somebody) key() string { return PersonKey(i.tenant, i.personID, mail.Address(i.address)) }

// circle is all that is one person: mail with the person id to any address, and mail
// without one to an address that only this person of the tenant has. A changed
// address, and an auth service that began to send person ids, so lead to one story.
type circle struct {
	somebody
	addresses []string
	keys      []string // the [PersonKey]s of the messages, the person's own first
	// others have an address of this one's too, under other person ids.
	others []somebody
}

// circleAddresses bounds the addresses of one person that are looked at: an auth
// service may by mistake give everybody the same id.
const circleAddresses = 50

// place is an address of a tenant.
type place struct{ tenant, address string }

// circles returns the circle of each, by whom it was asked for.
func (v *View) circles(ctx context.Context, of []somebody) (map[somebody]circle, error) {
	// Who is known by address alone may have a person id as well.
	places := map[place]bool{}
	for _, i := range of {
		if i.personID == "" {
			places[place{i.tenant, i.address}] = true
		}
	}
	at, err := v.whoIsAt(ctx, places)
	if err != nil {
		return nil, err
	}
	owner := map[somebody]somebody{}
	persons := map[somebody]bool{}
	for _, i := range of {
		owner[i] = i
		if only, ok := at.only(place{i.tenant, i.address}); ok && i.personID == "" {
			owner[i] = only
		}
		if owner[i].personID != "" {
			persons[owner[i]] = true
		}
	}
	homes, err := v.addressesOf(ctx, persons)
	if err != nil {
		return nil, err
	}
	clear(places)
	for i, addresses := range homes {
		for _, a := range addresses {
			places[place{i.tenant, a}] = true
		}
	}
	if at, err = v.whoIsAt(ctx, places); err != nil {
		return nil, err
	}
	all := make(map[somebody]circle, len(of))
	for _, i := range of {
		all[i] = at.circle(owner[i], homes[owner[i]])
	}
	return all, nil
}

// whoIsAt are the identities at places.
type whoIsAt map[place][]somebody

// only returns the one person id that is known at a place.
func (w whoIsAt) only(p place) (somebody, bool) {
	found, n := somebody{}, 0
	for _, i := range w[p] {
		if i.personID != "" {
			found, n = i, n+1
		}
	}
	return found, n == 1
}

func (w whoIsAt) circle(i somebody, addresses []string) circle {
	if i.personID == "" {
		return circle{somebody: i, addresses: []string{i.address}, keys: []string{i.key()}}
	}
	c := circle{somebody: i, addresses: addresses, keys: []string{i.key()}}
	for _, a := range addresses {
		p := place{i.tenant, a}
		_, alone := w.only(p)
		for _, at := range w[p] {
			switch {
			case at.personID == "" && alone:
				c.keys = append(c.keys, at.key())
			case at.personID != "" && at != i && !slices.Contains(c.others, at):
				c.others = append(c.others, at)
			}
		}
	}
	return c
}

// pairs is the JSON of a list of pairs, for json_each.
func pairs(list [][2]string) string {
	b, _ := json.Marshal(list) // strings can't fail
	return string(b)
}

func (v *View) whoIsAt(ctx context.Context, places map[place]bool) (whoIsAt, error) {
	at := whoIsAt{}
	if len(places) == 0 {
		return at, nil
	}
	list := make([][2]string, 0, len(places))
	for p := range places {
		list = append(list, [2]string{p.address, p.tenant})
	}
	err := v.query(ctx, func(rows *sql.Rows) error {
		var r personRow
		if err := rows.Scan(&r.tenant, &r.personID, &r.address); err != nil {
			return err
		}
		p := place{r.tenant, r.address}
		if i := r.somebody(); !slices.Contains(at[p], i) {
			at[p] = append(at[p], i)
		}
		return nil
	}, `SELECT p.tenant, p.person_id, p.address FROM json_each(?) j
		CROSS JOIN people p ON p.address = j.value ->> 0 AND p.tenant = j.value ->> 1 LIMIT ?`,
		pairs(list), circleAddresses*len(list))
	return at, err
}

func (v *View) addressesOf(ctx context.Context, persons map[somebody]bool) (map[somebody][]string, error) {
	homes := map[somebody][]string{}
	if len(persons) == 0 {
		return homes, nil
	}
	list := make([][2]string, 0, len(persons))
	for i := range persons {
		list = append(list, [2]string{i.personID, i.tenant})
	}
	err := v.query(ctx, func(rows *sql.Rows) error {
		var r personRow
		if err := rows.Scan(&r.tenant, &r.personID, &r.address); err != nil {
			return err
		}
		i := r.somebody()
		if len(homes[i]) < circleAddresses && !slices.Contains(homes[i], r.address) {
			homes[i] = append(homes[i], r.address)
		}
		return nil
	}, `SELECT p.tenant, p.person_id, p.address FROM json_each(?) j
		CROSS JOIN people p ON p.person_id = j.value ->> 0 AND p.tenant = j.value ->> 1 AND p.person_id <> '' LIMIT ?`,
		pairs(list), circleAddresses*len(list))
	return homes, err
}
