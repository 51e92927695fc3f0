package mail

import "strings"

// suggestDomain returns the domain that was probably meant: one of domains (the
// tenant's own) or a well-known one that differs from domain by a slip of the finger.
// It returns "" for a domain that is itself one of them, and when in doubt.
func suggestDomain(domain string, domains []string) string {
	if isWellKnown(domain) {
		return ""
	}
	best, least := "", uint8(maxSlips+1)
	for _, own := range domains {
		own = asciiLower(own)
		if domain == own || strings.HasSuffix(domain, "."+own) {
			return ""
		}
		if n := slips(domain, own); n < least && n <= allowedSlips(own) {
			best, least = own, n
		}
	}
	for _, known := range wellKnownDomains {
		if n := slips(domain, known); n < least && n <= allowedSlips(known) && !sisters(domain, known) {
			best, least = known, n
		}
	}
	if best != "" {
		return best
	}
	return suggestTopLevel(domain)
}

// maxSlips is the most that is taken for a slip: two keys.
const maxSlips = 2

// allowedSlips keeps short names apart: "web.de" and "wes.de" are two companies,
// "outlok.cmo" is nobody's.
func allowedSlips(name string) uint8 {
	switch {
	case len(name) < 7:
		return 0
	case len(name) < 11:
		return 1
	}
	return maxSlips
}

// sisters: the names differ in nothing but the country, as outlook.fi and outlook.fr
// do; that says nothing about which was meant.
func sisters(a, b string) bool {
	x, y := strings.LastIndexByte(a, '.'), strings.LastIndexByte(b, '.')
	return a[:x] == b[:y] && len(a)-x == 3 && len(b)-y == 3
}

// suggestTopLevel mends what is wrong whatever the company: the address of a provider
// that has one domain in the whole world, and top-level domains that do not exist.
func suggestTopLevel(domain string) string {
	dot := strings.LastIndexByte(domain, '.')
	name, top := domain[:dot], domain[dot+1:]
	switch name {
	case "gmail", "icloud", "protonmail":
		return name + ".com"
	}
	switch top {
	case "con", "cmo", "ocm", "vom", "xom", "cpm", "coom", "comm", "cim", "clm", "cok", "c0m", "copm":
		return name + ".com"
	case "nte", "ent", "met", "nett", "netl":
		return name + ".net"
	case "ogr", "rog", "orgg", "prg":
		return name + ".org"
	}
	return ""
}

// maxCompared is the length above which names are not compared: nobody types them.
const maxCompared = 64

// slips counts the keys pressed wrongly, left out, doubled or swapped that lead from
// one name to the other (optimal string alignment), and gives up with maxSlips+1.
func slips(a, b string) uint8 {
	if d := len(a) - len(b); d > maxSlips || d < -maxSlips || max(len(a), len(b)) > maxCompared {
		return maxSlips + 1
	}
	// Three rows of the table: the swap looks two rows back.
	var rows [3][maxCompared + 1]uint8
	for j := range len(b) + 1 {
		rows[0][j] = uint8(j)
	}
	for i := 1; i <= len(a); i++ {
		now, above, twoAbove := &rows[i%3], &rows[(i+2)%3], &rows[(i+1)%3]
		now[0] = uint8(i)
		least := now[0]
		for j := 1; j <= len(b); j++ {
			change := uint8(1)
			if a[i-1] == b[j-1] {
				change = 0
			}
			n := min(above[j]+1, now[j-1]+1, above[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, twoAbove[j-2]+1)
			}
			now[j] = n
			least = min(least, n)
		}
		if least > maxSlips {
			return maxSlips + 1
		}
	}
	return min(rows[len(a)%3][len(b)], maxSlips+1)
}

func isWellKnown(domain string) bool {
	for _, known := range wellKnownDomains {
		if domain == known {
			return true
		}
	}
	for _, near := range nearMisses {
		if domain == near {
			return true
		}
	}
	return false
}

// wellKnownDomains are where people have their mail: the large providers, and those of
// the Nordic countries and their neighbours.
var wellKnownDomains = [...]string{
	"gmail.com", "googlemail.com", "icloud.com", "me.com", "mac.com", "proton.me", "protonmail.com",
	"outlook.com", "hotmail.com", "live.com", "msn.com", "aol.com", "ymail.com", "rocketmail.com",
	"hotmail.fi", "hotmail.se", "hotmail.no", "hotmail.dk", "hotmail.fr", "hotmail.de", "hotmail.it",
	"hotmail.es", "hotmail.nl", "hotmail.co.uk", "live.fi", "live.se", "live.no", "live.dk", "live.de",
	"live.nl", "live.co.uk", "outlook.dk", "outlook.de", "outlook.fr", "outlook.es", "outlook.it",
	"yahoo.com", "yahoo.co.uk", "yahoo.de", "yahoo.fr", "yahoo.es", "yahoo.it", "yahoo.se", "yahoo.no",
	"yahoo.dk", "yahoo.fi", "yahoo.co.jp", "yahoo.co.in", "yahoo.com.br", "yahoo.ca",
	"elisanet.fi", "kolumbus.fi", "saunalahti.fi", "pp.inet.fi", "inet.fi", "luukku.com", "suomi24.fi",
	"welho.com", "dnainternet.net", "phnet.fi", "netti.fi", "surffi.fi", "kotikone.fi", "nic.fi", "mbnet.fi",
	"telia.com", "bredband.net", "comhem.se", "spray.se", "bahnhof.se", "home.se", "tele2.se",
	"online.no", "start.no", "getmail.no", "frisurf.no", "altibox.no", "lyse.net",
	"mail.dk", "jubii.dk", "stofanet.dk", "tdcadsl.dk", "youmail.dk", "simnet.is", "hot.ee", "mail.ee",
	"inbox.lv", "inbox.lt", "gmx.de", "gmx.net", "gmx.com", "gmx.at", "gmx.ch", "web.de", "t-online.de",
	"freenet.de", "mail.com", "mail.ru", "yandex.ru", "yandex.com", "fastmail.com", "zoho.com",
	"orange.fr", "wanadoo.fr", "free.fr", "laposte.net", "sfr.fr", "libero.it", "virgilio.it",
	"btinternet.com", "sky.com", "comcast.net", "verizon.net", "att.net", "sbcglobal.net", "cox.net",
	"qq.com", "163.com", "126.com", "naver.com", "hanmail.net", "wp.pl", "o2.pl", "onet.pl", "interia.pl",
	"seznam.cz", "ziggo.nl", "kpnmail.nl", "planet.nl", "telenet.be", "skynet.be", "bluewin.ch",
}

// nearMisses are real domains of other people that look like a slip of a well-known
// one.
var nearMisses = [...]string{
	"email.com", "fmail.com", "gmail.de", "vmail.com", "zmail.com", "qmail.com", "tmail.com", "nmail.com",
	"mailbox.org", "mail.de", "mail.fi", "mail.se", "mail.no", "yahoo.com.au", "yahoo.com.mx", "aim.com",
	"olive.com", "love.com", "lite.com", "line.com", "life.com", "zoho.eu", "proton.ch", "cloud.com",
	"outlook.co", "online.fi", "online.se", "online.de", "inbox.com", "inbox.ru", "fastmail.fm", "telia.se",
	"telia.fi", "start.se", "orange.com", "planet.com", "planet.de", "hey.com", "hmail.com",
}
