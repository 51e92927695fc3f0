package sample

import (
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// The people, servers and events of the sample. Every name is made up, and every
// domain and address one that can't exist (RFC 2606, RFC 5737).

var (
	nordlys  = tenant{"04711", "Nordlys Oy"}
	parking  = tenant{"00815", "Kiinteistöosakeyhtiö Hämeenlinnan Keskusliikerakennus"}
	harbour  = tenant{"02040", "Harbour & Sons Ltd"}
	koivula  = tenant{"01199", "Koivula Consulting Oy"}
	terveys  = tenant{"03377", "Lahden Terveyspalvelut"}
	linden   = tenant{"06210", "Linden GmbH"}
	satama   = tenant{"07731", "Sataman Huolinta Oy"}
	kunta    = tenant{"05120", "Saarijoen kunta"}
	kari     = person{"Kari Nordmann", "kari.nordmann@nordlys.example", "fi", nordlys}
	kariTypo = person{"Kari Nordmann", "kari.nordmnan@nordlys.example", "fi", nordlys}
	liisa    = person{"Liisa Mäkelä", "liisa.makela@nordlys.example", "fi", nordlys}
	anna     = person{"Anna-Kaarina Hyväntahtoinen-Lähteenkorva", "anna-kaarina.hyvantahtoinen-lahteenkorva@keskusliikerakennus.example", "fi", parking}
	pekka    = person{"Pekka Pysäköijä", "pekka.pysakoija@keskusliikerakennus.example", "fi", parking}
	mary     = person{"Mary Smith", "mary.smith@harbour.example", "en", harbour}
	john     = person{"John O'Brien", "john.obrien@harbour.example", "en", harbour}
	grace    = person{"Grace Adeyemi", "grace.adeyemi@harbour.example", "en", harbour}
	matti    = person{"Matti Meikäläinen", "matti.meikalainen@koivula.example", "fi", koivula}
	sofia    = person{"Sofia Koivula", "sofia@koivula.example", "fi", koivula}
	oskari   = person{"Oskari Yrjölä-Äijälä", "oskari.yrjola-aijala@lahti-terveys.example", "fi", terveys}
	helmi    = person{"Helmi Öster", "helmi.oster@lahti-terveys.example", "fi", terveys}
	tuomas   = person{"Tuomas Rautio", "tuomas.rautio@lahti-terveys.example", "fi", terveys}
	noora    = person{"Noora Ylä-Outinen", "noora.yla-outinen@lahti-terveys.example", "fi", terveys}
	eero     = person{"Eero Saarijoki", "eero.saarijoki@koivula.example", "fi", koivula}
	ritva    = person{"Ritva Honkanen", "ritva.honkanen@saarijoki.example", "fi", kunta}
)

// hosts are the mail servers of the domains.
var hosts = map[string]struct{ provider, host, ip string }{
	"nordlys.example":             {"microsoft365", "nordlys-example.mail.protection.outlook.example", "192.0.2.25"},
	"keskusliikerakennus.example": {"mimecast", "eu-smtp-inbound-1.mimecast.example", "198.51.100.31"},
	"harbour.example":             {"google-workspace", "aspmx.l.google.example", "203.0.113.27"},
	"linden.example":              {"mimecast", "de-smtp-inbound-1.mimecast.example", "198.51.100.33"},
	"satama.example":              {"mimecast", "eu-smtp-inbound-2.mimecast.example", "198.51.100.32"},
	"koivula.example":             {"", "mx1.koivula.example", "192.0.2.80"},
	"lahti-terveys.example":       {"microsoft365", "lahti-terveys-example.mail.protection.outlook.example", "192.0.2.26"},
	"saarijoki.example":           {"", "posti.saarijoki.example", "198.51.100.9"},
}

// rules are how the catching server treats mail to them.
var rules = []struct{ pattern, behaviour string }{
	{"matti.meikalainen@koivula.example", "greylist 2"},
	{"eero.saarijoki@koivula.example", "greylist 3"},
	{"mary.smith@harbour.example", "refuse 452 4.2.2 The recipient's mailbox is over its storage quota"},
	{"kari.nordmnan@nordlys.example", "refuse 550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"},
	{"*@lahti-terveys.example", "refuse 451 4.7.500 Server busy. Please try again later"},
}

const (
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * hour
)

// now is what happens when it starts, in this order.
func now() []Act {
	send := func(kind string, who person) Act {
		r := request(kind, who)
		return Act{Send: &r}
	}
	return []Act{
		send("invite", liisa), send("invite", kariTypo), send("pin", matti), send("reset", mary),
		// A server that is too busy for all of them.
		send("reset", oskari), send("invite", helmi), send("pin", tuomas), send("reset", noora), send("invite", tuomas),
		send("reset", at(terveys, "Aleksi Kettunen")), send("reset", at(terveys, "Venla Saarinen")), send("pin", at(terveys, "Julia Laine")),
		send("invite", at(terveys, "Niilo Turunen")), send("reset", at(terveys, "Hilla Kallio")), send("invite", at(terveys, "Toivo Salo")),
		// The second one takes the place of the first, if that is still there.
		send("pin", pekka), send("pin", pekka),
		{Pause: "domain:saarijoki.example", By: operator, Reason: "Their mail server is being moved until three o'clock"},
		send("invite", ritva), send("invite", eero),
		{Suppress: &mail.Suppression{
			Tenant: koivula.id, Address: mail.Address(eero.address), Cause: mail.CauseSuppressed, By: operator, Reason: "Left the company; the account is being closed",
		}},
	}
}

// at is somebody at a tenant whose address is their name.
func at(t tenant, name string) person {
	domain := map[tenant]string{terveys: "lahti-terveys.example", parking: "keskusliikerakennus.example", linden: "linden.example", satama: "satama.example"}[t]
	return person{name, strings.ReplaceAll(strings.ToLower(name), " ", ".") + "@" + domain, "fi", t}
}

// operator is who does what people do.
const operator = "Sanna Virtanen"

// before is what happened before that.
func before() []life {
	handed := func(after time.Duration) turn { return turn{after: after, state: mail.StateAccepted} }
	used := func(after time.Duration) turn { return turn{after: after, state: mail.EventUsed} }
	grey := func(after time.Duration) turn {
		return turn{after: after, state: mail.StateDelayed, cause: mail.CauseGreylisted, stage: mail.StageRcpt,
			reply: mail.Reply{Code: 451, Enhanced: mail.EnhancedCode{4, 7, 1}, Text: "Greylisting in action, please come back later"}}
	}
	lives := []life{
		{kind: "invite", who: kari, ago: 3*day + 2*hour, turns: []turn{handed(2 * time.Second), used(41 * minute)}},
		{kind: "reset", who: kari, ago: 5 * hour, turns: []turn{handed(time.Second), used(3 * minute)}},
		{kind: "pin", who: kari, ago: 5*hour - 4*minute, turns: []turn{handed(time.Second), used(40 * time.Second)}},
		{kind: "pin", who: sofia, ago: 95 * minute, turns: []turn{grey(time.Second), grey(12 * time.Second), handed(43 * time.Second), used(2 * minute)}},
		// A mailbox that stayed full until the invite expired.
		{kind: "invite", who: mary, ago: 8 * day, turns: []turn{
			full(2 * time.Second), full(minute), full(4 * minute), full(hour), full(day), full(3 * day), full(6 * day), {after: 7 * day, state: mail.StateExpired, cause: mail.CauseNotUsefulInTime},
		}},
		// A newer PIN took the place of one that waited.
		{kind: "pin", who: matti, ago: 3 * hour, turns: []turn{grey(time.Second), grey(11 * time.Second),
			{after: 25 * time.Second, state: mail.StateSuperseded, cause: mail.CauseSuperseded}}},
		{kind: "pin", who: matti, ago: 3*hour - 25*time.Second, turns: []turn{handed(time.Second), used(30 * time.Second)}},
		// Refused for its content, which blocks nobody.
		{kind: "invite", who: anna, ago: 7*hour + 20*minute, turns: []turn{{
			after: 3 * time.Second, state: mail.StateRefused, cause: mail.CausePolicy, stage: mail.StageDot,
			reply: mail.Reply{Code: 554, Enhanced: mail.EnhancedCode{5, 7, 1}, Text: "Email rejected due to security policies - https://community.mimecast.example/docs/DOC-1369#554"},
		}}},
		{kind: "invite", who: john, ago: 6 * hour, turns: []turn{handed(time.Second), {
			after: 9 * minute, state: mail.StateReturned, cause: mail.CauseInactiveMailbox,
			reply: mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 2, 1}, Text: "The email account that you tried to reach is disabled"},
		}}},
		{kind: "reset", who: grace, ago: 130 * minute, turns: []turn{handed(2 * time.Second), {after: 122 * minute, state: mail.EventExpiredUnused}}},
		{kind: "invite", who: helmi, ago: 20 * hour, turns: []turn{handed(time.Second), {after: 22 * minute, state: mail.EventWrongPerson}}},
		// A line that broke after the last dot: nobody knows at once whether it arrived.
		{kind: "reset", who: sofia, ago: 26 * hour, turns: []turn{
			{after: time.Second, state: mail.StateDelayed, cause: mail.CauseNetwork, stage: mail.StageConnect, seen: "connection timed out"}, handed(35 * time.Second), used(4 * minute)}},
	}
	return append(append(lives, busyMorning(handed)...), quiet(handed, used)...)
}

