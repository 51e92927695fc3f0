package console

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// monday is when the lives in these tests begin.
var monday = time.Date(2026, 3, 2, 9, 14, 5, 0, time.UTC)

// testID makes ids that are the same in every run.
func testID(n int) mail.ID {
	ms := uint64(monday.UnixMilli()) + uint64(n)
	b := [16]byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms), 0x70, 0, 0x80}
	r := rand.New(rand.NewPCG(7, uint64(n)))
	for i := 9; i < 16; i++ {
		b[i] = byte(r.Uint32())
	}
	return mail.IDFromBytes(b)
}

func invite(n int) *mail.Message {
	id := testID(n)
	return &mail.Message{
		ID: id, Ref: id.Ref(), Kind: "invite", Tenant: "04711", TenantName: "Nordlys Oy",
		To: "kari.nordmann@nordlys.example", ToName: "Kari Nordmann", PersonID: "usr_123", Locale: "fi", Template: "invite",
		QueuedAt: monday, ExpiresAt: monday.Add(7 * 24 * time.Hour), Source: "auth",
	}
}

// microsoft is the evidence of an attempt at a server of Microsoft's.
func microsoft(at time.Time, took time.Duration, stage mail.Stage, reply mail.Reply) *mail.Evidence {
	return &mail.Evidence{
		StartedAt: at, Took: took, Provider: "microsoft365", Host: "nordlys-example.mail.protection.outlook.com", IP: "192.0.2.25",
		Stage: stage, Reply: &reply, TLS: &mail.TLS{Version: "TLS 1.3", Cipher: "TLS_AES_256_GCM_SHA384", Verified: true},
	}
}

// greylistedThenHandedOver is a message's usual worse day.
func greylistedThenHandedOver(m *mail.Message) []mail.Event {
	queued := mail.NewEvent(m, mail.StateQueued, 0, m.QueuedAt)
	queued.NextAttempt = m.QueuedAt

	delayed := mail.NewEvent(m, mail.StateDelayed, 1, m.QueuedAt.Add(2*time.Second))
	delayed.Cause = mail.CauseGreylisted
	delayed.Evidence = microsoft(m.QueuedAt.Add(time.Second), time.Second, mail.StageRcpt,
		mail.Reply{Code: 451, Enhanced: mail.EnhancedCode{4, 7, 1}, Text: "Greylisted, try again later"})
	delayed.NextAttempt = m.QueuedAt.Add(62 * time.Second)

	accepted := mail.NewEvent(m, mail.StateAccepted, 2, m.QueuedAt.Add(64*time.Second))
	accepted.Evidence = microsoft(m.QueuedAt.Add(62*time.Second), 2*time.Second, mail.StageDot,
		mail.Reply{Code: 250, Enhanced: mail.EnhancedCode{2, 6, 0}, Text: "Queued mail for delivery"})
	accepted.Evidence.QueueID = "AM6EUR05"
	accepted.Evidence.TLS.Names, accepted.Evidence.TLS.Issuer = []string{"mail.protection.outlook.com", "*.mail.protection.outlook.com"}, "DigiCert Cloud Services CA-1"
	accepted.Evidence.TLS.Expires, accepted.Evidence.TLS.Policy, accepted.Evidence.TLS.Source = monday.Add(80*24*time.Hour), mail.TLSBySTS, "id 20260101"
	accepted.Evidence.Capabilities = []string{"SIZE 157286400", "PIPELINING", "ENHANCEDSTATUSCODES"}
	accepted.Evidence.Conversation = []mail.Exchange{
		{Reply: "220 AM6EUR05.mail.protection.outlook.com Microsoft ESMTP MAIL Service ready", Took: 41 * time.Millisecond},
		{Command: "MAIL FROM:<bounce+…@bounce.acme.example> SIZE=7411", Reply: "250 2.1.0 Sender OK", Took: 3200 * time.Microsecond},
		{Command: "RCPT TO:<" + string(m.To) + ">", Reply: "250 2.1.5 Recipient OK", Took: 88 * time.Millisecond},
		{Command: "DATA", Reply: "354 Start mail input; end with <CRLF>.<CRLF>", Took: 88 * time.Millisecond},
		{Command: ".", Reply: "250 2.6.0 Queued mail for delivery", Took: 640 * time.Millisecond},
	}
	return []mail.Event{queued, delayed, accepted}
}

