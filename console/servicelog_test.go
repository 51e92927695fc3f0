package console

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memoryChain is a Chain in memory.
type memoryChain struct {
	mu      sync.Mutex
	records [][]byte
	fail    error
}

func (c *memoryChain) Link(_ context.Context, _ string, next func([]byte) ([]byte, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	var last []byte
	if n := len(c.records); n > 0 {
		last = c.records[n-1]
	}
	b, err := next(last)
	if err == nil {
		c.records = append(c.records, b)
	}
	return err
}

func (c *memoryChain) Links(_ context.Context, after uint64) iter.Seq2[ChainRecord, error] {
	return func(yield func(ChainRecord, error) bool) {
		c.mu.Lock()
		records := slices.Clone(c.records)
		c.mu.Unlock()
		for i, b := range records[min(after, uint64(len(records))):] {
			if !yield(ChainRecord{Seq: after + uint64(i) + 1, Data: b}, nil) {
				return
			}
		}
	}
}

func (c *memoryChain) LinkBounds(context.Context) (first, last uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(uint64(len(c.records)), 1), uint64(len(c.records)), nil
}

func (c *memoryChain) lines() (lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.records {
		lines = append(lines, string(r))
	}
	return lines
}

// runLog returns a log whose writer runs until the test ends, or stop is called.
func runLog(t *testing.T, chain *memoryChain, now func() time.Time) (l *ServiceLog, stop func()) {
	t.Helper()
	l = NewServiceLog(chain, "node1", now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	last, giveUp := context.WithTimeout(context.Background(), time.Minute)
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(ctx, last) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait(); giveUp() })
	t.Cleanup(stop)
	return l, stop
}

// verify holds lines against each other.
func verify(t *testing.T, lines []string, known map[uint64]string) LogVerdict {
	t.Helper()
	v, err := VerifyLog(func(yield func([]byte, error) bool) {
		for _, l := range lines {
			if !yield([]byte(l), nil) {
				return
			}
		}
	}, known)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Every way of changing the log but cutting off its end shows, and that shows to
// whoever kept the hash of an entry.
func TestTheLogShowsWhatWasChanged(t *testing.T) {
	t.Parallel()
	chain := &memoryChain{}
	l, stop := runLog(t, chain, clock)
	for i := range 6 {
		l.Append(t.Context(), LogEntry{Act: "pause", By: "liv", On: fmt.Sprint("kind:", i), Reason: "r"})
	}
	stop()
	whole := chain.lines()
	good := verify(t, whole, nil)
	if good.Bad != 0 || good.Entries != 6 || good.First != 1 || good.Last != 6 {
		t.Fatalf("%+v", good)
	}
	if v := verify(t, whole[2:], nil); v.Bad != 0 || v.First != 3 {
		t.Errorf("the oldest are gone by age: %+v", v)
	}
	for name, c := range map[string]struct {
		change func([]string) []string
		bad    uint64
	}{
		"changed":          {func(s []string) []string { s[2] = strings.Replace(s[2], "liv", "ola", 1); return s }, 4},
		"taken out":        {func(s []string) []string { return slices.Delete(s, 2, 3) }, 3},
		"put in":           {func(s []string) []string { return slices.Insert(s, 2, s[1]) }, 3},
		"swapped":          {func(s []string) []string { s[1], s[2] = s[2], s[1]; return s }, 2},
		"no JSON":          {func(s []string) []string { s[4] = "{"; return s }, 5},
		"another field":    {func(s []string) []string { s[5] = strings.Replace(s[5], `"act"`, `"x":1,"act"`, 1); return s }, 6},
		"a new beginning":  {func(s []string) []string { s[0] = strings.Replace(s[0], `"prev":""`, `"prev":"00"`, 1); return s }, 1},
		"the last changed": {func(s []string) []string { s[5] = strings.Replace(s[5], "liv", "ola", 1); return s }, 0},
	} {
		changed := c.change(slices.Clone(whole))
		if v := verify(t, changed, nil); v.Bad != c.bad || (c.bad != 0) != (v.Problem != "") {
			t.Errorf("%s: %+v, want %d", name, v, c.bad)
		}
		if v := verify(t, changed, map[uint64]string{6: good.Head}); v.Bad == 0 {
			t.Errorf("%s: not even with the hash that was kept", name)
		}
	}
}

// While the store takes nothing, entries wait in their order; a stop writes what is
// left.
func TestEntriesWaitForTheStore(t *testing.T) {
	t.Parallel()
	chain := &memoryChain{fail: errors.New("down")}
	l, stop := runLog(t, chain, nil)
	for i := range waitingMost + 3 {
		l.Note(LogEntry{Act: "x", On: fmt.Sprint(i)})
	}
	chain.mu.Lock()
	chain.fail = nil
	chain.mu.Unlock()
	stop()
	lines := chain.lines()
	if v := verify(t, lines, nil); v.Bad != 0 || v.Entries != waitingMost+1 {
		t.Fatalf("%+v", v)
	}
	for i, line := range lines[:waitingMost] {
		if e := into[LogEntry](t, line); e.On != fmt.Sprint(i) {
			t.Fatalf("at %d: %s", i, line)
		}
	}
	if e := into[LogEntry](t, lines[waitingMost]); e.Act != "log.gap" || !strings.Contains(e.Detail, "3 entries") {
		t.Errorf("the gap: %+v", e)
	}
}

// What people paste into a reason holds no token and no link's secret, and makes no
// second line (law 5, G13, G20).
func TestG20LogEntriesArePresentable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ticket 4711, asked twice":                                   "ticket 4711, asked twice",
		"got https://login.acme.example/i/CANARY-1?x=CANARY-2 again": "got https://login.acme.example/[secret] again",
		"HTTPS://u:CANARY@login.acme.example":                        "https://login.acme.example/[secret]",
		"x1://CANARY%zz":                                             "[secret]",
		"use dlv_" + strings.Repeat("a", 40):                         "use [secret]",
		"a\n{\"level\":\"error\"}\x1b[31mred\u0085":                  "a {\"level\":\"error\"} [31mred ",
		"bad \xff utf":                                               "bad \ufffd utf",
	} {
		got := presentable(in)
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := presentable(strings.Repeat("ä", fieldLongest)); len(got) > fieldLongest+3 {
		t.Errorf("%d bytes", len(got))
	}
}

