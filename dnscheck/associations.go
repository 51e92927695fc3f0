package dnscheck

import (
	"context"
	"errors"
	"fmt"
)

// Associations is what DANE says of one host.
type Associations struct {
	// Base is the name that has the records, without port and protocol: the one to be
	// named in the handshake, and in a certificate of usage 2 (RFC 7672 3.2.2).
	Base string
	// Records are all that are published there, usable or not. None: DANE says nothing
	// of this host, and that is certain.
	Records []TLSA
}

// Associations looks up the certificate associations of a host of a Route whose own
// answer was validated. It asks only where they could count (RFC 7672 2.2): for a
// host whose addresses were validated, at the name that its aliases lead to and then
// at its own; and at its own alone where the alias was validated and its target was
// not. Records that were not validated are none.
//
// The error is an *Error: the zone is signed, and whether it has associations could
// not be learned. Mail must not go to that host then (RFC 7672 2.1.1), or else
// whoever can stop an answer could turn DANE off.
func (r *Resolver) Associations(ctx context.Context, h Host, port uint16) (Associations, error) {
	names, err := r.bases(ctx, &h)
	if err != nil {
		return Associations{}, err
	}
	for _, base := range names {
		found, err := r.TLSA(ctx, fmt.Sprintf("_%d._tcp.%s", port, base))
		if lookup, ok := errors.AsType[*Error](err); ok {
			if !lookup.Permanent() {
				return Associations{}, lookup
			}
			continue
		}
		if found.AD {
			return Associations{Base: base, Records: found.List}, nil
		}
	}
	return Associations{}, nil
}

// bases are the names to look for associations at, in order.
func (r *Resolver) bases(ctx context.Context, h *Host) ([]string, error) {
	switch aliases := len(h.Aliases); {
	case h.AD && aliases > 0:
		return []string{h.Aliases[aliases-1], h.Name}, nil
	case h.AD:
		return []string{h.Name}, nil
	case aliases == 0:
		return nil, nil
	}
	alias, err := r.CNAME(ctx, h.Name)
	if lookup, ok := errors.AsType[*Error](err); ok && !lookup.Permanent() {
		return nil, lookup
	}
	if err != nil || !alias.AD {
		return nil, nil
	}
	return []string{h.Name}, nil
}
