package console

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// census makes people: names of a few hundred first and last names, as people have
// them, in tenants whose sizes differ by a lot; a fifth of them at Gmail.
type census struct{ r *rand.Rand }

func newCensus() census { return census{rand.New(rand.NewPCG(1, 2))} }

var (
	firstNames = strings.Fields(`Aino Eino Kari Kaarina Matti Maija Juhani Maria Mikael Sofia Olavi Johanna Antero Anna Tapani Helena
		Onni Emilia Leo Ella Väinö Äiti Östen Åsa Björn Ingrid Lars Astrid Erik Elsa Nils Freja Søren Mette Jens Hanne Piotr Zofia
		Jan Katarzyna Ivan Olga José Lucía Jürgen Anneliese François Amélie Liam Olivia Noah Emma Mohammed Fatima Wei Mei`)
	lastStems = strings.Fields(`Korho Virta Mäki Niemi Laaks Heikki Koski Järvi Lehto Saari Salmi Turu Rautai Kallio Lind Berg Ström Söder
		Ander Johan Niel Hans Peder Nord Vest Kowal Nowa Wiśniew García Fernánd Müll Schmid Dupo Marti Smit Brow Tayl`)
	lastEnds = strings.Fields(`nen la lä man sson sen ski mann qvist lund dahl gren holm bäck kangas maa vaara stedt by berg`)
)

func (c census) one(n int) *mail.Message {
	pick := func(list []string) string { return list[c.r.IntN(len(list))] }
	first, last := pick(firstNames), pick(lastStems)+pick(lastEnds)
	tenant := int(5000 * c.r.Float64() * c.r.Float64() * c.r.Float64()) // some are large
	domain := fmt.Sprintf("%s%s%d.example", strings.ToLower(foldText(lastStems[tenant%len(lastStems)])), lastEnds[tenant%len(lastEnds)], tenant)
	domain = foldText(domain)
	if c.r.IntN(5) == 0 {
		domain = "gmail.com"
	}
	local := foldText(first) + "." + foldText(last)
	if c.r.IntN(2) == 0 {
		local += strconv.Itoa(c.r.IntN(1000))
	}
	id := testID(n)
	return &mail.Message{
		ID: id, Ref: id.Ref(), Kind: "invite", Tenant: fmt.Sprintf("%05d", tenant),
		TenantName: lastStems[tenant%len(lastStems)] + lastEnds[tenant%len(lastEnds)] + " " + strconv.Itoa(tenant) + " Oy",
		To:         mail.Address(local + "@" + domain), ToName: first + " " + last, PersonID: fmt.Sprintf("usr_%d", n),
		Template: "invite", QueuedAt: monday, ExpiresAt: monday.Add(7 * 24 * time.Hour), Source: "auth",
	}
}

// BenchmarkSearch reports the median and the 99th percentile of each sort of search
// among a million people, or DELIVERD_BENCH_PEOPLE. The view is kept in
// DELIVERD_BENCH_VIEW, where that is set, for the next run.
func BenchmarkSearch(b *testing.B) {
	size := 1_000_000
	if s := os.Getenv("DELIVERD_BENCH_PEOPLE"); s != "" {
		size, _ = strconv.Atoi(s)
	}
	path := cmp.Or(os.Getenv("DELIVERD_BENCH_VIEW"), filepath.Join(b.TempDir(), "view.db"))
	v, err := OpenView(b.Context(), ViewOptions{Path: path, Now: clock})
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	settle(b, v, size)

	r := rand.New(rand.NewPCG(3, 4))
	everybody := newCensus()
	var sample []*mail.Message
	for n := range size {
		if m := everybody.one(n); r.IntN(size/400) == 0 {
			sample = append(sample, m)
		}
	}
	for _, kind := range []struct {
		name  string
		query func(*mail.Message) string
		bound bool
	}{
		{"address", func(m *mail.Message) string { return string(m.To) }, false},
		{"reference", func(m *mail.Message) string { return string(m.Ref) }, false},
		{"person_id", func(m *mail.Message) string { return m.PersonID }, false},
		{"name", func(m *mail.Message) string { return m.ToName }, false},
		{"last_name", func(m *mail.Message) string { return m.ToName[strings.LastIndexByte(m.ToName, ' ')+1:] }, false},
		{"three_letters", func(m *mail.Message) string { return string(m.To[2:5]) }, false},
		{"substring", func(m *mail.Message) string { return string(m.To[3:]) }, false},
		{"domain", func(m *mail.Message) string { return "@" + m.To.Domain() }, false},
		{"tenant", func(m *mail.Message) string { return m.Tenant }, false},
		{"tenant_name", func(m *mail.Message) string { return m.TenantName }, false},
		{"name_and_tenant", func(m *mail.Message) string { return m.ToName + " " + m.Tenant }, false},
		{"name_in_one_tenant", func(m *mail.Message) string { return m.ToName }, true},
		{"letters_in_one_tenant", func(m *mail.Message) string { return string(m.To[2:5]) }, true},
		{"typo_in_address", func(m *mail.Message) string { return typo(r, string(m.To)) }, false},
		{"typo_in_name", func(m *mail.Message) string { return typo(r, m.ToName) }, false},
		{"nobody", func(m *mail.Message) string { return "qx" + strconv.Itoa(r.IntN(1e9)) + "@zzyzx.example" }, false},
	} {
		b.Run(kind.name, func(b *testing.B) {
			var took []time.Duration
			empty := 0
			for n := 0; b.Loop(); n++ {
				m := sample[n%len(sample)]
				q := PeopleQuery{Q: kind.query(m), Limit: 20}
				if kind.bound {
					q.Tenants = []string{m.Tenant}
				}
				began := time.Now()
				found, err := v.FindPeople(b.Context(), q)
				took = append(took, time.Since(began))
				if err != nil {
					b.Fatal(err)
				}
				if len(found.People)+len(found.Near) == 0 {
					empty++
				}
			}
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
			b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
			b.ReportMetric(ms(took[len(took)-1]), "max-ms")
			b.ReportMetric(100*float64(empty)/float64(len(took)), "%nobody")
		})
	}
}

// settle folds one message for each of the people, unless the view has them.
func settle(b *testing.B, v *View, size int) {
	b.Helper()
	if v.Place() >= uint64(size) {
		return
	}
	everybody := newCensus()
	began := time.Now()
	for n := 0; n < size; {
		var batch []mail.LoggedEvent
		for range batchSize {
			m := everybody.one(n)
			n++
			batch = append(batch, mail.LoggedEvent{Seq: uint64(n), Event: mail.NewEvent(m, mail.StateQueued, 0, m.QueuedAt)})
		}
		if err := v.apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		if n%100_000 == 0 {
			b.Logf("%d people after %s", n, time.Since(began).Round(time.Second))
		}
	}
}

// typo makes one slip of the keyboard.
func typo(r *rand.Rand, s string) string {
	c := []rune(s)
	at := 1 + r.IntN(len(c)-2)
	switch r.IntN(3) {
	case 0:
		c[at], c[at-1] = c[at-1], c[at]
	case 1:
		c = slices.Delete(c, at, at+1)
	default:
		c[at] = 'a' + rune(r.IntN(26))
	}
	return string(c)
}
