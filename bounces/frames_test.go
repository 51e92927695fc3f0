package bounces

import (
	"fmt"
	"strings"
	"testing"
)

// frames are how mail systems quote a reply in a bounce; %s is the reply.
var frames = map[string]string{
	"notification": "From: MAILER-DAEMON@relay.example\nSubject: Undelivered Mail Returned to Sender\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n" +
		"Reporting-MTA: dns; relay.example\n\nFinal-Recipient: rfc822; w@rcpt.example\nAction: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; %s\n\n--b--\n",
	"Postfix": "From: MAILER-DAEMON@relay.example (Mail Delivery System)\nSubject: Undelivered Mail Returned to Sender\n\n" +
		"This is the mail system at host relay.example.\n\nI'm sorry to have to inform you that your message could not\nbe delivered to one or more recipients. It's attached below.\n\n" +
		"For further assistance, please send mail to postmaster.\n\n                   The mail system\n\n" +
		"<w@rcpt.example>: host mx1.rcpt.example[192.0.2.44] said: %s (in reply to RCPT TO command)\n",
	"Exim": "From: Mail Delivery System <Mailer-Daemon@relay.example>\nSubject: Mail delivery failed: returning message to sender\nX-Failed-Recipients: w@rcpt.example\n\n" +
		"This message was created automatically by mail delivery software.\n\nA message that you sent could not be delivered to one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n" +
		"  w@rcpt.example\n    host mx1.rcpt.example [192.0.2.44]\n    SMTP error from remote mail server after RCPT TO:<w@rcpt.example>:\n    %s\n\n" +
		"------ This is a copy of the message, including all the headers. ------\n\nReturn-Path: <a@app.example>\nTo: w@rcpt.example\n",
	"qmail": "From: MAILER-DAEMON@relay.example\nSubject: failure notice\n\nHi. This is the qmail-send program at relay.example.\n" +
		"I'm afraid I wasn't able to deliver your message to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n" +
		"<w@rcpt.example>:\n192.0.2.44 does not like recipient.\nRemote host said: %s\nGiving up on 192.0.2.44.\n\n--- Below this line is a copy of the message.\n\nReturn-Path: <a@app.example>\n",
	"sendmail": "From: Mail Delivery Subsystem <MAILER-DAEMON@relay.example>\nSubject: Returned mail: see transcript for details\n\n" +
		"   ----- The following addresses had permanent fatal errors -----\n<w@rcpt.example>\n    (reason: %[1]s)\n\n   ----- Transcript of session follows -----\n" +
		"... while talking to mx1.rcpt.example.:\n>>> RCPT To:<w@rcpt.example>\n<<< %[1]s\n550 5.1.1 <w@rcpt.example>... User unknown\n",
	"Exchange": "From: Microsoft Outlook <postmaster@relay.example>\nSubject: Undeliverable: Hello\n\n" +
		"Delivery has failed to these recipients or groups:\n\nw@rcpt.example\n\nDiagnostic information for administrators:\n\n" +
		"Generating server: relay.example\n\nw@rcpt.example\nRemote Server returned '%s'\n",
}

// A reply means the same however it comes back: each rule's examples in the frames of
// six mail systems.
func TestFrames(t *testing.T) {
	t.Parallel()
	for n := range compiled().rules {
		r := &compiled().rules[n]
		// A vague reply gives way to whatever else a mail says.
		if r.stages != nil || r.strength < strengthCode {
			continue
		}
		for _, example := range r.examples {
			reply, ok := ParseReply(example)
			if !ok {
				continue
			}
			for name, frame := range frames {
				got := Parse([]byte(fmt.Sprintf(frame, example)))
				if got.Kind != KindBounce || len(got.Reports) != 1 || got.Reports[0].Recipient != "w@rcpt.example" {
					t.Errorf("%s in %s: %s", example, name, describe(got))
					continue
				}
				x := got.Reports[0]
				if x.Verdict.Cause != r.cause || x.Reply.Code != reply.Code {
					t.Errorf("%s in %s: cause %s by %s, want %s\n%s", example, name, x.Verdict.Cause, x.Verdict.Rule, r.cause, describe(got))
				}
				if x.Verdict.Suppress && (!aboutAddress(r.cause) || strings.Contains(example, "5.7.")) {
					t.Errorf("%s in %s: suppressed", example, name)
				}
			}
		}
	}
}
