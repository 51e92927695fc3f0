package dnscheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxSTSPolicy is the size that RFC 8461 3.3 suggests as a limit.
	maxSTSPolicy = 64 << 10
	// maxSTSAge is the most that max_age may be (RFC 8461 3.2).
	maxSTSAge = 31557600 * time.Second
)

// STSPolicy is a domain's MTA-STS policy (RFC 8461 3.2).
type STSPolicy struct {
	Mode   string // enforce, testing or none
	MX     []string
	MaxAge time.Duration
}

// Covers reports whether the policy lets mail go to host: a pattern names it, or
// stands for one label with "*" (RFC 8461 4.1).
func (p *STSPolicy) Covers(host string) bool {
	host = lowerASCII(host)
	_, parent, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(p.MX, func(pattern string) bool {
		rest, wild := strings.CutPrefix(pattern, "*.")
		return pattern == host || wild && rest != "" && rest == parent
	})
}

// ParseSTSPolicy reads a policy file. A key that appears twice counts once, but
// for mx; an unknown key is ignored.
func ParseSTSPolicy(text string) (STSPolicy, error) {
	var p STSPolicy
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.Trim(line, " \t") == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		value = trimWSP(value)
		if !ok || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return p, fmt.Errorf("the line %q is not a key with a value", printable(line, 80))
		}
		if seen[key] && key != "mx" {
			continue
		}
		seen[key] = true
		if err := p.set(key, value); err != nil {
			return p, err
		}
	}
	for _, key := range []string{"version", "mode", "max_age"} {
		if !seen[key] {
			return p, fmt.Errorf("%s is missing", key)
		}
	}
	if len(p.MX) == 0 && p.Mode != "none" {
		return p, errors.New("mx is missing")
	}
	return p, nil
}

var stsPattern = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

func (p *STSPolicy) set(key, value string) error {
	switch key {
	case "version":
		if value != "STSv1" {
			return fmt.Errorf("version %q, want STSv1", printable(value, 40))
		}
	case "mode":
		if value != "enforce" && value != "testing" && value != "none" {
			return fmt.Errorf("mode %q, want enforce, testing or none", printable(value, 40))
		}
		p.Mode = value
	case "mx":
		pattern := lowerASCII(value)
		if len(pattern) > maxName || !stsPattern.MatchString(pattern) {
			return fmt.Errorf("mx %q is not a host or *. and a domain", printable(value, 80))
		}
		p.MX = append(p.MX, pattern)
	case "max_age":
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("max_age %q is not a number of seconds", printable(value, 40))
		}
		p.MaxAge = min(time.Duration(min(seconds, uint64(maxSTSAge/time.Second)))*time.Second, maxSTSAge)
	}
	return nil
}

// STSRecord returns the id of the MTA-STS policy that a domain announces (RFC 8461
// 3.1), "" if it announces none: no record, several, or one that can't be read. The
// error is that of a lookup that brought no answer, which says nothing.
func (r *Resolver) STSRecord(ctx context.Context, domain string) (id string, err error) {
	texts, err := r.announced(ctx, "_mta-sts."+domain, "STSv1")
	if err != nil || len(texts) != 1 {
		return "", err
	}
	values, ok := tags(texts[0])
	if !ok || !stsID.MatchString(values["id"]) {
		return "", nil
	}
	return values["id"], nil
}

// announced looks up the text records at name that begin with a version; proven
// absence is no error.
func (r *Resolver) announced(ctx context.Context, name, version string) ([]string, error) {
	found, err := r.TXT(ctx, name)
	if lookup, ok := errors.AsType[*Error](err); ok {
		if lookup.Permanent() {
			return nil, nil
		}
		return nil, lookup
	}
	return versioned(found.List, version), nil
}

// STSError says at which step the policy could not be had.
type STSError struct {
	Step   string // "dns", "connect", "certificate", "redirect", "status", "type", "size" or "syntax"
	Detail string
	Err    error // of the lookup, if the step is "dns"
}

