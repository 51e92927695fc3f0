package daemon

import (
	"context"
	"net"
	"net/url"
)

// labDial returns how outgoing connections are made in the lab: to the loopback
// address that stands for the port, whatever host was meant. It is nil outside of
// the lab, where whoever connects knows best how.
func (c *Config) labDial() func(ctx context.Context, network, addr string) (net.Conn, error) {
	if len(c.Lab.Dial) == 0 {
		return nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		if _, port, err := net.SplitHostPort(addr); err == nil {
			if to, ok := c.Lab.Dial[":"+port]; ok {
				// Whatever family was meant, the stand-in has its own.
				return d.DialContext(ctx, "tcp", to)
			}
		}
		return d.DialContext(ctx, network, addr)
	}
}

// redactURL drops the user, the password or the token that somebody wrote into a URL.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "the configured address"
	}
	u.User = nil
	return u.String()
}
