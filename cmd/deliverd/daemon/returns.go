package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/mail"
)

// openBounces listens for mail that comes back.
func (d *Daemon) openBounces(ctx context.Context) error {
	if d.config.Listen.Bounces == "" && len(d.sockets[socketBounces]) == 0 {
		return nil
	}
	if d.returns == nil {
		return errors.New("listen.bounces needs send.return_path_domain: that is where bounces are addressed to")
	}
	o := bounces.ReceiverOptions{
		Hello: d.config.hello(), ReturnPath: d.returns, Log: d.log,
		Record:  func(ctx context.Context, e mail.Event) error { _, err := d.recordReturned(ctx, e); return err },
		Known:   d.known,
		Forward: d.desk.take,
		Seen:    func(what string) { d.metrics.returned.WithLabelValues(what).Inc() },
	}
	if c := d.config.Bounces; c.Certificate != "" {
		cert, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return fmt.Errorf("bounces.certificate: %w", err)
		}
		d.metrics.certificate.WithLabelValues().Set(float64(cert.Leaf.NotAfter.Unix()))
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	receiver, err := bounces.NewReceiver(o)
	if err != nil {
		return err
	}
	listeners, err := d.listen(ctx, socketBounces, d.config.Listen.Bounces)
	if err != nil {
		return err
	}
	up := d.metrics.listening.WithLabelValues()
	up.Set(1)
	for _, l := range listeners {
		d.start("bounce listener", func(ctx context.Context) {
			if err := receiver.Serve(ctx, l); err != nil {
				up.Set(0)
				d.log.Error("the bounce listener stopped; bounces wait at their senders until a restart", "error", err)
			}
		})
	}
	return nil
}

// known reports whether the log or the queue has a message.
func (d *Daemon) known(ctx context.Context, id mail.ID) (bool, error) {
	found, err := d.find(ctx, id, "")
	return len(found) > 0, err
}

// errUnsettled: a report overtook our own record of the accept, or is about a message
// that is still to be sent. It waits at its sender.
var errUnsettled = errors.New("the message that it is about has not been handed over yet")

// recordReturned completes what came back with what we know of the message, which is
// never taken from the mail, and makes it durable. It says whether the message's story
// has it then: what can't be true changes nothing, as no server returns, delays or
// complains of what it never had, whoever saw a return path. Nor does what was said
// before, however late it comes again.
func (d *Daemon) recordReturned(ctx context.Context, e mail.Event) (told bool, err error) {
	found, err := d.find(ctx, e.Message, "")
	if err != nil {
		return false, err
	}
	if len(found) == 0 {
		return false, nil // gone from the log: nobody asks any more
	}
	told, out, err := d.knownOf(ctx, e)
	if err != nil || told {
		return told, err
	}
	if !out {
		d.log.Warn("a report about a message that was never handed over was dropped", "message", e.Message, "state", e.State, "cause", e.Cause)
		return false, nil
	}
	whole := mail.NewEvent(&found[0], e.State, 0, e.At)
	whole.ID, whole.By = e.ID, e.By
	whole.Cause, whole.Suppress, whole.Evidence = e.Cause, e.Suppress, e.Evidence
	if ev := whole.Evidence; ev != nil && ev.Reply != nil {
		ev.Reply.Text = withoutLinks(ev.Reply.Text)
	}
	err = d.queue.Record(ctx, whole)
	return err == nil, err
}

// knownOf looks in a message's story for an event that came from outside: whether it
// is told there already, and whether the message is out, as far as we know, so that
// the event can be true.
func (d *Daemon) knownOf(ctx context.Context, e mail.Event) (told, out bool, err error) {
	d.catchUp(ctx, e.Message, "")
	facts, err := d.view.Facts(ctx, e.Message)
	if err != nil && !errors.Is(err, console.ErrNotFound) {
		return false, false, err
	}
	ended := false
	for _, f := range facts.Events {
		told = told || f.ID == e.ID
		out = out || f.State == mail.StateAccepted || f.PossibleDuplicate
		ended = ended || f.State.Terminal()
	}
	if !out && !ended { // or else the read model is behind
		return false, false, errUnsettled
	}
	return told, out, nil
}

// withoutLinks cuts the links in what a bounce says to their hosts, but for those of
// mail providers, which explain. A server may quote the link that it objects to, and
// when its bounce comes the message's secrets are destroyed: nothing can tell any more
// whether this is one.
func withoutLinks(text string) string {
	words := strings.Split(text, " ")
	for i, w := range words {
		at := strings.Index(strings.ToLower(w), "http")
		if at < 0 {
			continue
		}
		u, err := url.Parse(strings.Trim(w[at:], `"'<>()[],;`))
		switch {
		case err != nil || u.Host == "":
			words[i] = w[:at] + "[link]"
		case bounces.Provider(u.Hostname()) == "":
			words[i] = w[:at] + u.Scheme + "://" + u.Host + "/[…]"
		}
	}
	return strings.Join(words, " ")
}

// maxReturned is the largest mail that POST /v1/bounces takes, as the listener does.
const maxReturned = 1 << 20

// bounceRoutes take mail that came back to a mailbox instead of the listener.
func (d *Daemon) bounceRoutes() []console.Route {
	return []console.Route{{
		Method: "POST", Pattern: "/v1/bounces", Scope: console.ScopeAct, Body: "message/rfc822",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			explained, problem := d.postBounce(w, r)
			if problem != nil {
				writeProblem(w, problem)
				return
			}
			writeJSON(w, http.StatusOK, explained)
		}),
	}}
}

// postedBounce is the answer to POST /v1/bounces.
type postedBounce struct {
	bounces.Explained
	// Message is the message that the mail is about, "" if no return path of ours
	// stands in it: then nothing was recorded.
	Message mail.ID `json:"message,omitempty"`
	// Recorded says that the message's story has it now.
	Recorded bool `json:"recorded"`
}

func (d *Daemon) postBounce(w http.ResponseWriter, r *http.Request) (*postedBounce, *mail.Problem) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReturned))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); err != nil && !tooLarge {
		return nil, &mail.Problem{Type: mail.ProblemInvalid, Title: "The mail broke off", Status: http.StatusBadRequest, Detail: "Send it again, whole."}
	}
	if err != nil {
		return nil, &mail.Problem{Type: mail.ProblemTooLarge, Title: "The mail is too large", Status: http.StatusRequestEntityTooLarge,
			Detail: "At most " + strconv.Itoa(maxReturned>>20) + " MiB."}
	}
	lang, _, _ := strings.Cut(r.Header.Get("Accept-Language"), ",")
	p := &postedBounce{Explained: bounces.ExplainMail(raw, lang)}
	if d.returns == nil {
		return p, nil
	}
	id, ok := d.returns.Find(raw)
	if !ok {
		return p, nil
	}
	e, counts := bounces.Parse(raw).Event(id, time.Now().UTC())
	found, err := d.find(r.Context(), id, "")
	if err == nil && len(found) > 0 && console.PrincipalFrom(r.Context()).Sees(found[0].Tenant) {
		p.Message = id
		if counts {
			p.Recorded, err = d.recordReturned(r.Context(), e)
		}
	}
	if err != nil {
		d.log.Warn("a mail that came back could not be recorded", "message", id, "error", err)
		return nil, &mail.Problem{Type: mail.ProblemUnavailable, Title: "Could not be recorded", Status: http.StatusServiceUnavailable,
			Detail: "Send it again in a moment.", RetryAfter: 5}
	}
	return p, nil
}