// busyMorning is an incident that is over: a provider that took nothing for a while.
func busyMorning(handed func(time.Duration) turn) []life {
	names := []string{"Arto Niemi", "Birgit Vogel", "Carla Stein", "Daniel Koch", "Elina Harju", "Fanni Lehto", "Gerd Braun", "Heikki Ranta", "Inka Aalto", "Jonas Weber", "Kaisa Vuori", "Lauri Peltola"}
	tenants := []tenant{parking, linden, satama}
	var lives []life
	for i, name := range names {
		busy := turn{after: time.Duration(900+i*170) * time.Millisecond, state: mail.StateDelayed, cause: mail.CauseRemoteError, stage: mail.StageMail,
			reply: mail.Reply{Code: 451, Enhanced: mail.EnhancedCode{4, 3, 0}, Text: "Internal resource temporarily unavailable"}}
		lives = append(lives, life{
			kind: []string{"reset", "invite"}[i%2], who: at(tenants[i%3], name), ago: 4*hour + 12*minute - time.Duration(i)*4*time.Second,
			turns: []turn{busy, again(busy, 31*time.Second), again(busy, 95*time.Second), handed(24*minute + time.Duration(i)*3*time.Second)},
		})
	}
	return lives
}

func again(t turn, after time.Duration) turn {
	t.after = after
	return t
}

