package bounces

import "testing"

// Nobody is suppressed for what is about us, our message or a policy, whatever words
// about addresses stand beside it (law 10).
func TestNeverSuppress(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"550 5.1.1 Message rejected: unknown sender domain",
		"550 5.1.0 Address rejected: sender unknown",
		"550 Unknown local-part in sender address",
		"550 5.1.1 recipient rejected because your IP is not allowed",
		"550 Invalid HELO name",
		"550 5.1.1 sender address is invalid",
		"550 no such domain in your HELO",
		"535 authentication failed: user not found",
		"550 Your account is disabled",
		"550 5.4.5 sending account suspended",
		"554 Sender account suspended for spamming",
		"550 This sender address does not exist",
		"501 5.1.8 Domain of sender address does not exist",
		"550 DKIM key not found for domain example.com",
		"550 SPF record not found for the domain",
		"550 reverse DNS name does not exist for your address",
		"550 5.1.2 PTR record not found",
		"554 rejected: recipient list too long",
		"550 Group does not exist or you may not have permission to post",
		"550 relay not permitted: user unknown here",
		"550 Your message to the list was rejected: you are not a valid member",
		"550 Mail from unknown host rejected",
		"550 Client host unknown",
		"554 Host not found in reverse DNS",
		"550 the From address x@y.z does not exist",
		"550 Return-Path address not valid",
		"550 5.1.1 Message contains an invalid recipient header",
		"553 Invalid sender domain: domain does not exist",
		"550 5.1.1 Envelope sender domain not found",
		"550 Virus found; user's mailbox disabled for protection",
		"550 Message rejected: account of sender is not valid",
		"550 5.1.1 Bad reputation: mailbox access denied",
		"554 5.4.0 Error: too many hops, mailbox not found",
		"550 Your domain has expired",
		"550 your IP address is unknown to us",
		"550 unknown command",
		"501 Syntax error: invalid address in HELO",
		"550 License expired for this account's server",
		"550 TLS certificate expired",
		"550 Quota: user not allowed to receive more than 10 messages per hour",
		"550 Connection closed: unknown error",
		"550 unable to verify sender: no such user",
		"550-Verification failed for <a@b.c> 550-Previous (cached) callout verification failure 550 Sender verify failed",
		"550 Callback setup failed while verifying <a@b.c>: user unknown",
		"550 Mail server for sender domain not found",
		"550 X-Mailer not allowed; unknown mailer",
		"550 5.1.1 We do not accept mail from dynamic IP addresses",
		"550 The sending domain has no MX record",
		"550 5.7.1 recipient does not exist",
		"554 5.6.0 address in header does not exist",
		"550 message id is not valid",
		"550 Missing or invalid Message-ID header",
		"550 attachment name is invalid",
		"550 5.5.2 RCPT: unknown parameter",
		"550 Unknown recipient policy",
		"554 no valid cert for domain",
	} {
		reply, _ := ParseReply(text)
		if v := Classify(Said{Reply: reply}); v.Suppress {
			t.Errorf("suppressed by rule %s as %s: %s", v.Rule, v.Cause, text)
		}
	}
}
