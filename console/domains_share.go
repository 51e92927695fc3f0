package console

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
)

// ShareRequest is the body of POST /v1/domains/{domain}/share; it may be left out.
type ShareRequest struct {
	Lang string `json:"lang,omitempty"` // "en", which is the default, or "fi"
	Days int    `json:"days,omitempty"` // from 1 to 90; 0 means 14
}

// Share is the answer to POST /v1/domains/{domain}/share: a page that needs no
// account.
type Share struct {
	URL       string    `json:"url"`
	Domain    string    `json:"domain"`
	Lang      string    `json:"lang"`
	ExpiresAt time.Time `json:"expires_at"`
}

const (
	shareDays = 14
	shareMost = 90 // days
)

func (d *Domains) share(w http.ResponseWriter, r *http.Request, by *Principal) error {
	domain, err := domainOf(r)
	if err != nil {
		return err
	}
	var body ShareRequest
	if r.ContentLength != 0 {
		if err := decode(w, r, &body); err != nil {
			return err
		}
	}
	if body.Lang == "" {
		body.Lang = languages[0]
	}
	if body.Days == 0 {
		body.Days = shareDays
	}
	switch {
	case language(body.Lang) != body.Lang:
		return invalid("lang", "The languages are "+strings.Join(languages[:], " and ")+".")
	case body.Days < 1 || body.Days > shareMost:
		return invalid("days", "From 1 to 90 days.")
	}
	s := sharedDomain{domain: domain, lang: body.Lang, expires: d.now().AddDate(0, 0, body.Days).Truncate(time.Second).UTC(), history: by.seesAll()}
	if d.Note != nil {
		entry := by.entry("domain.share", domain, "", "")
		entry.Detail = "until " + s.expires.Format(time.RFC3339)
		d.Note(r.Context(), entry)
	}
	writeJSON(w, http.StatusCreated, Share{
		URL: strings.TrimSuffix(d.BaseURL, "/") + "/d/" + d.seal(s), Domain: domain, Lang: s.lang, ExpiresAt: s.expires,
	})
	return nil
}

// sharedDomain is what a share link says, and all that it says.
type sharedDomain struct {
	domain, lang string
	expires      time.Time // to the second
	// history: the page tells in numbers what happened to our mail there. Not on a page
	// that somebody shared who may not know of every tenant's.
	history bool
}

// The bytes of a link: version, flags, expiry in seconds since 1970, language,
// domain, and the first half of an HMAC-SHA256 over these, which is enough: 128 bits
// that can be tried only by asking.
const (
	shareVersion = 1
	shareHistory = 1 << 0
	shareHead    = 1 + 1 + 4 + 2
	shareMAC     = sha256.Size / 2
	shareLongest = shareHead + 253 + shareMAC
)

var shareEncoding = base64.RawURLEncoding.Strict()

func (d *Domains) seal(s sharedDomain) string {
	b := []byte{shareVersion, 0}
	if s.history {
		b[1] |= shareHistory
	}
	b = binary.BigEndian.AppendUint32(b, uint32(s.expires.Unix()))
	b = append(append(b, s.lang...), s.domain...)
	return shareEncoding.EncodeToString(append(b, d.shareMAC(b)...))
}

func (d *Domains) shareMAC(b []byte) []byte {
	mac := hmac.New(sha256.New, d.Key)
	mac.Write([]byte("share\x00"))
	mac.Write(b)
	return mac.Sum(nil)[:shareMAC]
}

// open reads a link that seal made; false for any other.
func (d *Domains) open(text string) (s sharedDomain, ok bool) {
	if len(text) > shareEncoding.EncodedLen(shareLongest) {
		return s, false
	}
	b, err := shareEncoding.DecodeString(text)
	if err != nil || len(b) < shareHead+shareMAC {
		return s, false
	}
	b, mac := b[:len(b)-shareMAC], b[len(b)-shareMAC:]
	if !hmac.Equal(mac, d.shareMAC(b)) || b[0] != shareVersion {
		return s, false
	}
	s = sharedDomain{
		history: b[1]&shareHistory != 0, expires: time.Unix(int64(binary.BigEndian.Uint32(b[2:])), 0).UTC(),
		lang: string(b[6:shareHead]), domain: string(b[shareHead:]),
	}
	// It was normal when it was sealed; a later version of the rules may see that
	// otherwise.
	normal, err := dnscheck.NormalDomain(s.domain)
	return s, err == nil && normal == s.domain
}
