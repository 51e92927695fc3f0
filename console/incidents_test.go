package console

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// slotWord reads one slot of one domain: "12t/3" is 12 messages that ran into
// time-outs, and 3 taken; r is refused by policy, m an unknown mailbox.
func slotWord(slot int64, provider, domain, word string) []slotTally {
	var tallies []slotTally
	for part := range strings.SplitSeq(word, "/") {
		var n int
		var what string
		fmt.Sscanf(part, "%d%s", &n, &what)
		t := slotTally{
			slot: slot, provider: provider, domain: domain, messages: n,
			first: slotBegin(slot).Add(time.Minute), last: slotBegin(slot).Add(9 * time.Minute),
		}
		switch what {
		case "t":
			t.state, t.cause = mail.StateDelayed, mail.CauseTimeout
		case "r":
			t.state, t.cause = mail.StateRefused, mail.CausePolicy
		case "m":
			t.state, t.cause = mail.StateRefused, mail.CauseBadMailbox
		default:
			t.state = mail.StateAccepted
		}
		tallies = append(tallies, t)
	}
	return tallies
}

func TestFindIncidents(t *testing.T) {
	t.Parallel()
	const first = 3_000_000
	minute := func(n int) time.Time { return slotBegin(first).Add(time.Duration(n) * time.Minute) }
	for _, c := range []struct {
		name  string
		slots map[string][]string // domain@provider: one word a slot; "" is silence
		now   int                 // minutes after the first slot began
		want  []string
	}{
		{"nine are not an incident", map[string][]string{"a.example@": {"9t"}}, 15, nil},
		{"ten are", map[string][]string{"a.example@": {"10t"}}, 5, []string{"domain a.example timeout open 1-"}},
		{"but not among thirty", map[string][]string{"a.example@": {"10t/20"}}, 15, nil},
		{"unknown mailboxes are people's own", map[string][]string{"a.example@": {"50m"}}, 15, nil},
		{"it closes when mail goes through", map[string][]string{"a.example@": {"20t", "10t/10", "3t/20"}}, 35, []string{"domain a.example timeout 1-20"}},
		{"but not in the middle of a slot", map[string][]string{"a.example@": {"20t", "10t/10", "3t/20"}}, 25, []string{"domain a.example timeout open 1-"}},
		{"a fifth keeps it open", map[string][]string{"a.example@": {"20t", "4t/16", "4t/16"}}, 35, []string{"domain a.example timeout open 1-"}},
		{"silence keeps it open", map[string][]string{"a.example@": {"20t", "", "", ""}}, 45, []string{"domain a.example timeout open 1-"}},
		{"for an hour", map[string][]string{"a.example@": {"20t"}}, 85, []string{"domain a.example timeout 1-9"}},
		{"and it comes again", map[string][]string{"a.example@": {"20t", "0/9", "20t"}}, 29, []string{
			"domain a.example timeout open 21-", "domain a.example timeout 1-10"}},
		{"refusals", map[string][]string{"a.example@": {"12r"}}, 5, []string{"domain a.example policy refused open 1-"}},
		{"at one provider", map[string][]string{"a.example@google": {"4t"}, "b.example@google": {"4t"}, "c.example@google": {"4t"}}, 5,
			[]string{"provider google timeout open 1-"}},
		{"one domain is not its provider", map[string][]string{"a.example@google": {"12t"}, "b.example@google": {"0/2"}}, 5,
			[]string{"domain a.example timeout open 1-"}},
		{"a domain's is part of its provider's", map[string][]string{"a.example@google": {"12t"}, "b.example@google": {"4t"}, "c.example@google": {"4t"}}, 5,
			[]string{"provider google timeout open 1-"}},
		{"a provider that mostly works", map[string][]string{"a.example@google": {"4t"}, "b.example@google": {"4t"}, "c.example@google": {"4t/30"}}, 5, nil},
		{"everywhere", everywhere("3t"), 5, []string{"everywhere timeout open 1-"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var tallies []slotTally
			for place, words := range c.slots {
				domain, provider, _ := strings.Cut(place, "@")
				for i, word := range words {
					if word != "" {
						tallies = append(tallies, slotWord(first+int64(i), provider, domain, word)...)
					}
				}
			}
			found := findIncidents(tallies, minute(c.now))
			var got []string
			for _, i := range found {
				s := strings.TrimSpace(string(i.Scope)+" "+i.Name) + " " + string(i.Cause)
				if i.Refused {
					s += " refused"
				}
				if i.Open {
					s += " open"
				}
				s += fmt.Sprintf(" %d-", int(i.Since.Sub(minute(0)).Minutes()))
				if !i.Open {
					s += fmt.Sprint(int(i.Until.Sub(minute(0)).Minutes()))
				}
				got = append(got, s)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			rand.Shuffle(len(tallies), func(i, j int) { tallies[i], tallies[j] = tallies[j], tallies[i] })
			if again := findIncidents(tallies, minute(c.now)); !sameIncidents(again, found) {
				t.Errorf("in another order: %+v, want %+v", again, found)
			}
		})
	}
}

func everywhere(word string) map[string][]string {
	slots := map[string][]string{}
	for i := range openWide {
		slots[fmt.Sprintf("d%d.example@%s", i, []string{"google", "microsoft365", ""}[i%3])] = []string{word}
	}
	return slots
}

func sameIncidents(a, b []Incident) bool {
	return slices.EqualFunc(a, b, func(x, y Incident) bool {
		x.providers, y.providers = nil, nil
		return reflect.DeepEqual(x, y)
	})
}

// outage makes n messages to three customers' domains at Microsoft 365 wait.
func outage(n int, at time.Time) []mail.Event {
	var events []mail.Event
	for i := range n {
		m := invite(5000 + i)
		m.Tenant, m.TenantName = "77"+fmt.Sprint(i%3), "Salainen Oy"
		m.To, m.PersonID = mail.Address(fmt.Sprintf("person%d@customer%d.example", i, i%3)), ""
		m.QueuedAt = at
		events = append(events, mail.NewEvent(m, mail.StateQueued, 0, at))
		e := mail.NewEvent(m, mail.StateDelayed, 1, at.Add(time.Second))
		e.Cause, e.NextAttempt = mail.CauseTimeout, at.Add(time.Minute)
		e.Evidence = &mail.Evidence{Provider: "microsoft365", Host: "mx.customer.example"}
		events = append(events, e)
	}
	return events
}

// The same facts make the same incidents, at once, after slots were kept, in another
// order, and after the view was built anew.
func TestIncidentsAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	begin := slotBegin(slotOf(monday))
	now := begin
	open := func() *View {
		v, err := OpenView(t.Context(), ViewOptions{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { v.Close() })
		return v
	}
	followed := open()
	var log []mail.LoggedEvent
	add := func(events ...mail.Event) {
		var batch []mail.LoggedEvent
		for _, e := range events {
			batch = append(batch, mail.LoggedEvent{Seq: uint64(len(log) + len(batch) + 1), Event: e})
		}
		log = append(log, batch...)
		apply(t, followed, batch, len(batch))
	}
	for step, want := range []int{0, 0, 1, 1, 1} {
		now = begin.Add(time.Duration(step) * 15 * time.Minute)
		switch step {
		case 1:
			add(outage(5, now)...)
		case 2:
			add(outage(30, now)[10:]...)
		case 3: // what another node recorded comes late
			late := outage(60, begin.Add(16*time.Minute))[70:]
			add(late...)
		}
		got, err := followed.Incidents(t.Context())
		if err != nil || len(got) != want {
			t.Fatalf("step %d: %+v, %v; want %d", step, got, err, want)
		}
		anew := open()
		shuffled := slices.Clone(log)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		apply(t, anew, shuffled, 7)
		if again, err := anew.Incidents(t.Context()); err != nil || !sameIncidents(got, again) {
			t.Errorf("step %d: built anew: %+v, %v; want %+v", step, again, err, got)
		}
	}
}

func TestIncidentInAStory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.log.add(outage(30, monday.Add(5*time.Minute))...)
	all, bound, stranger := s.token("*", ScopeRead), s.token("770", ScopeRead), s.token("04711", ScopeRead)

	_, body := s.do(all, "GET", "/v1/incidents", "")
	got := into[Incidents](t, body).Incidents
	if len(got) != 1 || !got[0].Open || got[0].Name != "microsoft365" || got[0].Failures != 30 || got[0].Domains != 3 || got[0].WhoActs == mail.ActTheirIT ||
		!strings.HasPrefix(got[0].Text, "Mail to mailboxes at Microsoft 365 has been held up since 09:19:06.") {
		t.Fatalf("incidents: %s", body)
	}
	_, body = s.do(bound, "GET", "/v1/incidents?lang=fi", "")
	if got := into[Incidents](t, body).Incidents; len(got) != 1 || got[0].Failures != 0 || !strings.HasPrefix(got[0].Text, "Posti palvelun Microsoft 365 postilaatikoihin on viivästynyt klo 09.19.06 lähtien.") {
		t.Errorf("for one tenant: %s", body)
	}

	key := PersonKey("770", "", "person0@customer0.example")
	_, body = s.do(bound, "GET", "/v1/people/"+key, "")
	p := into[PersonStory](t, body)
	if m := p.Message; m.Incident == nil || m.Incident.ID != got[0].ID || !strings.HasSuffix(p.Verdict, "This is part of a wider problem (Microsoft 365) since 09:19:06.") ||
		!strings.Contains(p.Reply, "This is a wider problem and not one of your address.") {
		t.Errorf("person: %s", body)
	}
	// Greylisting at the same provider is not part of it.
	_, body = s.do(stranger, "GET", "/v1/messages/"+string(invite(1).ID), "")
	if m := into[Message](t, body); m.Incident != nil {
		t.Errorf("another cause: %s", body)
	}
}