// Who reads what: all of it, one's tenants', or one's own.
func TestLogIsReadByTheRole(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	chain := &memoryChain{}
	h.api.ServiceLog, _ = runLog(t, chain, h.now)
	h.serve(t)
	h.grant(Grant{"desk", RoleSupport, []string{AllTenants}}, Grant{"ops", RoleOperator, []string{AllTenants}},
		Grant{"nordlys", RoleOperator, []string{"04711"}}, Grant{"other-desk", RoleSupport, []string{"other"}})
	liv, ola := h.enter(Session{Name: "liv", Groups: []string{"desk"}}), h.enter(Session{Name: "ola", Groups: []string{"ops"}})
	nordlys, other := h.enter(Session{Name: "nora", Groups: []string{"nordlys"}}), h.enter(Session{Name: "otto", Groups: []string{"other-desk"}})
	act := func(cookie, tenant, reason string) {
		t.Helper()
		resp, body := h.do("", "POST", "/v1/suppressions", `{"tenant":"`+tenant+`","address":"a@b.example","reason":"`+reason+`"}`, "Cookie", cookie, "Sec-Fetch-Site", "same-origin")
		if resp.StatusCode != 201 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	act(liv, "04711", "liv on 04711")
	act(ola, "other", "ola on other")
	act(nordlys, "04711", "nora on 04711")
	act(other, "other", "otto on other")
	h.api.ServiceLog.Append(t.Context(), LogEntry{Act: "store.trouble", Detail: "full"})

	reasons := func(token, cookie, query string) string {
		t.Helper()
		resp, body := h.do(token, "GET", "/v1/log"+query, "", "Cookie", cookie)
		if resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		var all []string
		for _, e := range into[LogPage](t, body).Entries {
			all = append(all, e.Reason+e.Detail)
		}
		return strings.Join(all, "; ")
	}
	for name, c := range map[string]struct{ token, cookie, query, want string }{
		"support":                     {"", liv, "", "liv on 04711"},
		"operator":                    {"", ola, "", "full; otto on other; nora on 04711; ola on other; liv on 04711"},
		"operator of a tenant":        {"", nordlys, "", "nora on 04711; liv on 04711"},
		"support of a tenant":         {"", other, "", "otto on other"},
		"a reading token":             {h.token("*", ScopeRead), "", "", ""},
		"an acting token of a tenant": {h.token("other", ScopeRead, ScopeAct), "", "", "otto on other; ola on other"},
		"by somebody":                 {"", ola, "?by=liv", "liv on 04711"},
		"of a tenant":                 {"", ola, "?tenant=other&limit=1", "otto on other"},
		"what the store did":          {"", ola, "?act=store", "full"},
		"from the second on":          {"", ola, "?before=3", "ola on other; liv on 04711"},
		"since tomorrow":              {"", ola, "?since=" + url.QueryEscape(monday.Add(24*time.Hour).Format(time.RFC3339)), ""},
	} {
		if got := reasons(c.token, c.cookie, c.query); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	_, body := h.do("", "GET", "/v1/log?limit=2", "", "Cookie", ola)
	if next := into[LogPage](t, body).Next; next != 4 {
		t.Errorf("the next page: %d", next)
	}
	for _, query := range []string{"?since=now", "?limit=0", "?before=x", "?format=xml"} {
		if resp, _ := h.do("", "GET", "/v1/log"+query, "", "Cookie", ola); resp.StatusCode != 400 {
			t.Errorf("%s: %d", query, resp.StatusCode)
		}
	}

	// The export is the stored lines, and fits together.
	_, body = h.do("", "GET", "/v1/log?format=jsonl", "", "Cookie", ola)
	if body != strings.Join(chain.lines(), "\n")+"\n" {
		t.Errorf("exported:\n%s", body)
	}
	for cookie, want := range map[string]int{ola: 200, liv: 403, nordlys: 403} {
		if resp, _ := h.do("", "GET", "/v1/log?format=jsonl&whole=1", "", "Cookie", cookie); resp.StatusCode != want {
			t.Errorf("the whole log: %d, want %d", resp.StatusCode, want)
		}
	}
	if _, body := h.do("", "GET", "/v1/log?format=jsonl", "", "Cookie", other); strings.Count(body, "\n") != 1 || !strings.Contains(body, "otto") {
		t.Errorf("exported to support: %s", body)
	}
}

// A spreadsheet runs nothing of what people wrote.
func TestG17FormulasInExports(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.api.ServiceLog, _ = runLog(t, &memoryChain{}, h.now)
	h.serve(t)
	evil := []string{`=HYPERLINK("https://evil.example","x")`, "+1", "-1", "@SUM(A1)", "＝1", "a=1", `quote " and, comma`}
	for _, reason := range evil {
		h.api.ServiceLog.Append(t.Context(), LogEntry{Act: "x", Reason: reason, On: reason})
	}
	resp, body := h.do(h.token("*", ScopeAdmin), "GET", "/v1/log?format=csv", "")
	rows, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil || len(rows) != len(evil)+1 || resp.Header.Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Fatalf("%v, %d rows: %s", err, len(rows), body)
	}
	for _, row := range rows[1:] {
		for _, cell := range row {
			if cell != "" && strings.Contains("=+-@＝", string([]rune(cell)[0])) {
				t.Errorf("a formula: %q", cell)
			}
		}
	}
}

func FuzzVerifyLog(f *testing.F) {
	chain := &memoryChain{}
	l := NewServiceLog(chain, "n", clock, slog.New(slog.DiscardHandler))
	for range 3 {
		l.Note(LogEntry{Act: "x"})
	}
	l.write(context.Background())
	whole := strings.Join(chain.lines(), "\n")
	head := hashOf(chain.records[2])
	f.Add(whole)
	f.Add(whole[:len(whole)-2])
	f.Fuzz(func(t *testing.T, text string) {
		v := verify(t, strings.Split(text, "\n"), map[uint64]string{3: head})
		// Nothing but what was written passes for it.
		if v.Bad == 0 && v.Last == 3 && v.First == 1 && !bytes.Equal(bytes.Join(bytes.Fields([]byte(text)), nil), bytes.Join(bytes.Fields([]byte(whole)), nil)) {
			t.Errorf("passes:\n%s", text)
		}
	})
}
