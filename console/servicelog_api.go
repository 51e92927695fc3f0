package console

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// LogPage is the answer to GET /v1/log: entries, the newest first.
type LogPage struct {
	Entries []LogEntry `json:"entries"`
	// Next is what to ask for with ?before= to go on, 0 at the end.
	Next uint64 `json:"next"`
}

const (
	logRows = 100
	// logChunk is how many records are read at once on the way back, logScan how many
	// for one answer: what matches may be rare.
	logChunk = 500
	logScan  = 20_000
)

// logQuery is what is asked of the log.
type logQuery struct {
	since, until        time.Time
	by, act, on, tenant string
	before              uint64 // a place
	limit               int
	mayRead             func(*LogEntry) bool
}

// matches reports whether an entry is asked for and may be read.
func (q *logQuery) matches(e *LogEntry) bool {
	return q.mayRead(e) && (q.since.IsZero() || !e.At.Before(q.since)) && (q.until.IsZero() || e.At.Before(q.until)) &&
		(q.by == "" || e.By == q.by) && (q.act == "" || e.Act == q.act || strings.HasPrefix(e.Act, q.act+".")) &&
		(q.on == "" || e.On == q.on) && (q.tenant == "" || e.Tenant == q.tenant)
}

// getLog answers with a page of the log, or, with format=jsonl or csv, with all of it,
// oldest first.
func (a *API) getLog(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q, err := logQueryOf(r)
	if err != nil {
		return err
	}
	q.mayRead = by.reads
	switch format := r.URL.Query().Get("format"); format {
	case "", "json":
		page, err := a.ServiceLog.page(r.Context(), q)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, page)
		return nil
	case "jsonl", "csv":
		if r.URL.Query().Get("whole") == "1" && !(by.Can(ScopeOperate) && by.seesAll()) {
			return notAllowed("Only who may read all of the service log gets it whole: an operator or administrator of every tenant.")
		}
		return a.exportLog(w, r, q, format)
	}
	return invalid("format", "The formats are json, jsonl and csv.")
}

func logQueryOf(r *http.Request) (*logQuery, error) {
	v := r.URL.Query()
	q := &logQuery{by: v.Get("by"), act: v.Get("act"), on: v.Get("on"), tenant: v.Get("tenant")}
	var err error
	if q.limit, err = limitParam(r, logRows); err != nil {
		return nil, err
	}
	for name, t := range map[string]*time.Time{"since": &q.since, "until": &q.until} {
		if s := v.Get(name); s != "" {
			if *t, err = time.Parse(time.RFC3339, s); err != nil {
				return nil, invalid(name, "Write the time as in “2026-11-26T13:00:00Z”.")
			}
		}
	}
	if s := v.Get("before"); s != "" {
		if q.before, err = strconv.ParseUint(s, 10, 64); err != nil {
			return nil, invalid("before", "A number, as “next” of the answer before.")
		}
	}
	return q, nil
}

// page reads back from the newest entry until there are enough.
func (l *ServiceLog) page(ctx context.Context, q *logQuery) (LogPage, error) {
	page := LogPage{Entries: []LogEntry{}}
	first, last, err := l.chain.LinkBounds(ctx)
	if err != nil || last == 0 {
		return page, err
	}
	upTo := last
	if q.before > 0 {
		upTo = min(last, q.before-1)
	}
	for scanned := 0; upTo >= first && scanned < logScan; {
		from := max(first, upTo-min(upTo, logChunk)+1)
		records, err := l.between(ctx, from, upTo)
		if err != nil {
			return page, err
		}
		for _, r := range slices.Backward(records) {
			var e LogEntry
			if json.Unmarshal(r.Data, &e) != nil {
				continue // `deliverd log verify` tells of it
			}
			page.Next = r.Seq
			if !q.since.IsZero() && e.At.Before(q.since.Add(-logSlack)) {
				page.Next = 0
				return page, nil
			}
			if q.matches(&e) {
				page.Entries = append(page.Entries, e)
				if len(page.Entries) == q.limit {
					return page, nil
				}
			}
		}
		scanned += len(records)
		upTo = from - 1
	}
	if upTo < first {
		page.Next = 0
	}
	return page, nil
}

// logSlack is how much older an entry may say it is than the ones before it: one that
// had to wait for the store, or came from a node whose clock is behind.
const logSlack = time.Hour

// between returns the records from one place up to another.
func (l *ServiceLog) between(ctx context.Context, from, upTo uint64) (records []ChainRecord, err error) {
	for r, err := range l.chain.Links(ctx, from-1) {
		if err != nil {
			return nil, err
		}
		if r.Seq > upTo {
			break
		}
		records = append(records, r)
		if r.Seq == upTo {
			break
		}
	}
	return records, nil
}

// logColumns are the columns of the export for spreadsheets.
var logColumns = [...]string{"n", "at", "node", "act", "by", "by_id", "via", "tenant", "on", "reason", "detail", "prev"}

// exportLog writes the whole log, oldest first: its lines as they are stored, which
// [VerifyLog] can hold against each other if none is left out, or a table.
func (a *API) exportLog(w http.ResponseWriter, r *http.Request, q *logQuery, format string) error {
	first, _, err := a.ServiceLog.chain.LinkBounds(r.Context())
	if err != nil {
		return err
	}
	write, flush := exporter(w, format)
	for record, err := range a.ServiceLog.chain.Links(r.Context(), max(first, 1)-1) {
		if err != nil {
			a.logger().WarnContext(r.Context(), "an export of the service log broke off", "error", err)
			panic(http.ErrAbortHandler) // the client must not take it for whole
		}
		var e LogEntry
		// A line that can't be read is what a verification wants to see, of those who may
		// read all.
		if json.Unmarshal(record.Data, &e) == nil && !q.matches(&e) || e.N == 0 && !q.mayRead(&e) {
			continue
		}
		if write(&e, record.Data) != nil {
			return nil // the client went away
		}
	}
	flush()
	return nil
}

// exporter begins the answer and returns how an entry is written to it.
func exporter(w http.ResponseWriter, format string) (write func(*LogEntry, []byte) error, flush func()) {
	h := w.Header()
	if format == "jsonl" {
		h.Set("Content-Type", "application/jsonl")
		h.Set("Content-Disposition", `attachment; filename="service-log.jsonl"`)
		return func(_ *LogEntry, line []byte) error {
			_, err := w.Write(append(slices.Clip(line), '\n'))
			return err
		}, func() {}
	}
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="service-log.csv"`)
	table := csv.NewWriter(w)
	table.Write(logColumns[:]) // its error is kept and comes with the next
	return func(e *LogEntry, _ []byte) error {
		cells := []string{
			strconv.FormatUint(e.N, 10), e.At.Format(time.RFC3339Nano), e.Node, e.Act, e.By, e.ByID, e.Via, e.Tenant, e.On, e.Reason, e.Detail, e.Prev,
		}
		for i, cell := range cells {
			cells[i] = noFormula(cell)
		}
		return table.Write(cells)
	}, table.Flush
}

// noFormula keeps a spreadsheet from running a text: what begins like a formula gets
// an apostrophe before it (FAULTS G17).
func noFormula(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r＝＋－＠", []rune(cell)[0]) {
		return "'" + cell
	}
	return cell
}
