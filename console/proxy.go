package console

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxy is a proxy of ours that signs people in and says in headers who they are. It
// is believed by its address alone, so it has to drop what clients send in these
// headers, and nobody else on its machine may reach us.
type Proxy struct {
	Addresses    []netip.Prefix // its own: no header of anybody else counts
	UserHeader   string         // "Remote-User"; "": the proxy only passes on who asks
	GroupsHeader string         // "Remote-Groups": names with commas between
}

// isFrom reports whether a connection comes from the proxy.
func (p *Proxy) isFrom(remote string) bool {
	ap, err := netip.ParseAddrPort(remote)
	return err == nil && slices.ContainsFunc(p.Addresses, func(n netip.Prefix) bool { return n.Contains(ap.Addr().Unmap().WithZone("")) })
}

// strip removes the headers from a request of anybody else, so that nothing that
// handles it can take them for true.
func (p *Proxy) strip(r *http.Request) {
	if p.isFrom(r.RemoteAddr) {
		return
	}
	r.Header.Del(p.UserHeader)
	r.Header.Del(p.GroupsHeader)
}

// who returns the person that the proxy names; false if it names nobody, or more than
// one.
func (p *Proxy) who(r *http.Request) (name string, groups []string, ok bool) {
	if p.UserHeader == "" || !p.isFrom(r.RemoteAddr) {
		return "", nil, false
	}
	names := r.Header.Values(p.UserHeader)
	if len(names) != 1 {
		return "", nil, false
	}
	name = strings.TrimSpace(names[0])
	if name == "" || len(name) > groupLongest || strings.ContainsFunc(name, isControl) {
		return "", nil, false
	}
	for g := range strings.SplitSeq(strings.Join(r.Header.Values(p.GroupsHeader), ","), ",") {
		if g = strings.TrimSpace(g); g != "" && len(g) <= groupLongest && len(groups) < groupsMost {
			groups = append(groups, g)
		}
	}
	return name, groups, true
}

// client is the address of whoever asks: the connection's, or, of a request that the
// proxy passed on, the last address in X-Forwarded-For, which is the one that the
// proxy saw itself.
func (p *Proxy) client(r *http.Request) string {
	if p == nil || !p.isFrom(r.RemoteAddr) {
		return r.RemoteAddr
	}
	all := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	last, err := netip.ParseAddr(strings.TrimSpace(all[len(all)-1]))
	if err != nil {
		return r.RemoteAddr
	}
	return net.JoinHostPort(last.String(), "0")
}
