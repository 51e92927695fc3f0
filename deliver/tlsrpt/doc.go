// Package tlsrpt tells the domains that we send to how TLS with their servers went,
// once a day, if they want to know (RFC 8460).
//
//	Collector  collect.go   a session → the tally of its day and domain; kept durably now and then
//	Merge      report.go    all nodes' tallies of a day and domain → one report
//	Reporter   reporter.go  a day is over: to whom, once, by mail and by https
//	Render     message.go   the report as a mail, for our own queue
//
// What may be assumed: collecting reads and writes memory only, and what is kept of a
// domain and day is bounded, whatever its servers do. A crash loses at most the last
// minutes' sessions of one node. A report is sent once; where it can't be for a day,
// it is given up, as the next one says more.
package tlsrpt
