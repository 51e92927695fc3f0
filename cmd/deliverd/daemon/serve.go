package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/deliverd/deliverd/console"
)

// LocalTokenFile is the file in the data directory that holds a token for commands
// on the same machine, run by the same user.
const LocalTokenFile = "local.token"

// openDoors makes the API and the NATS service answer.
func (d *Daemon) openDoors(ctx context.Context) error {
	shared, err := d.queue.Shared(ctx, "tokens")
	if err != nil {
		return err
	}
	d.tokens = console.NewTokens(tokenStore{shared}, nil)
	if d.catch == nil {
		if err := d.localToken(ctx); err != nil {
			return err
		}
	}
	if err := d.openHTTP(ctx); err != nil {
		return err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	door, err := openNATSDoor(serving, d.nc, d.version, d.metrics, natsHandlers{
		send:    d.intake.HandleSend,
		cancel:  d.intake.HandleCancel,
		outcome: d.intake.HandleOutcome,
	})
	if err != nil {
		cancel()
		return err
	}
	d.cleanups.add("NATS service", func(context.Context) error {
		defer cancel()
		return door.stop()
	})
	return nil
}

// localToken leaves a token for local commands, made anew if the old one is not good
// any more.
func (d *Daemon) localToken(ctx context.Context) error {
	path := d.config.dataFile(LocalTokenFile)
	if text, err := os.ReadFile(path); err == nil {
		if _, ok, err := d.tokens.Check(ctx, strings.TrimSpace(string(text))); ok || err != nil {
			return err
		}
	}
	secret, _, err := d.tokens.New(ctx, console.Token{
		Name: "local", Scopes: []console.Scope{console.ScopeAdmin}, Tenants: []string{console.AllTenants}, CreatedBy: "deliverd",
	})
	if err != nil {
		return fmt.Errorf("can't make the token for local commands: %w", err)
	}
	return writeFileSync(path, []byte(secret+"\n"))
}

// The bounds of an HTTP connection. A reader of the event stream may stay; a caller
// that sends its request drop by drop may not.
const (
	headerTime = 5 * time.Second
	readTime   = 30 * time.Second
	idleTime   = 2 * time.Minute
	maxHeader  = 32 << 10
	maxConns   = 4096
)

func (d *Daemon) openHTTP(ctx context.Context) error {
	listeners, err := d.listen(ctx, socketHTTP, d.config.Listen.HTTP)
	if err != nil {
		return err
	}
	d.http = listeners[0]
	auth := &console.Authenticator{Tokens: d.tokens, Open: d.catch != nil, Log: d.log}
	if !auth.Open {
		if auth.SignIn, err = d.signIn(ctx); err != nil {
			return err
		}
	}
	routes, err := d.routes(ctx, auth.SignIn)
	if err != nil {
		return err
	}
	api := console.Handler(auth, d.log, routes...)
	for _, l := range listeners {
		d.serveHTTP("HTTP", l, api)
	}
	scraped, err := d.listen(ctx, socketMetrics, d.config.Listen.Metrics)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.metrics.handler())
	for _, l := range scraped {
		d.serveHTTP("metrics", l, mux)
	}
	return nil
}

// serveHTTP serves until the daemon stops; then requests under way may finish.
func (d *Daemon) serveHTTP(name string, l net.Listener, h http.Handler) {
	// Requests end with this context, so that event streams don't hold up a stop.
	base, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: readTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(netutil.LimitListener(l, maxConns)); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("the HTTP server stopped", "listener", name, "error", err)
		}
	}()
	d.cleanups.add(name, func(ctx context.Context) error {
		time.AfterFunc(time.Second, cancel) // answers under way have had their chance
		defer cancel()
		err := server.Shutdown(ctx)
		<-done
		return err
	})
}

// routes is everything that the API's address answers. signIn is nil where nobody
// needs to.
func (d *Daemon) routes(ctx context.Context, signIn *console.SignIn) ([]console.Route, error) {
	api := &console.API{View: d.view, Backend: backend{d}, Resender: resender{d}, Calendar: d.calendar, Tokens: d.tokens, ServiceLog: d.serviceLog, Log: d.log}
	routes := api.Routes()
	for _, r := range d.intake.Routes() {
		routes = append(routes, console.Route{Method: r.Method, Pattern: r.Pattern, Scope: console.Scope(r.Scope), Handler: r.Handler})
	}
	routes = append(routes, d.bounceRoutes()...)
	routes = append(routes, d.traceRoutes()...)
	routes = append(routes, d.tlsRoutes()...)
	routes = append(routes, d.backupRoutes()...)
	domains, err := d.domainReports(ctx)
	if err != nil {
		return nil, err
	}
	routes = append(routes, domains.Routes()...)
	h := health{ready: d.ready}
	routes = append(routes,
		console.Route{Method: "GET", Pattern: "/healthz", Handler: http.HandlerFunc(h.live)},
		console.Route{Method: "GET", Pattern: "/readyz", Handler: http.HandlerFunc(h.readiness)},
		console.Route{Method: "GET", Pattern: "/metrics", Handler: localOnly(d.metrics.handler())},
	)
	if d.catch != nil {
		routes = append(routes, d.catchRoutes()...)
	}
	pages, err := console.NewPages(api, d.pageParts(domains))
	if err != nil {
		return nil, err
	}
	routes = append(routes, pages.Routes()...)
	if signIn != nil {
		routes = append(routes, signIn.Routes()...)
	}
	for i := range routes {
		routes[i].Handler = d.metrics.counted(routes[i])
	}
	return routes, nil
}

// ready reports whether mail can be taken and worked on.
func (d *Daemon) ready(ctx context.Context) error {
	if !d.nc.IsConnected() {
		return errors.New("not connected to NATS")
	}
	return d.queue.Healthy(ctx)
}

// localOnly answers those who come straight from this machine. Behind a proxy
// everybody does, so a forwarded request is not local; scrapers of other machines
// have listen.metrics.
func localOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().Unmap().IsLoopback() || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
