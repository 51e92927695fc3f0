package bounces

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestE05ReplayIsPutOff: a return path that somebody plays over and over is put off for
// the rest of the hour, and that of another message is not.
func TestE05ReplayIsPutOff(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	var later atomic.Int64 // hours
	opt.Now = func() time.Time { return testNow.Add(time.Duration(later.Load()) * time.Hour) }
	id, other := testID(), testID()
	listener := serve(t, opt)
	report := func(to string, reply string) {
		t.Helper()
		p := dial(t, listener)
		p.talk("S: 220 bounce.example.com", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250", "C: RCPT TO:<"+to+">", "S: "+reply)
		if strings.HasPrefix(reply, "250") {
			p.talk("C: DATA", "S: 354", "C: "+dsnText+".", "S: 250")
		}
		p.talk("C: QUIT", "S: 221", "closed")
	}
	for range oftenMost {
		report(opt.ReturnPath.Address(id), "250")
	}
	report(opt.ReturnPath.Address(id), "451 4.7.1")
	report(opt.ReturnPath.Address(other), "250")
	if len(d.events) != oftenMost+1 {
		t.Errorf("%d events", len(d.events))
	}
	later.Store(1)
	report(opt.ReturnPath.Address(id), "250")
}
