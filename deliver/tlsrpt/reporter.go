package tlsrpt

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

const (
	// settle is how long after a day's end the nodes may need to keep what they counted,
	// and spread what the reports are spread over, so that not all of the world's come
	// at midnight (RFC 8460 5.5 wants up to four hours).
	settle = 10 * time.Minute
	spread = 4 * time.Hour
	// giveUp after the day's end nobody needs its report.
	giveUp = 36 * time.Hour
	// claimFor is how long one node has to send a report before another may.
	claimFor = time.Hour
	// postTime bounds one report sent by https.
	postTime = time.Minute
)

// Reporter sends the reports of days that are over.
type Reporter struct {
	Store        Store
	Organization string
	Contact      string
	Submitter    string // our domain
	From         string // mailbox of the mails; its domain signs
	Node         string // tells nodes apart

	// URIs is dnscheck's Resolver.TLSReportURIs.
	URIs func(ctx context.Context, domain string) ([]*url.URL, error)
	// Enqueue hands a mail to our own queue: nil means that it is safe. It must take one
	// with a known idempotency key as done. Nil: no mail is sent, as nobody signs it.
	Enqueue func(ctx context.Context, m *mail.Message) error
	// Post sends a report by https: dnscheck's Resolver.Post.
	Post func(ctx context.Context, to *url.URL, contentType string, body []byte) error
	Log  *slog.Logger
}

// claim says who sends a report, and to whom it has been sent.
type claim struct {
	By   string    `json:"by"`
	At   time.Time `json:"at"`
	Done []string  `json:"done,omitempty"`
}

// Due sends the reports that are due at now and not sent yet.
func (r *Reporter) Due(ctx context.Context, now time.Time) error {
	all, err := r.Store.All(ctx)
	if err != nil {
		return err
	}
	days := map[dayDomain][]string{}
	var claims []string
	for key := range all {
		if parts := strings.SplitN(key, ".", 4); len(parts) == 4 && parts[0] == "tally" {
			k := dayDomain{parts[1], parts[3]}
			days[k] = append(days[k], key)
		} else if parts[0] == "claim" {
			claims = append(claims, key)
		}
	}
	for k, keys := range days {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		over, err := time.Parse(time.DateOnly, k.day)
		if err != nil || now.Before(due(over.AddDate(0, 0, 1), k.domain)) {
			continue
		}
		late := now.Sub(over.AddDate(0, 0, 1)) > giveUp
		if !late && !r.sent(ctx, k, keys, all, now) {
			continue
		}
		if late {
			r.Log.Warn("a TLS report could not be sent in time and is given up", "domain", k.domain, "day", k.day)
		}
		for _, key := range keys {
			if err := r.Store.Delete(ctx, key); err != nil {
				return err
			}
		}
	}
	return r.forget(ctx, claims, now)
}

// forget drops the claims of days that are long over. They stay for some time, so
// that a tally that comes late is not a second report.
func (r *Reporter) forget(ctx context.Context, claims []string, now time.Time) error {
	for _, key := range claims {
		day, err := time.Parse(time.DateOnly, strings.SplitN(key, ".", 3)[1])
		if err == nil && now.Sub(day) < 4*24*time.Hour {
			continue
		}
		if err := r.Store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// due is when the report of a domain about a day that ended at over is sent.
func due(over time.Time, domain string) time.Time {
	h := fnv.New64a()
	h.Write([]byte(domain))
	return over.Add(settle + time.Duration(h.Sum64()%uint64(spread)))
}

// sent sends one report to all that its domain names, and reports whether there is
// nothing left to do.
func (r *Reporter) sent(ctx context.Context, k dayDomain, keys []string, all map[string][]byte, now time.Time) bool {
	var mine claim
	if text, err := r.Store.Get(ctx, claimKey(k.day, k.domain)); err == nil && json.Unmarshal(text, &mine) == nil &&
		mine.By != r.Node && now.Sub(mine.At) < claimFor {
		return false
	}
	mine.By, mine.At = r.Node, now
	if !r.note(ctx, k, &mine) {
		return false
	}
	report, packed, err := r.assemble(k, keys, all)
	if err != nil {
		r.Log.Error("a TLS report could not be made", "domain", k.domain, "day", k.day, "error", err)
		return true
	}
	uris, err := r.URIs(ctx, k.domain)
	if err != nil {
		return false
	}
	whole := true
	for _, uri := range uris {
		if slices.Contains(mine.Done, uri.String()) {
			continue
		}
		if err := r.send(ctx, uri, k.domain, report, packed, now); err != nil {
			r.Log.Info("a TLS report could not be sent; it is tried again", "domain", k.domain, "day", k.day, "to", uri.Redacted(), "error", err)
			whole = false
			continue
		}
		r.Log.Info("a TLS report is on its way", "domain", k.domain, "day", k.day, "to", uri.Redacted())
		mine.Done = append(mine.Done, uri.String())
		r.note(ctx, k, &mine)
	}
	return whole
}

func (r *Reporter) note(ctx context.Context, k dayDomain, c *claim) bool {
	text, err := json.Marshal(c)
	return err == nil && r.Store.Put(ctx, claimKey(k.day, k.domain), text) == nil
}

func (r *Reporter) assemble(k dayDomain, keys []string, all map[string][]byte) (*Report, []byte, error) {
	slices.Sort(keys) // so that every node makes the same of them
	tallies := make([]Tally, 0, len(keys))
	for _, key := range keys {
		t := Tally{}
		if err := json.Unmarshal(all[key], &t); err != nil {
			return nil, nil, err
		}
		tallies = append(tallies, t)
	}
	report, err := r.from(Merge(tallies))
	if err != nil {
		return nil, nil, err
	}
	packed, err := report.Compressed()
	return &report, packed, err
}

// errUnsigned: RFC 8460 5.3 wants reports signed.
var errUnsigned = errors.New("no DKIM key signs for the sender of reports")

func (r *Reporter) send(ctx context.Context, to *url.URL, domain string, report *Report, packed []byte, now time.Time) error {
	if to.Scheme == "https" {
		ctx, cancel := context.WithTimeout(ctx, postTime)
		defer cancel()
		return r.Post(ctx, to, "application/tlsrpt+gzip", packed)
	}
	if r.Enqueue == nil {
		return errUnsigned
	}
	mailbox, _, _ := strings.Cut(to.Opaque, "?")
	mailbox, err := url.PathUnescape(mailbox)
	if err != nil {
		return nil // theirs to mend, and no better in an hour
	}
	address, err := mail.ParseAddress(mailbox)
	if err != nil {
		return nil
	}
	return r.Enqueue(ctx, r.message(address, report, domain, packed, now))
}
