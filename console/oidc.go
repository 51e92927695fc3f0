package console

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// OIDC signs people in at an OpenID Connect provider: the authorization code flow
// with PKCE (RFC 7636), state and nonce.
//
//	Begin    state, nonce and PKCE verifier are drawn and sealed into a cookie; the
//	         browser goes to the provider
//	Finish   the state is the cookie's; the code is exchanged; the ID token's
//	         signature, issuer, audience, expiry and nonce are right: a name and groups
//
// Nothing is kept between the two but the cookie, so they may be two nodes. The
// provider is asked for its keys and addresses when first needed: it may be down when
// deliverd starts.
type OIDC struct {
	Issuer       string // also its address: /.well-known/openid-configuration is below it
	ClientID     string
	ClientSecret string
	RedirectURL  string // our /sign-in/callback, as people reach it
	Scopes       []string
	NameClaim    string // whose value names a person in the log: "email"
	GroupsClaim  string // whose value, a list or one string, are the groups: "groups"
	Key          []byte // 32 bytes that seal the cookie, the same on every node
	// Transport reaches the provider; nil means http.DefaultTransport.
	Transport http.RoundTripper
	Now       func() time.Time

	mu       sync.Mutex
	provider *oidc.Provider // guarded by mu; nil until it answered
}

const (
	// oidcTime bounds one request to the provider, oidcMost what it may answer.
	oidcTime = 10 * time.Second
	oidcMost = 1 << 20
	// flowLife is how long somebody may take to sign in at the provider.
	flowLife = 15 * time.Minute
	// groupsMost and groupLongest bound what a session holds of somebody's groups.
	groupsMost   = 500
	groupLongest = 256
)

// errSignIn is what is wrong with an answer of the provider's; for the log.
var errSignIn = errors.New("the sign-in failed")

// oidcFlow is a sign-in under way.
type oidcFlow struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"`
	To       string    `json:"t"` // the page that was asked for
	Until    time.Time `json:"u"`
}

// identity is who somebody is at the provider.
type identity struct {
	name    string
	subject string // issuer and subject, which never change
	groups  []string
}

// boundedTransport bounds what is read of an answer: go-oidc reads it whole.
type boundedTransport struct{ next http.RoundTripper }

func (b boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, oidcMost), resp.Body}
	}
	return resp, err
}

// client returns ctx with the HTTP client that go-oidc and oauth2 look for there.
func (o *OIDC) client(ctx context.Context) context.Context {
	next := o.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	return oidc.ClientContext(ctx, &http.Client{Transport: boundedTransport{next}, Timeout: oidcTime})
}

// open returns the provider and what we are to it.
func (o *OIDC) open(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.provider == nil {
		// The provider keeps the context for fetching keys later on: not the request's.
		p, err := oidc.NewProvider(o.client(context.WithoutCancel(ctx)), o.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errSignIn, err)
		}
		o.provider = p
	}
	return o.provider, &oauth2.Config{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, RedirectURL: o.RedirectURL,
		Endpoint: o.provider.Endpoint(), Scopes: append([]string{oidc.ScopeOpenID}, o.Scopes...),
	}, nil
}

// Begin returns where the browser goes, and the cookie's value that it comes back with.
func (o *OIDC) Begin(ctx context.Context, to string) (address, sealed string, err error) {
	_, config, err := o.open(ctx)
	if err != nil {
		return "", "", err
	}
	flow := oidcFlow{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), To: to, Until: o.Now().Add(flowLife)}
	sealed, err = o.seal(flow)
	return config.AuthCodeURL(flow.State, oidc.Nonce(flow.Nonce), oauth2.S256ChallengeOption(flow.Verifier)), sealed, err
}

