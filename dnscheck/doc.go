// Package dnscheck says what the DNS knows about a domain: where its mail goes,
// whether ours will arrive there, and how the people there can let it in.
//
// # Resolver
//
// A question takes this way, and each step has a file:
//
//	Route     route.go    MX, implicit MX or null MX; hosts in order, addresses that mail may go to
//	MX, TXT … records.go  one record type as plain Go values
//	find      lookup.go   memory, the same question under way, aliases
//	query     query.go    the servers in turn, until one gives a usable answer
//	ask       wire.go     UDP with EDNS, without it where it isn't known, TCP where it is too long
//	digest    answer.go   records, proven absence or failure, and how long it holds
//
// Three things are kept apart that resolvers like to mix up, because they decide
// whether a mail is given up: absence that a server has proven (NoDomain, NoData,
// NullMX), a failure on the domain's side (Temporary), and a failure of our own
// resolvers (Local). Nothing is ever concluded from silence.
//
// The package speaks to recursive resolvers only and trusts them as the machine
// it runs on does; it validates no signatures itself. No type of the DNS library
// is part of the API.
//
// # Report
//
// Check looks at all subjects side by side and then draws conclusions:
//
//	Check ─ look ─┬ exchangers   MX and addresses, then dane (TLSA), then converse (SMTP, if asked for)
//	              ├ spf          the whole tree of includes, its cost, its verdict on a stranger
//	              ├ dmarc        the tree walk, the record, who gets the reports
//	              ├ sts, tlsrpt, bimi
//	              └ sender       our own side: PTR, HELO, SPF, DKIM keys, alignment, blocklists
//	        judge ─ unanswered   what nobody answered; bogus signatures told from dead servers
//	              └ detect       the product that the MX leads to, and what stands behind it
//	     conclude                verdict, one sentence, the one thing to do, who does it
//
// A finding has a stable code out of one catalogue (catalog.go), names its
// subject, shows the record with its source, and gives the record to publish. It
// says whether it matters for mail from us: most of what is wrong with a
// recipient's SPF or DMARC is about their own mail.
//
// The same pieces serve elsewhere: CheckSPF evaluates a policy as receiving
// servers do, FetchSTS gets an MTA-STS policy and MatchTLSA holds a certificate
// against TLSA records, as a delivery needs them. Identity is the report on our
// own side alone.
//
// The products are files under products/, in English and Finnish.
//
// # Bounds
//
// What a zone's owner can make arbitrarily large or long is bounded: aliases,
// records, hosts, addresses, includes, questions and findings of a check, sizes
// and times of the policy host, and every text on its way into a report, which is
// also freed of what could steer a terminal. A check never connects to an address
// that it found, but for the policy host of MTA-STS and, if asked to, the
// exchangers; both only on the public Internet.
package dnscheck
