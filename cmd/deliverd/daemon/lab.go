package daemon

import (
	"context"
	"net"
	"net/url"
	"time"
)

// dialer returns how outgoing connections are made: straight, or in the lab to the
// loopback address that stands for the port.
func (c *Config) dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{KeepAlive: 30 * time.Second}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if _, port, err := net.SplitHostPort(addr); err == nil {
			if to, ok := c.Lab.Dial[":"+port]; ok {
				// Whatever family was meant, the stand-in has its own.
				return d.DialContext(ctx, "tcp", to)
			}
		}
		return d.DialContext(ctx, network, addr)
	}
}

// redactURL drops a password that somebody wrote into a URL.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "the configured address"
	}
	return u.Redacted()
}
