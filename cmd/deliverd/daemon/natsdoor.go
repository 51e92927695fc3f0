package daemon

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
)

// natsDoor is the NATS micro service: it carries bytes between subjects and the
// one function behind every door.
type natsDoor struct {
	service micro.Service
	slots   chan struct{}
	work    sync.WaitGroup
	ctx     context.Context // ends when answers are of no use any more
	metrics *metrics
}

// natsHandlers answer a request's payload from a source.
type natsHandlers struct {
	send            func(ctx context.Context, source string, header func(string) string, payload []byte) []byte
	cancel, outcome func(ctx context.Context, source string, payload []byte) []byte
}

// natsConcurrency bounds the requests under way: as many as one group commit
// carries with room to spare. More wait in the connection, which NATS bounds.
const natsConcurrency = 1024

// requestTime bounds one request: its caller has long given up.
const requestTime = 30 * time.Second

// openNATSDoor registers the service; `nats micro ls` and `info` show it.
func openNATSDoor(ctx context.Context, nc *nats.Conn, version string, m *metrics, h natsHandlers) (*natsDoor, error) {
	d := &natsDoor{slots: make(chan struct{}, natsConcurrency), ctx: ctx, metrics: m}
	service, err := micro.AddService(nc, micro.Config{
		Name:        "deliverd",
		Version:     "1.0.0", // of this interface: subjects and JSON
		Description: "Delivers invites, password resets and device PINs",
		Metadata:    map[string]string{"program": version},
	})
	if err != nil {
		return nil, err
	}
	d.service = service
	for name, answer := range map[string]func(context.Context, string, micro.Request) []byte{
		"send": func(ctx context.Context, source string, r micro.Request) []byte {
			return h.send(ctx, source, nats.Header(r.Headers()).Get, r.Data())
		},
		"cancel": func(ctx context.Context, source string, r micro.Request) []byte {
			return h.cancel(ctx, source, r.Data())
		},
		"outcome": func(ctx context.Context, source string, r micro.Request) []byte {
			return h.outcome(ctx, source, r.Data())
		},
	} {
		err := service.AddEndpoint(name, micro.HandlerFunc(func(r micro.Request) { d.handle(name, answer, r) }),
			micro.WithEndpointSubject("deliverd.v1."+name+".*"))
		if err != nil {
			service.Stop()
			return nil, err
		}
	}
	// Until the server has the subscriptions, a caller hears that nobody responds.
	if err := nc.Flush(); err != nil {
		service.Stop()
		return nil, err
	}
	return d, nil
}

func (d *natsDoor) handle(name string, h func(context.Context, string, micro.Request) []byte, r micro.Request) {
	// We may publish anywhere; a caller may not make us do it.
	if !intake.MayReply(r.Reply()) {
		d.metrics.requests.WithLabelValues("nats", name, "unanswerable").Inc()
		return
	}
	d.slots <- struct{}{}
	d.work.Go(func() {
		defer func() { <-d.slots }()
		ctx, cancel := context.WithTimeout(d.ctx, requestTime)
		defer cancel()
		subject := r.Subject()
		source := mail.FromSubjectToken(subject[strings.LastIndexByte(subject, '.')+1:])
		answer := h(ctx, source, r)
		status := "ok"
		if strings.HasPrefix(string(answer[:min(len(answer), 20)]), `{"problem"`) {
			status = "problem"
		}
		d.metrics.requests.WithLabelValues("nats", name, status).Inc()
		// The error is the connection's, which reports for itself; the caller asks again
		// with the same key.
		_ = r.Respond(answer)
	})
}

// stop takes no new request and waits for those under way.
func (d *natsDoor) stop() error {
	err := d.service.Stop()
	d.work.Wait()
	return err
}
