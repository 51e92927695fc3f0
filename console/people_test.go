package console

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// townsfolk are people for searches: one queued message each.
func townsfolk(t *testing.T) *View {
	t.Helper()
	v := openView(t, "")
	for n, p := range []struct{ tenant, tenantName, id, to, name string }{
		{"04711", "Nordlys Oy", "usr_123", "kari.nordmann@nordlys.example", "Kari Nordmann"},
		{"04711", "Nordlys Oy", "usr_124", "aino.makela@nordlys.example", "Aino Mäkelä"},
		{"04711", "Nordlys Oy", "", "info@nordlys.example", ""},
		{"05000", "Åland Rederi Ab", "17", "bjorn.soderstrom@rederi.example", "Björn Söderström"},
		{"05000", "Åland Rederi Ab", "18", "kari@rederi.example", "Kari Lahti"},
		{"06000", "", "abc-99", "o'brien+auth@mail.example", "Siobhán O'Brien"},
		{"06000", "", "", "x_%@mail.example", `a"b OR c* NEAR(`},
	} {
		m := invite(n)
		m.Tenant, m.TenantName, m.PersonID, m.To, m.ToName = p.tenant, p.tenantName, p.id, mail.Address(p.to), p.name
		m.QueuedAt = monday.Add(time.Duration(n) * time.Second)
		fill(t, v, mail.NewEvent(m, mail.StateQueued, 0, m.QueuedAt))
	}
	return v
}

func addresses(people []Person) string {
	var all []string
	for _, p := range people {
		local, _, _ := strings.Cut(string(p.Addresses[0]), "@")
		all = append(all, local)
	}
	return strings.Join(all, " ")
}

func TestFindPeople(t *testing.T) {
	t.Parallel()
	v := townsfolk(t)
	for _, c := range []struct {
		q          string
		tenants    []string
		want, near string
	}{
		{q: "kari.nordmann@nordlys.example", want: "kari.nordmann"},
		{q: "  KARI.Nordmann@NORDLYS.example\t", want: "kari.nordmann"},
		{q: "usr_124", want: "aino.makela"},
		{q: "usr_12", want: "aino.makela kari.nordmann"},
		{q: "17", want: "bjorn.soderstrom"},
		{q: "04711", want: "info aino.makela kari.nordmann"},
		{q: "4711", want: "info aino.makela kari.nordmann"},
		{q: "nordlys oy", want: "info aino.makela kari.nordmann"},
		{q: "åland", want: "kari bjorn.soderstrom"},
		{q: "aland rederi", want: "kari bjorn.soderstrom"},
		{q: "mäkelä", want: "aino.makela"},
		{q: "MAKELA", want: "aino.makela"},
		{q: "söderström björn", want: "bjorn.soderstrom"},
		{q: "nordmann", want: "kari.nordmann"},
		{q: "ordman", want: "kari.nordmann"},
		{q: "kari", want: "kari kari.nordmann"},
		{q: "kari nordlys", want: "kari.nordmann"},
		{q: "kari 05000", want: "kari"},
		{q: "@rederi.example", want: "kari bjorn.soderstrom"},
		{q: "o'brien", want: "o'brien+auth"},
		{q: "siobhan", want: "o'brien+auth"},
		{q: `a"b`, want: "x_%"},
		{q: `b OR c*`, want: "x_%"},
		{q: "x_%", want: "x_%"},
		{q: "_%", want: ""},
		{q: string(testID(1).Ref()), want: "aino.makela"},
		{q: string(testID(3)), want: "bjorn.soderstrom"},

		{q: "kari", tenants: []string{"05000"}, want: "kari"},
		{q: "nordmann", tenants: []string{"05000", "06000"}},
		{q: "kari.nordmann@nordlys.example", tenants: []string{"05000"}},
		{q: "nordlys", tenants: []string{"05000"}},
		{q: "kari.nordman@nordlys.example", tenants: []string{"05000"}},
		{q: string(testID(1).Ref()), tenants: []string{"05000"}},
		{q: "kari", tenants: []string{}},

		{q: "kari.nordman@nordlys.example", near: "kari.nordmann"},
		{q: "kair.nordmann@nordlys.example", near: "kari.nordmann"},
		{q: "kari.nordmann@nordlis.example", near: "kari.nordmann"},
		{q: "kari.nordmann@example.org", near: "kari.nordmann"},
		{q: "karu@rederi.example", near: "kari"},
		{q: "bjorn.sodertsrom@rederi.exampel", near: "bjorn.soderstrom"},
		{q: "Kari Nordman", want: "kari.nordmann"},
		{q: "Kari Nordmannn", near: "kari.nordmann"},
		{q: "Kair Nordmann", near: "kari.nordmann"},
		{q: "Kaari", near: "kari kari.nordmann"},
		{q: "Sodestrom", near: "bjorn.soderstrom"},
		{q: "Laurila"},
		{q: "zzz"},
		{q: " "},
	} {
		got, err := v.FindPeople(t.Context(), PeopleQuery{Q: c.q, Tenants: c.tenants})
		if err != nil {
			t.Errorf("%q: %v", c.q, err)
			continue
		}
		if people, near := addresses(got.People), addresses(got.Near); people != c.want || near != c.near {
			t.Errorf("%q among %v: %q, near %q; want %q, near %q", c.q, c.tenants, people, near, c.want, c.near)
		}
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"kari", "kari", 0}, {"kari", "kair", 1}, {"kari", "kar", 1}, {"kari", "karri", 1}, {"kari", "käri", 1},
		{"kari", "akri", 1}, {"kari", "iark", 2}, {"ab", "ba", 1}, {"kari", "nordmann", 4}, {"a", "bcdefghij", 4},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

// A changed address and a person id that comes later lead to one story; a mailbox
// that several share does not make them one.
func TestOnePersonManyWays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := s.token("04711", ScopeRead)
	n := 10
	write := func(id, to string) mail.ID {
		n++
		m := invite(n)
		m.PersonID, m.To, m.ToName = id, mail.Address(to), "Pia"
		s.log.add(mail.NewEvent(m, mail.StateQueued, 0, monday.Add(time.Duration(n)*time.Second)))
		return m.ID
	}
	want := []mail.ID{write("", "pia@old.example"), write("p1", "pia@old.example"), write("p1", "pia@new.example"), write("", "pia@new.example")}
	slices.Reverse(want)
	shared := write("", "desk@new.example")
	write("p2", "desk@new.example")
	write("p3", "desk@new.example")

	for _, key := range []string{
		PersonKey("04711", "p1", ""), PersonKey("04711", "", "pia@old.example"), PersonKey("04711", "", "pia@new.example"),
	} {
		_, body := s.do(token, "GET", "/v1/people/"+key, "")
		got := into[PersonStory](t, body)
		var ids []mail.ID
		for _, m := range got.Messages {
			ids = append(ids, m.ID)
		}
		if got.ID != PersonKey("04711", "p1", "") || !slices.Equal(ids, want) || len(got.Addresses) != 2 || len(got.SameAddress) != 0 {
			t.Errorf("%s: %s", key, body)
		}
	}
	_, body := s.do(token, "GET", "/v1/people?q=pia@", "")
	if got := into[People](t, body).People; len(got) != 1 || got[0].Latest.ID != want[0] || got[0].Verdict == "" || got[0].WhoActs != mail.ActNobody {
		t.Errorf("search: %s", body)
	}
	_, body = s.do(token, "GET", "/v1/people/"+PersonKey("04711", "p2", ""), "")
	if got := into[PersonStory](t, body); len(got.Messages) != 1 || len(got.SameAddress) != 1 || got.SameAddress[0].PersonID != "p3" {
		t.Errorf("one of a shared mailbox: %s", body)
	}
	_, body = s.do(token, "GET", "/v1/people/"+PersonKey("04711", "", "desk@new.example"), "")
	if got := into[PersonStory](t, body); len(got.Messages) != 1 || got.Messages[0].ID != shared {
		t.Errorf("the shared mailbox itself: %s", body)
	}
}