func full(after time.Duration) turn {
	return turn{after: after, state: mail.StateDelayed, cause: mail.CauseMailboxFull, stage: mail.StageRcpt,
		reply: mail.Reply{Code: 452, Enhanced: mail.EnhancedCode{4, 2, 2}, Text: "The email account that you tried to reach is over quota"}}
}

// quiet is the mail that nobody has to think of: most of it.
func quiet(handed, used func(time.Duration) turn) []life {
	first := []string{"Aino", "Eetu", "Olivia", "Väinö", "Emma", "Onni", "Ella", "Leo", "Sara", "Elias", "Isla", "Noah"}
	last := []string{"Korhonen", "Virtanen", "Taylor", "Mäkinen", "Nieminen", "Evans", "Heikkinen", "Lindström"}
	ascii := map[string]string{"Väinö": "vaino", "Mäkinen": "makinen", "Lindström": "lindstrom"}
	plain := func(s string) string {
		if a, ok := ascii[s]; ok {
			return a
		}
		return string(s[0]+'a'-'A') + s[1:]
	}
	at := []struct {
		domain string
		tenant tenant
		locale string
	}{{"nordlys.example", nordlys, "fi"}, {"harbour.example", harbour, "en"}, {"koivula.example", koivula, "fi"}, {"keskusliikerakennus.example", parking, "fi"}, {"saarijoki.example", kunta, "fi"}}
	kinds := []string{"pin", "reset", "pin", "invite"}
	var lives []life
	for i := range 56 {
		f, l, where := first[i*5%len(first)], last[i*3%len(last)], at[i%len(at)]
		life := life{
			kind: kinds[i%len(kinds)], ago: 25*minute + time.Duration(i)*21*minute + time.Duration(i*37%60)*time.Second,
			who:   person{f + " " + l, plain(f) + "." + plain(l) + "@" + where.domain, where.locale, where.tenant},
			turns: []turn{handed(time.Duration(700+i*131%2400) * time.Millisecond)},
		}
		if i%3 != 0 {
			life.turns = append(life.turns, used(time.Duration(30+i*53%600)*time.Second))
		}
		lives = append(lives, life)
	}
	return lives
}
