package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// The vocabulary of deliverd, under the names that read well here.
type (
	// Message is a mail to send. Kind and To are required, and what the kind's
	// template needs in Data. "link", "url", "code", "pin", "otp" and "token" in Data
	// are always treated as secrets, and so are the names in Secrets: they are sealed
	// on arrival and never shown or logged.
	Message = mail.Request
	// Receipt is the answer to a message that is safe.
	Receipt = mail.Receipt
	// Warning is something to know of a message that was taken nevertheless.
	Warning = mail.Warning
	// Problem is why a request was refused (RFC 9457).
	Problem = mail.Problem
	// ID names a message, e.g. "msg_01932f0c-…".
	ID = mail.ID
	// Ref is the reference in a mail's footer, e.g. "7K3Q-9DXP".
	Ref = mail.Ref
	// State is where a message stands.
	State = mail.State
)

// The outcomes that [Client.Outcome] reports.
const (
	Used          = mail.EventUsed          // the link or code was used
	ExpiredUnused = mail.EventExpiredUnused // it lapsed
	WrongPerson   = mail.EventWrongPerson   // somebody tried to use it who is not the recipient
)

// Client talks to one deliverd. Make one with [New] or [OverNATS], once, and share
// it: its methods may be called concurrently, and connections are kept.
type Client struct {
	http   *http.Client
	server string // without a slash at the end; "" over NATS
	token  string
	plain  bool // AllowPlainHTTP

	request Requester // nil over HTTP
	source  string    // as a subject token

	agent    string
	attempts int
}

// New makes a client of the deliverd at server, e.g. "https://deliverd.internal:8025".
// It connects to nothing yet.
func New(server string, opts ...Option) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New(`deliverd: the server has to be a URL such as "https://deliverd.internal:8025"`)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("deliverd: the server's URL has no user, query or fragment; a token goes into client.Token")
	}
	c, err := with(&Client{server: strings.TrimRight(u.String(), "/")}, opts)
	if err != nil {
		return nil, err
	}
	if c.token != "" && u.Scheme == "http" && !c.plain && !isLoopback(u.Hostname()) {
		return nil, errors.New("deliverd: a token does not go over plain http to another machine: use https, or AllowPlainHTTP")
	}
	if c.http == nil {
		c.http = &http.Client{Transport: transport()}
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// Requester makes one request over NATS and returns the reply's data. With nats.go:
//
//	func(ctx context.Context, subject string, header map[string][]string, body []byte) ([]byte, error) {
//		reply, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: header, Data: body})
//		if err != nil {
//			return nil, err
//		}
//		return reply.Data, nil
//	}
type Requester func(ctx context.Context, subject string, header map[string][]string, body []byte) ([]byte, error)

// OverNATS makes a client that asks through request, as source: the name under which
// your service is known to deliverd and allowed to publish, e.g. "login". Send,
// SendAndWait, Cancel and Outcome work so; the other methods need HTTP and return an
// error that is [errors.ErrUnsupported]. An error of request is passed on as it is.
func OverNATS(request Requester, source string, opts ...Option) (*Client, error) {
	if request == nil || source == "" {
		return nil, errors.New("deliverd: OverNATS needs a way to make requests, and the name of the source")
	}
	return with(&Client{request: request, source: mail.SubjectToken(source)}, opts)
}

func with(c *Client, opts []Option) (*Client, error) {
	c.agent = "deliverd-client"
	c.attempts = 6
	for _, o := range opts {
		if err := o(c); err != nil {
			return nil, fmt.Errorf("deliverd: %w", err)
		}
	}
	return c, nil
}

// transport is the default one with room for a busy service: two idle connections a
// host, as the default has it, would mean a new handshake for most requests.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	// Streams have no time limit but this one, on their first byte.
	t.ResponseHeaderTimeout = tryTime + MaxWait
	return t
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Option changes how a client works.
type Option func(*Client) error

// Token signs requests with an API token ("dlv_…", see deliverd token new).
//
// A token goes over https, or to this machine, or not at all: New fails for plain
// http to another one unless [AllowPlainHTTP] comes with it.
func Token(token string) Option {
	return func(c *Client) error {
		token = strings.TrimSpace(token) // of a file that ends in a newline
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return errors.New("the token is empty or has characters that a token never has")
		}
		c.token = token
		return nil
	}
}

// AllowPlainHTTP lets a token and messages travel unencrypted to another machine, for
// networks that encrypt below.
func AllowPlainHTTP() Option {
	return func(c *Client) error {
		c.plain = true
		return nil
	}
}

// HTTPClient makes requests with hc: for a private certificate authority, a proxy, or
// tracing. Redirects are not followed, whatever hc says of them: a message's secrets
// go to the server that you named.
func HTTPClient(hc *http.Client) Option {
	return func(c *Client) error {
		own := *hc
		c.http = &own
		return nil
	}
}

// Attempts sets how often a request is tried in all; the default is 6, which takes
// about 5 seconds of waits. 1 means no retries.
func Attempts(n int) Option {
	return func(c *Client) error {
		if n < 1 {
			return errors.New("there has to be at least one attempt")
		}
		c.attempts = n
		return nil
	}
}

// UserAgent names your program to the server's log; the default is "deliverd-client".
func UserAgent(name string) Option {
	return func(c *Client) error {
		if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
			return errors.New("a user agent has printable ASCII only")
		}
		c.agent = name
		return nil
	}
}