// testLog is an event log in memory that can be followed.
type testLog struct {
	mu     sync.Mutex
	events []mail.LoggedEvent
	grown  chan struct{}
	fail   error // the next reading's error
}

func (l *testLog) add(events ...mail.Event) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := uint64(0)
	if len(l.events) > 0 {
		last = l.events[len(l.events)-1].Seq
	}
	for _, e := range events {
		last++
		l.events = append(l.events, mail.LoggedEvent{Seq: last, Event: e})
	}
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
	return last
}

func (l *testLog) after(seq uint64) ([]mail.LoggedEvent, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail; err != nil {
		l.fail = nil
		return nil, nil, err
	}
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	first := slices.IndexFunc(l.events, func(e mail.LoggedEvent) bool { return e.Seq > seq })
	if first < 0 {
		return nil, l.grown, nil
	}
	return slices.Clone(l.events[first:]), l.grown, nil
}

func (l *testLog) Events(ctx context.Context, after uint64) iter.Seq2[mail.LoggedEvent, error] {
	return func(yield func(mail.LoggedEvent, error) bool) {
		for ctx.Err() == nil {
			events, grown, err := l.after(after)
			if err != nil {
				yield(mail.LoggedEvent{}, err)
				return
			}
			for _, e := range events {
				after = e.Seq
				if !yield(e, nil) {
					return
				}
			}
			select {
			case <-grown:
			case <-ctx.Done():
			}
		}
	}
}

func (l *testLog) Bounds(context.Context) (first, last uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 0 {
		return 0, 0, nil
	}
	return l.events[0].Seq, l.events[len(l.events)-1].Seq, nil
}

// clock is when the tests look at the lives.
func clock() time.Time { return monday.Add(10 * time.Minute) }

func openView(t *testing.T, path string) *View {
	t.Helper()
	v, err := OpenView(t.Context(), ViewOptions{Path: path, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// follow makes v follow log until the test ends or stop is called.
func follow(t *testing.T, v *View, log *testLog) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.Follow(ctx, Log{Events: log.Events, Bounds: log.Bounds}); err != nil {
			t.Errorf("Follow: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// fill folds events into v at the places 1, 2, 3 …
func fill(t *testing.T, v *View, events ...mail.Event) {
	t.Helper()
	var batch []mail.LoggedEvent
	for _, e := range events {
		batch = append(batch, mail.LoggedEvent{Seq: v.Place() + uint64(len(batch)) + 1, Event: e})
	}
	if err := v.apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// dump returns all that the view holds but its place, in one order.
func dump(t *testing.T, v *View) string {
	t.Helper()
	sums, err := v.List(t.Context(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(sums, func(a, b Summary) int { return cmp.Compare(a.ID, b.ID) })
	out := ""
	for _, s := range sums {
		f, err := v.Facts(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		out += fmt.Sprintf("%+v\n", f.Summary)
		for _, e := range f.Events {
			out += fmt.Sprintf("\t%s %s %d %s\n", e.ID, e.At, e.Attempt, e.Cause)
		}
	}
	return out + dumpNames(t, v)
}

// dumpNames returns the rows of people and tenants, and how many of the trigram
// indexes' rows are theirs.
func dumpNames(t *testing.T, v *View) string {
	t.Helper()
	var lines []string
	err := v.query(t.Context(), func(rows *sql.Rows) error {
		var line string
		err := rows.Scan(&line)
		lines = append(lines, line)
		return err
	}, `SELECT format('%d %s|%s|%s|%s|%s', who, tenant, person_id, address, name, folded) FROM people UNION ALL
		SELECT format('%s|%s', tenant, name) FROM tenants UNION ALL
		SELECT format('%d people indexed', count(*)) FROM people_text JOIN people ON people.row = people_text.rowid UNION ALL
		SELECT format('%d tenants indexed', count(*)) FROM tenants_text JOIN tenants ON tenants.row = tenants_text.rowid UNION ALL
		SELECT format('%d rows of people', count(*)) FROM people_text`)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}
