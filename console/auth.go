package console

import (
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
	"golang.org/x/time/rate"
)

// Authenticator finds out who makes a request.
type Authenticator struct {
	Tokens *Tokens
	// Open lets everyone on this machine do everything without a token, for trying
	// deliverd out. The connection and the Host header must both be loopback's, so
	// that neither another machine nor a web page behind a rebound DNS name gets in.
	Open bool
	// SignIn knows the people; nil means that there are tokens only.
	SignIn *SignIn
	// Log is told of failures, without the token; nil means silence.
	Log *slog.Logger

	origins http.CrossOriginProtection
	failed  failures
}

// Authenticate returns who makes the request. The error is a *mail.Problem.
func (a *Authenticator) Authenticate(r *http.Request) (*Principal, error) {
	if a.Open {
		if err := a.sameOrigin(r); err != nil {
			return nil, err
		}
		return openPrincipal(r)
	}
	p, held, err := a.who(r)
	if p != nil || err != nil {
		return p, err
	}
	if !held && looksAtPage(r) {
		return nil, notSignedIn() // somebody who comes to sign in, and no guess
	}
	// A right token is never held up by others' wrong ones behind the same address:
	// no one can guess 168 bits, so this only bounds the noise.
	from := a.client(r)
	if wait := a.failed.count(from, a.Tokens.now()); wait > 0 {
		return nil, &mail.Problem{
			Type: mail.ProblemRateLimited, Title: "Too many requests without a valid token", Status: http.StatusTooManyRequests,
			Detail: "Wait, then send a valid token.", RetryAfter: int(math.Ceil(wait.Seconds())),
		}
	}
	a.logger().Warn("a request without a valid token was refused", "remote", from, "had_token", held)
	return nil, notSignedIn()
}

// who returns who makes the request, nil for nobody, and whether it held a token
// or a cookie at all. A token says more than a cookie: whoever sends one means it.
func (a *Authenticator) who(r *http.Request) (p *Principal, held bool, err error) {
	if err := a.sameOrigin(r); err != nil {
		return nil, false, err
	}
	if secret, ok := bearer(r); ok {
		token, ok, err := a.Tokens.Check(r.Context(), secret)
		if err != nil {
			a.logger().Error("a token could not be checked", "error", err)
			return nil, true, unavailable("The token can't be checked now. Try again.")
		}
		if !ok {
			return nil, true, nil
		}
		return tokenHolder(&token), true, nil
	}
	if a.SignIn == nil {
		return nil, false, nil
	}
	if p, err = a.SignIn.who(r); p != nil && err == nil {
		err = fromPage(r)
	}
	if err != nil {
		return nil, true, err
	}
	_, missing := r.Cookie(sessionCookie)
	return p, missing == nil, nil
}

// strip removes what only a proxy of ours may say.
func (a *Authenticator) strip(r *http.Request) {
	if a.SignIn != nil && a.SignIn.Proxy != nil {
		a.SignIn.Proxy.strip(r)
	}
}

// client is the address of whoever asks, for counting failures.
func (a *Authenticator) client(r *http.Request) string {
	if a.SignIn == nil {
		return r.RemoteAddr
	}
	return a.SignIn.Proxy.client(r)
}

func (a *Authenticator) logger() *slog.Logger {
	if a.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return a.Log
}

// sameOrigin refuses what another site's page makes a browser send. Reading is
// refused too: an event stream or a document is no business of another site's
// scripts. Only a link from elsewhere may be followed.
func (a *Authenticator) sameOrigin(r *http.Request) error {
	if err := a.origins.Check(r); err != nil {
		return crossOrigin()
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		if r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
			return crossOrigin()
		}
	}
	return nil
}

func openPrincipal(r *http.Request) (*Principal, error) {
	if !loopback(r.RemoteAddr) || !loopback(r.Host) {
		return nil, &mail.Problem{
			Type: mail.ProblemNotAllowed, Title: "Only from this machine", Status: http.StatusForbidden,
			Detail: "Without tokens, requests are taken from this machine only, and by the name localhost, 127.0.0.1 or [::1].",
		}
	}
	return person("dev", "", ViaDev, RoleAdmin, []string{AllTenants}), nil
}

// loopback reports whether a host, with or without a port, is this machine by
// itself: an address of 127.0.0.0/8 or ::1, or the name localhost, which no DNS
// decides.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// bearer returns the token of the Authorization header (RFC 6750 2.1). A token
// anywhere else, such as in the URL, is none.
func bearer(r *http.Request) (string, bool) {
	scheme, secret, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(secret), true
}

// failures counts failed attempts by network. The zero value is ready.
type failures struct {
	mu sync.Mutex
	by map[netip.Prefix]*rate.Limiter
}

const (
	failureEvery = 6 * time.Second // one more failure is answered plainly every so often …
	failureBurst = 10              // … after this many
	failuresMax  = 10_000          // networks remembered
)

// count counts one failure and returns how long the caller must wait, 0 if it need
// not.
func (f *failures) count(remote string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by == nil || len(f.by) >= failuresMax {
		f.by = map[netip.Prefix]*rate.Limiter{}
	}
	network := networkOf(remote)
	l := f.by[network]
	if l == nil {
		l = rate.NewLimiter(rate.Every(failureEvery), failureBurst)
		f.by[network] = l
	}
	if l.AllowN(now, 1) {
		return 0
	}
	return delay(l, now)
}

// wait returns how long a caller must wait because of earlier failures, 0 if it need
// not. It counts nothing.
func (f *failures) wait(remote string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.by[networkOf(remote)]
	if l == nil || l.TokensAt(now) >= 1 {
		return 0
	}
	return delay(l, now)
}

func delay(l *rate.Limiter, now time.Time) time.Duration {
	r := l.ReserveN(now, 1)
	defer r.CancelAt(now)
	return max(r.DelayFrom(now), time.Second)
}

// hostOf is the address without the port.
func hostOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}

// networkOf is the address, or for IPv6 its /64, which one customer has whole.
func networkOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if ap.Addr().Unmap().Is6() {
		bits = 64
	}
	p, _ := ap.Addr().Unmap().WithZone("").Prefix(bits)
	return p
}

// retryAfter is the header's value for a problem's RetryAfter.
func retryAfter(seconds int) string { return strconv.Itoa(seconds) }
