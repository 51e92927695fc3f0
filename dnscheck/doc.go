// Package dnscheck says what the DNS knows about a domain: first of all where
// its mail goes.
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
// it runs on does; it validates no signatures itself. What a zone's owner can
// make arbitrarily large or long (records, aliases, addresses, delays, text) is
// bounded here. No type of the DNS library is part of the API.
package dnscheck