// Finish returns who came back from the provider with a code, and the page that they
// had asked for.
func (o *OIDC) Finish(ctx context.Context, sealed, state, code string) (who identity, to string, err error) {
	flow, ok := o.unseal(sealed)
	if !ok || !o.Now().Before(flow.Until) {
		return identity{}, "", fmt.Errorf("%w: no sign-in is under way in this browser", errSignIn)
	}
	if subtle.ConstantTimeCompare([]byte(flow.State), []byte(state)) != 1 {
		return identity{}, "", fmt.Errorf("%w: the state is another one's", errSignIn)
	}
	provider, config, err := o.open(ctx)
	if err != nil {
		return identity{}, "", err
	}
	ctx = o.client(ctx)
	token, err := config.Exchange(ctx, code, oauth2.VerifierOption(flow.Verifier))
	if err != nil {
		return identity{}, "", fmt.Errorf("%w: %w", errSignIn, withoutBody(err))
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.Verifier(&oidc.Config{ClientID: o.ClientID, Now: o.Now}).Verify(ctx, raw)
	if err != nil {
		return identity{}, "", fmt.Errorf("%w: the ID token is not good: %w", errSignIn, err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(flow.Nonce)) != 1 {
		return identity{}, "", fmt.Errorf("%w: the ID token is another sign-in's", errSignIn)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return identity{}, "", fmt.Errorf("%w: the ID token's claims can't be read", errSignIn)
	}
	if _, ok := claims[o.GroupsClaim]; !ok && provider.UserInfoEndpoint() != "" {
		// Some providers tell groups here only (OpenID Connect Core 5.3).
		info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err != nil {
			return identity{}, "", fmt.Errorf("%w: ask who that is: %w", errSignIn, err)
		}
		more := map[string]any{}
		if info.Subject != id.Subject || info.Claims(&more) != nil {
			return identity{}, "", fmt.Errorf("%w: the provider told of somebody else", errSignIn) // 5.3.2
		}
		claims[o.GroupsClaim] = more[o.GroupsClaim]
		if claims[o.NameClaim] == nil {
			claims[o.NameClaim], claims["email_verified"] = more[o.NameClaim], more["email_verified"]
		}
	}
	return o.identity(id, claims), flow.To, nil
}

// withoutBody drops the answer's body from an error: it may hold tokens.
func withoutBody(err error) error {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return fmt.Errorf("the provider refused the code: status %d, %q", e.Response.StatusCode, e.ErrorCode)
	}
	return err
}

func (o *OIDC) identity(id *oidc.IDToken, claims map[string]any) identity {
	who := identity{name: id.Subject, subject: id.Issuer + " " + id.Subject, groups: groupsOf(claims[o.GroupsClaim])}
	name, _ := claims[o.NameClaim].(string)
	// Whoever may choose an address that is not theirs could be taken for another in
	// the log.
	if verified, said := claims["email_verified"].(bool); o.NameClaim == "email" && said && !verified {
		return who
	}
	if name != "" && len(name) <= groupLongest && !slices.ContainsFunc([]rune(name), isControl) {
		who.name = name
	}
	return who
}

// groupsOf reads a claim that is a list of names or one name.
func groupsOf(claim any) []string {
	list, ok := claim.([]any)
	if !ok {
		list = []any{claim}
	}
	var groups []string
	for _, g := range list[:min(len(list), groupsMost)] {
		if name, ok := g.(string); ok && name != "" && len(name) <= groupLongest {
			groups = append(groups, name)
		}
	}
	return groups
}

func (o *OIDC) aead() cipher.AEAD {
	block, err := aes.NewCipher(o.Key)
	if err != nil {
		panic(err) // the key has another length: a mistake of the program's
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

var flowLabel = []byte("deliverd sign-in flow")

func (o *OIDC) seal(f oidcFlow) (string, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(o.aead().Seal(nil, nil, b, flowLabel)), nil
}

func (o *OIDC) unseal(sealed string) (f oidcFlow, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return f, false
	}
	b, err = o.aead().Open(nil, nil, b, flowLabel)
	return f, err == nil && json.Unmarshal(b, &f) == nil
}
