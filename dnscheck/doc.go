// Package dnscheck says what the DNS knows about a domain: where its mail goes.
package dnscheck