func TestDaysOfATimeline(t *testing.T) {
	t.Parallel()
	w := newWords("en", monday, time.UTC)
	line := func(at time.Time) DayLine { return DayLine{Line: Line{At: at}} }
	days := byDay([]DayLine{
		line(monday), line(monday.Add(-time.Hour)), line(monday.Add(-24 * time.Hour)), line(monday.Add(-72 * time.Hour)),
		line(monday.AddDate(-1, 0, 0)),
	}, w)
	var got []string
	for _, d := range days {
		got = append(got, d.Date+" "+d.Title+" "+d.Lines[0].Time)
	}
	want := []string{
		"2026-03-02 Today 09:14:05", "2026-03-01 Yesterday 09:14:05", "2026-02-27 Friday 27 February 09:14:05",
		"2025-03-02 Sunday 2 March 2025 09:14:05",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := newWords("fi", monday, time.UTC).day(monday.AddDate(0, 0, -3)); got != "Perjantai 27.2." {
		t.Errorf("in Finnish: %q", got)
	}
}

func TestNobodyIsAnAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	all, bound := s.token("*", ScopeRead), s.token("04711", ScopeRead)
	for _, c := range []struct{ token, q, lang, want string }{
		{all, "nina@else.example", "en", "Nobody with the address nina@else.example was sent mail since 09:14:05. So the auth service never asked us to."},
		{all, "7K3Q-9DXP", "en", "No message has the reference or id 7K3Q-9DXP since"},
		{all, "Jarmo", "en", "Nobody who was sent mail since 09:14:05 answers to “Jarmo”."},
		{bound, "Jarmo", "en", "Only the tenants that you may see were searched."},
		{all, "kari.nordman@nordlys.example", "en", "Did you mean"},
		{all, "nina@else.example", "fi", "Osoitteeseen nina@else.example ei ole lähetetty postia klo 09.14.05 jälkeen."},
	} {
		resp, body := s.do(c.token, "GET", "/v1/people?lang="+c.lang+"&q="+strings.ReplaceAll(c.q, " ", "+"), "")
		got := into[People](t, body)
		if resp.StatusCode != 200 || len(got.People) != 0 || !strings.Contains(got.Answer, c.want) || !got.Since.Equal(monday) {
			t.Errorf("%q: %s", c.q, body)
		}
	}
}
