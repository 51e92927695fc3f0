package dnscheck

import (
	"fmt"
	"testing"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

func TestChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		well, _ := checkZone(t, zoneWith(""), Options{})
		ill, _ := checkZone(t, zoneWith("good.example. MX 0 ."), Options{})
		moved, _ := checkZone(t, zoneWith("good.example. MX 5 a.mimecast.com.\na.mimecast.com. A 192.0.2.1\n_dmarc.good.example. TXT -"), Options{})
		dark, _ := checkZone(t, zoneWith(""), Options{}, dnstest.Fault{Name: "*good.example", Do: dnstest.Refused})
		for _, tt := range []struct {
			before, now *Report
			want        string
		}{
			{&well, &well, "[]"},
			{&well, &ill, "[{verdict   arrives undeliverable} {appeared mx.null good.example  }]"},
			{&ill, &well, "[{verdict   undeliverable arrives} {gone mx.null good.example  }]"},
			{&well, &moved, "[{provider    Mimecast} {appeared dmarc.missing _dmarc.good.example  }]"},
		} {
			if got := fmt.Sprint(tt.now.Changes(tt.before)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		}
		// Silence makes nothing disappear.
		for _, c := range dark.Changes(&moved) {
			if c.What == "gone" || c.What == "provider" {
				t.Errorf("%+v", c)
			}
		}
	})
}
