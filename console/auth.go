package console

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
	"golang.org/x/time/rate"
)

// Principal is who makes a request.
type Principal struct {
	Name    string // for the log: a token's name
	TokenID string // "" where no token was needed
	Scopes  []Scope
	Tenants []string // or [AllTenants]
	Sources []string
}

// Can reports whether the principal has the scope.
func (p *Principal) Can(s Scope) bool {
	return slices.Contains(p.Scopes, s) || slices.Contains(p.Scopes, ScopeAdmin)
}

// Sees reports whether the principal may know of a tenant's things.
func (p *Principal) Sees(tenant string) bool {
	return p.seesAll() || slices.Contains(p.Tenants, tenant)
}

func (p *Principal) seesAll() bool { return slices.Contains(p.Tenants, AllTenants) }

// visible narrows what was asked for, "" for every tenant, to what the principal
// may see, in the form of [Filter].
func (p *Principal) visible(tenant string) []string {
	switch {
	case tenant == "" && p.seesAll():
		return nil
	case tenant == "":
		return p.Tenants
	case p.Sees(tenant):
		return []string{tenant}
	}
	return []string{}
}

// Source is the name under which the principal hands mail over.
func (p *Principal) Source() string {
	if len(p.Sources) > 0 {
		return p.Sources[0]
	}
	return p.Name
}

type principalKey struct{}

// PrincipalFrom returns who makes the request that ctx belongs to; nil before an
// Authenticator has seen it.
func PrincipalFrom(ctx context.Context) *Principal {
	p, _ := ctx.Value(principalKey{}).(*Principal)
	return p
}

// Authenticator finds out who makes a request.
type Authenticator struct {
	Tokens *Tokens
	// Open lets everyone on this machine do everything without a token, for trying
	// deliverd out. The connection and the Host header must both be loopback's, so
	// that neither another machine nor a web page behind a rebound DNS name gets in.
	Open bool
	// Log is told of failures, without the token; nil means silence.
	Log *slog.Logger

	origins http.CrossOriginProtection
	failed  failures
}

// Authenticate returns who makes the request. The error is a *mail.Problem.
func (a *Authenticator) Authenticate(r *http.Request) (*Principal, error) {
	if err := a.sameOrigin(r); err != nil {
		return nil, err
	}
	if a.Open {
		return openPrincipal(r)
	}
	secret, ok := bearer(r)
	if ok {
		token, ok, err := a.Tokens.Check(r.Context(), secret)
		if err != nil {
			a.logger().Error("a token could not be checked", "error", err)
			return nil, unavailable("The token can't be checked now. Try again.")
		}
		if ok {
			return &Principal{Name: token.Name, TokenID: token.ID, Scopes: token.Scopes, Tenants: token.Tenants, Sources: token.Sources}, nil
		}
	}
	// A right token is never held up by others' wrong ones behind the same address:
	// no one can guess 168 bits, so this only bounds the noise.
	if wait := a.failed.count(r.RemoteAddr, a.Tokens.now()); wait > 0 {
		return nil, &mail.Problem{
			Type: mail.ProblemRateLimited, Title: "Too many requests without a valid token", Status: http.StatusTooManyRequests,
			Detail: "Wait, then send a valid token.", RetryAfter: int(math.Ceil(wait.Seconds())),
		}
	}
	a.logger().Warn("a request without a valid token was refused", "remote", r.RemoteAddr, "had_token", ok)
	return nil, notSignedIn()
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
	return &Principal{Name: "developer", Scopes: []Scope{ScopeAdmin}, Tenants: []string{AllTenants}}, nil
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
	r := l.ReserveN(now, 1)
	defer r.CancelAt(now)
	return max(r.DelayFrom(now), time.Second)
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
