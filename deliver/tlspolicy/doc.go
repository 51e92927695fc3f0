// Package tlspolicy says how a connection to a mail server has to be protected, who
// wants that, and whether a connection is so. It dials nothing but policy hosts.
//
// The order of the steps, for each host of a route:
//
//	STS        sts.go      the domain's MTA-STS policy: remembered, shared, fetched anew (RFC 8461)
//	find       find.go     TLSA records, asked for only where they could count (RFC 7672)
//	Decide     demand.go   what the facts come to: a Demand, or why the host is barred
//	Raise      demand.go   the floor of the message's kind over it
//	Check      judge.go    a server's certificates held against the Demand
//	Session    session.go  how it went, for the reports of RFC 8460
//	Seen       seen.go     who offered TLS before, so that a downgrade is noticed
//
// Who wins where several speak (RFC 8461 2, RFC 7672 2.2):
//
//	TLSA can't be learned, zone signed      barred: another host, or later
//	TLSA, some usable                       the certificate is one that they name; MTA-STS does not matter
//	TLSA, none usable                       encrypted, any certificate; and then MTA-STS as below
//	MTA-STS enforce, host is in it          a certificate for the host's name from a trusted root
//	MTA-STS enforce, host is not in it      barred
//	MTA-STS testing                         as nothing, and what would have failed is reported
//	nothing                                 encrypted where the server can (RFC 7435)
//
// What may be assumed: a policy that was ever seen counts until its own max_age,
// whatever becomes of its record, its host or this process; a failure to find one
// never delays mail by more than a minute, and not twice within five; and what is
// kept in memory is bounded, as recipients choose the domains.
package tlspolicy