func TestIncidentOnPages(t *testing.T) {
	t.Parallel()
	s := withPages(newSite(t), nil)
	s.log.add(outage(30, monday.Add(5*time.Minute))...)
	s.do(s.token("*", ScopeRead), "GET", "/v1/incidents", "") // has the view catch up
	for path, want := range map[string]string{
		"/": "Mail to mailboxes at Microsoft 365 has been held up since",
		"/people/" + PersonKey("770", "", "person0@customer0.example"): "This is part of a wider problem (Microsoft 365) since",
	} {
		if _, body := s.do("", "GET", path, ""); !strings.Contains(body, want) {
			t.Errorf("%s does not say %q: %s", path, want, body)
		}
	}
}

// A domain's incident is nobody else's business.
func TestDomainIncidentOfAnotherTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i := range 12 {
		m := invite(5000 + i)
		m.Tenant, m.To, m.PersonID = "770", mail.Address(fmt.Sprintf("p%d@customer.example", i)), ""
		e := mail.NewEvent(m, mail.StateRefused, 1, monday)
		e.Cause = mail.CausePolicy
		s.log.add(mail.NewEvent(m, mail.StateQueued, 0, monday), e)
	}
	for tenant, want := range map[string]int{"*": 1, "770": 1, "04711": 0} {
		_, body := s.do(s.token(tenant, ScopeRead), "GET", "/v1/incidents", "")
		got := into[Incidents](t, body).Incidents
		if len(got) != want {
			t.Errorf("tenant %s: %s", tenant, body)
		}
		if want == 1 && (got[0].WhoActs != mail.ActTheirIT || !strings.Contains(got[0].Reply, "IT department")) {
			t.Errorf("tenant %s: %s", tenant, body)
		}
	}
	if _, body := s.do("", "GET", "/status.json", ""); strings.Contains(body, "customer") || into[Status](t, body).Status != "ok" {
		t.Errorf("public: %s", body)
	}
}

func TestPublicStatusNamesNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	resp, body := s.do("", "GET", "/status.json", "")
	if got := into[Status](t, body); resp.StatusCode != 200 || got.Status != "ok" || got.Text != "Mail is going out as usual." {
		t.Errorf("nothing wrong: %d %s", resp.StatusCode, body)
	}
	s = newSite(t)
	s.log.add(outage(30, monday.Add(5*time.Minute))...)
	s.do(s.token("*", ScopeRead), "GET", "/v1/incidents", "")
	for path, want := range map[string]string{
		"/status.json":         `"status": "trouble"`,
		"/status":              "Mail to mailboxes at Microsoft 365 has been held up since 09:19:06. Messages are safe",
		"/status?lang=fi":      "Posti palvelun Microsoft 365 postilaatikoihin on viivästynyt klo 09.19.06 lähtien. Viestit ovat tallessa",
		"/status.json?lang=fi": "Viestit ovat tallessa",
	} {
		resp, body := s.do("", "GET", path, "")
		if resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
		for _, name := range []string{"customer", "person", "77", "Salainen", "nordlys", "timeout", "30"} {
			if strings.Contains(strings.ReplaceAll(body, "Microsoft 365", ""), name) && !(name == "30" || name == "77") {
				t.Errorf("%s names %q: %s", path, name, body)
			}
		}
	}
}