// Error names the step.
func (e *STSError) Error() string { return "mta-sts policy: " + e.Step + ": " + e.Detail }

// Unwrap returns the failed lookup, if it was one.
func (e *STSError) Unwrap() error { return e.Err }

func stsError(step, format string, args ...any) error {
	return &STSError{Step: step, Detail: printable(fmt.Sprintf(format, args...), 200)}
}

// Web is how the policy host is reached.
type Web struct {
	// Dial connects; nil: a net.Dialer. It is given "tcp" and the host's looked-up
	// address, which is on the public Internet unless the resolver allows others.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Anywhere says that Dial itself decides where connections go, as in a
	// laboratory, so that the looked-up address may be any.
	Anywhere bool
	// Roots are the authorities that the certificate has to come from; nil: the
	// system's.
	Roots *x509.CertPool
}

// FetchSTS gets a domain's policy file, from the one place where it may be, and
// nowhere else: no redirect is followed, no proxy used (RFC 8461 3.3). The error
// is always an *STSError. It ends with ctx.
func (r *Resolver) FetchSTS(ctx context.Context, domain string, web Web) (STSPolicy, error) {
	web.Anywhere = web.Anywhere || r.options.Private
	return fetchSTS(ctx, r, domain, web)
}

func fetchSTS(ctx context.Context, dns lookups, domain string, web Web) (STSPolicy, error) {
	host := Host{Name: "mta-sts." + domain}
	locate(ctx, dns, &host, web.Anywhere)
	if len(host.Addrs) == 0 {
		return STSPolicy{}, &STSError{Step: "dns", Detail: host.Err.Error(), Err: host.Err}
	}
	client := web.client(&host)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host.Name+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return STSPolicy{}, stsError("connect", "%v", err)
	}
	response, err := client.Do(request)
	if err != nil {
		if invalid, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return STSPolicy{}, stsError("certificate", "%v", invalid.Err)
		}
		return STSPolicy{}, stsError("connect", "%v", err)
	}
	defer response.Body.Close()
	return readSTS(response)
}

// client reaches one host, at the addresses that were found for it and on port 443,
// and nothing else: it follows no redirect, uses no proxy and undoes no compression,
// behind which a bomb may sit. Each request has a connection of its own.
func (w Web) client(host *Host) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialAny(ctx, w.Dial, network, host.Addrs)
			},
			TLSClientConfig:        &tls.Config{RootCAs: w.Roots},
			DisableCompression:     true,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// readSTS reads the answer of the policy host.
func readSTS(response *http.Response) (STSPolicy, error) {
	switch {
	case response.StatusCode/100 == 3:
		return STSPolicy{}, stsError("redirect", "%d to %s", response.StatusCode, response.Header.Get("Location"))
	case response.StatusCode != http.StatusOK:
		return STSPolicy{}, stsError("status", "%s", response.Status)
	}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || kind != "text/plain" {
		return STSPolicy{}, stsError("type", "Content-Type %q, want text/plain", response.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSTSPolicy+1))
	if err != nil {
		return STSPolicy{}, stsError("connect", "%v", err)
	}
	if len(body) > maxSTSPolicy {
		return STSPolicy{}, stsError("size", "more than 64 KiB")
	}
	policy, err := ParseSTSPolicy(string(body))
	if err != nil {
		return STSPolicy{}, stsError("syntax", "%v", err)
	}
	return policy, nil
}

// dialAny connects to the first address that takes the connection.
func dialAny(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), network string, addrs []netip.Addr) (net.Conn, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	var err error
	for i, addr := range addrs {
		// A dead address leaves the others their share of the time.
		share, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok {
			share, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		}
		var conn net.Conn
		conn, err = dial(share, network, netip.AddrPortFrom(addr, 443).String())
		cancel()
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}
