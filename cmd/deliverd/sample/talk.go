package sample

import (
	"fmt"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// offers is what the servers of the sample say that they can do.
var offers = []string{"PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES", "STARTTLS"}

// talk is what was said until an attempt ended with its reply, in the order of RFC 5321
// 4.1.4: nothing of one that never got through.
func talk(e *mail.Event, v *mail.Evidence) []mail.Exchange {
	if v.Reply == nil || v.Stage == "" || v.Stage == mail.StageConnect { // a bounce came by itself
		return nil
	}
	const ms = time.Millisecond
	steps := []struct {
		stage   mail.Stage
		command string
		reply   string
		took    time.Duration
	}{
		{mail.StageGreeting, "", "220 " + v.Host + " ESMTP ready", 38 * ms},
		{mail.StageHello, "EHLO mail.acme.example", "250 " + v.Host, 19 * ms},
		{mail.StageTLS, "STARTTLS", "220 2.0.0 Ready to start TLS", 18 * ms},
		{mail.StageTLS, "(TLS handshake)", v.TLS.Version + ", " + v.TLS.Cipher, 44 * ms},
		{mail.StageHello, "EHLO mail.acme.example", "250 " + v.Host, 19 * ms},
		{mail.StageMail, "MAIL FROM:<bounce+…@bounce.acme.example>", "250 2.1.0 Ok", 21 * ms},
		{mail.StageRcpt, fmt.Sprintf("RCPT TO:<%s>", e.To), "250 2.1.5 Ok", 64 * ms},
		{mail.StageData, "DATA", "354 End data with <CR><LF>.<CR><LF>", 65 * ms},
		{mail.StageDot, ".", "", 320 * ms},
	}
	var said []mail.Exchange
	for _, s := range steps {
		x := mail.Exchange{Command: s.command, Reply: s.reply, Took: s.took}
		if s.stage == v.Stage {
			x.Reply = v.Reply.String()
		}
		said = append(said, x)
		if s.stage == v.Stage {
			break
		}
	}
	return said
}
