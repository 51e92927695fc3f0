package dnscheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// maxReportURIs is how many of a domain's report addresses are used. A domain could
// name a thousand, and have us send to all of them.
const maxReportURIs = 4

// TLSReportURIs returns where a domain wants reports about TLS sent (RFC 8460 3):
// "mailto:" and "https:" addresses, at most 4; none if it wants no reports, or can't
// say so in one valid record. The error is that of a lookup that brought no answer.
func (r *Resolver) TLSReportURIs(ctx context.Context, domain string) ([]*url.URL, error) {
	texts, err := r.announced(ctx, "_smtp._tls."+domain, "TLSRPTv1")
	if err != nil || len(texts) != 1 {
		return nil, err
	}
	values, _ := tags(texts[0])
	var uris []*url.URL
	for text := range strings.SplitSeq(values["rua"], ",") {
		uri, err := url.Parse(trimWSP(text))
		if err != nil || len(uris) == maxReportURIs {
			continue
		}
		mailbox := uri.Scheme == "mailto" && strings.Contains(uri.Opaque, "@")
		if mailbox || uri.Scheme == "https" && uri.Host != "" && uri.User == nil {
			uris = append(uris, uri)
		}
	}
	return uris, nil
}

// Post sends a body to an https address that a zone named, and nowhere else: the
// host is reached at its looked-up addresses only, on port 443, and a redirect is a
// failure. Of the answer nothing but its status is looked at. It ends with ctx.
func (r *Resolver) Post(ctx context.Context, to *url.URL, contentType string, body []byte, web Web) error {
	if to.Scheme != "https" || to.Port() != "" && to.Port() != "443" {
		return errors.New("reports are posted to https on port 443 only")
	}
	web.Anywhere = web.Anywhere || r.options.Private
	host := Host{Name: lowerASCII(strings.TrimSuffix(to.Hostname(), "."))}
	locate(ctx, r, &host, web.Anywhere)
	if len(host.Addrs) == 0 {
		return host.Err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := web.client(&host).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	io.CopyN(io.Discard, response.Body, 4<<10) // so that the server sees its answer taken
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", host.Name, printable(response.Status, 100))
	}
	return nil
}
