package signals

// Severity says what an alert asks of the operator.
type Severity string

// The severities.
const (
	Page   Severity = "page"   // somebody has to look now
	Ticket Severity = "ticket" // somebody has to look this week
)

// Alert is one rule, with what to do about it.
type Alert struct {
	Name     string
	Expr     string
	For      string // how long it has to hold, "" for not at all
	Severity Severity
	Summary  string // one sentence; may use Prometheus' templates
	Cure     string // what to do, in a few sentences of Markdown
}

// Alerts are the rules, the gravest first. Those about one destination or kind count
// several messages: one person's dead mailbox is no reason to wake anybody.
func Alerts() []Alert {
	return []Alert{
		{Name: "DeliverdUnaccounted", Severity: Page,
			Expr:    `max by (how) (deliverd_unaccounted_messages) > 0`,
			Summary: `{{ $value }} accepted messages have no end ({{ $labels.how }}).`,
			Cure: "Law 2 is broken. The log line of the audit, and `deliverd log --since 1d`, have the ids. `lost`: the store has lost them, by a damaged disk most likely; " +
				"restore from a replica or a backup, and tell the people concerned. `overdue`: they still wait; `deliverd show ID` says for what. Report it as a bug in either case."},
		{Name: "DeliverdDown", For: "2m", Severity: Page,
			Expr:    `up{job="deliverd"} == 0`,
			Summary: `{{ $labels.instance }} does not answer.`,
			Cure: "`systemctl status deliverd` and `journalctl -u deliverd -n 50`. Exit status 5: the configuration is not valid, and `deliverd config check` says where. " +
				"Anything else: `deliverd doctor`. What was accepted is safe and goes on after the start."},
		{Name: "DeliverdStoreNotWritable", For: "30s", Severity: Page,
			Expr:    `deliverd_store_writable == 0`,
			Summary: `The store of {{ $labels.instance }} takes no writes; new mail is refused.`,
			Cure: "Most often the disk is full: free some space, see [disk full](#the-disk-is-full); the store recovers by itself within seconds. With a NATS cluster: " +
				"two of the three servers have to be up, `nats server report jetstream` shows them."},
		{Name: "DeliverdDiskFull", For: "2m", Severity: Page,
			Expr:    `deliverd_data_free_bytes < 512 * 1024 * 1024`,
			Summary: `{{ $labels.instance }} has {{ $value | humanize1024 }}B left for its data.`,
			Cure:    "Free some space now, see [disk full](#the-disk-is-full). When it has run out, new mail is refused; nothing that was accepted is lost."},
		{Name: "DeliverdDiskFilling", For: "15m", Severity: Ticket,
			Expr:    `deliverd_data_free_bytes / deliverd_data_size_bytes < 0.1`,
			Summary: `{{ $labels.instance }} has {{ $value | humanizePercentage }} of its disk left.`,
			Cure:    "See [disk full](#the-disk-is-full) for what takes the space, and [sizing](#sizing) for how much is needed."},
		{Name: "DeliverdNothingMoves", For: "10m", Severity: Page,
			Expr:    `sum(increase(deliverd_events_total[15m])) == 0 and sum(deliverd_waiting_messages{state="queued"}) > 0`,
			Summary: `Mail waits and nothing happens to it.`,
			Cure: "`deliverd queue` says what holds it: something paused (`deliverd queue resume`), a maintenance window, or destinations that are down. If none, " +
				"`deliverd doctor`, and restart the daemon; keep its log for the report."},
		{Name: "DeliverdPINSlow", For: "10m", Severity: Page,
			Expr:    `histogram_quantile(0.99, sum by (le) (rate(deliverd_enqueue_to_first_attempt_seconds_bucket{kind="pin"}[10m]))) > 1`,
			Summary: `One PIN in a hundred waits longer than {{ $value | humanizeDuration }} for its first attempt.`,
			Cure: "It is our side: nothing of the recipient's counts here. Look at the processor and at the disk's latency (`iostat -x 1`): each accept waits for an fsync. " +
				"A backlog of other kinds does not do this, as PINs have room of their own."},
		{Name: "DeliverdPINLate", For: "10m", Severity: Ticket,
			Expr:    `histogram_quantile(0.90, sum by (le) (rate(deliverd_enqueue_to_handed_over_seconds_bucket{kind="pin"}[30m]))) > 60`,
			Summary: `One PIN in ten is handed over after {{ $value | humanizeDuration }} or later.`,
			Cure: "The receivers take their time: the page of delays, and `deliverd queue`, say who. Where they greylist us, ask the customer's IT to allowlist us: " +
				"`deliverd check --allowlist DOMAIN` has the steps."},
		{Name: "DeliverdWaitingLong", For: "10m", Severity: Ticket,
			Expr: `sum by (kind) (deliverd_waiting_messages) > 10 and on (kind) ` +
				`(max by (kind) (deliverd_oldest_waiting_seconds{kind="pin"}) > 300 or max by (kind) (deliverd_oldest_waiting_seconds{kind="reset"}) > 1800 or ` +
				`max by (kind) (deliverd_oldest_waiting_seconds{kind!~"pin|reset"}) > 86400)`,
			Summary: `{{ $value }} messages of kind {{ $labels.kind }} wait, some of them for long.`,
			Cure:    "`deliverd queue` says where they wait and for what, `deliverd show REF` why one does."},
		{Name: "DeliverdExpiring", For: "5m", Severity: Ticket,
			Expr:    `sum by (kind) (deliverd_expiring_messages{kind!="pin"}) > 10`,
			Summary: `{{ $value }} messages of kind {{ $labels.kind }} expire within five minutes.`,
			Cure:    "They will not arrive in time. `deliverd queue` says why; the auth service has had an event `at_risk` for each, and can offer another way."},
		{Name: "DeliverdRelayRefusesPassword", For: "1m", Severity: Page,
			Expr:    `sum(increase(deliverd_local_faults_total{stage="auth"}[10m])) > 0`,
			Summary: `The relay refuses our name or password; all mail waits.`,
			Cure:    "Put the right password where `send.relay_password` points, and `systemctl restart deliverd` (a credential is read at the start), or reload for a `file:`. What waits goes by itself."},
		{Name: "DeliverdOwnFault", For: "5m", Severity: Page,
			Expr:    `sum by (stage) (increase(deliverd_local_faults_total{stage!="auth"}[10m])) > 5`,
			Summary: `Attempts fail on our own side, at the stage {{ $labels.stage }}.`,
			Cure:    "`deliverd doctor` looks for all causes and says each one's cure: `dns` is the resolver, `sign` a DKIM key that can't be read. Mail waits and costs no attempt."},
		{Name: "DeliverdSenderRejected", For: "10m", Severity: Page,
			Expr:    `sum by (provider, cause) (increase(deliverd_attempts_total{cause=~"blocklisted|auth_failed|ptr_missing|sender_rejected"}[1h])) > 10`,
			Summary: `{{ $labels.provider }} turns our mail away: {{ $labels.cause }}.`,
			Cure:    "It is about who we are, not about a recipient. `deliverd identity` checks SPF, DKIM, DMARC, PTR and blocklists, and says what to mend; `deliverd explain \"THE REPLY\"` has what their words mean."},
		{Name: "DeliverdProviderDown", For: "5m", Severity: Page,
			Expr:    `max by (destination) (deliverd_destination_down_seconds) > 900`,
			Summary: `{{ $labels.destination }} has taken no connection for {{ $value | humanizeDuration }}.`,
			Cure: "`deliverd queue` has its last words. If their status page knows nothing: can this host reach port 25 of others (`deliverd doctor`)? " +
				"Nothing is to be done here otherwise: mail goes when they are back, or `deliverd queue retry provider:NAME`. Support sees an incident."},
		{Name: "DeliverdManyDestinationsDown", For: "10m", Severity: Page,
			Expr:    `sum(deliverd_destinations{state="down"}) > 20 and sum(deliverd_destinations{state="down"}) / sum(deliverd_destinations) > 0.5`,
			Summary: `{{ $value }} destinations are down: it is most likely our own network.`,
			Cure:    "Outgoing port 25 is closed, or the network is: `deliverd doctor`. Many hosting companies close the port until asked."},
		{Name: "DeliverdNoMailComes", For: "30m", Severity: Ticket,
			Expr:    `sum(increase(deliverd_events_total{state="queued"}[1h])) == 0 and sum(increase(deliverd_events_total{state="queued"}[1h] offset 1w)) > 10`,
			Summary: `Nobody hands mail over; a week ago they did.`,
			Cure:    "`deliverd_requests_total` by status says whether they try: 401 is a token that was revoked or has expired (`deliverd token ls`), 503 the store. No requests at all: ask the auth service."},
		{Name: "DeliverdViewBehind", For: "10m", Severity: Ticket,
			Expr:    `deliverd_view_behind_events > 1000`,
			Summary: `Pages of {{ $labels.instance }} are {{ $value }} events behind. Mail is not.`,
			Cure:    "After an upgrade or a restore the index is built anew, at thousands of events a second: wait. Otherwise the log says what is wrong with `view.db`; stop deliverd, remove it, start: it is only an index."},
		{Name: "DeliverdBounceListenerDown", For: "1m", Severity: Page,
			Expr:    `deliverd_bounce_listener_up == 0`,
			Summary: `The bounce listener of {{ $labels.instance }} has stopped.`,
			Cure:    "The log has its error. `systemctl restart deliverd`. Bounces wait at their senders for days, and none is lost so far."},
		{Name: "DeliverdBouncesNotRecorded", For: "30m", Severity: Ticket,
			Expr:    `sum(increase(deliverd_returned_mails_total{kind="failed"}[15m])) > 0`,
			Summary: `Bounces come and can't be recorded.`,
			Cure:    "Their senders try again. The log says why for each: the store (see DeliverdStoreNotWritable), or `postmaster/` is full (see DeliverdPostmasterFull)."},
		{Name: "DeliverdPostmasterStuck", For: "10m", Severity: Ticket,
			Expr:    `deliverd_postmaster_oldest_seconds > 7200`,
			Summary: `Mail to postmaster has waited for {{ $value | humanizeDuration }} to be passed on.`,
			Cure:    "The log says \"mail to postmaster waits\" and why: the address `bounces.postmaster` is suppressed (`deliverd suppress ls`), or a flood is held to 20 an hour. The mails lie in `postmaster/`."},
		{Name: "DeliverdPostmasterUndelivered", Severity: Ticket,
			Expr:    `sum(deliverd_postmaster_mails{state="undelivered"}) > 0`,
			Summary: `{{ $value }} mails to postmaster did not arrive at whom they were passed on to.`,
			Cure:    "Read them in `postmaster/` of the data directory (`….refused.eml`, `….loop.eml`), mend `bounces.postmaster`, and move them away."},
		{Name: "DeliverdPostmasterFull", Severity: Ticket,
			Expr:    `sum by (instance) (deliverd_postmaster_mails) > 900`,
			Summary: `{{ $value }} mails to postmaster lie unread; from 1,000 on none is taken.`,
			Cure:    "Read those in `postmaster/` of the data directory and move them away, or set `bounces.postmaster`."},
		{Name: "DeliverdDKIMHeld", For: "10m", Severity: Page,
			Expr:    `deliverd_dkim_held_domains > 0`,
			Summary: `{{ $value }} domains of ours have no key that signs; their mail is held.`,
			Cure:    "A key was retired and the next one is not published: `deliverd dkim rotate --status` prints the records that DNS lacks. Mail goes within minutes of their appearing."},
		{Name: "DeliverdDKIMPublish", Severity: Ticket,
			Expr:    `max(deliverd_dkim_generation_seconds{phase="next"}) > 2 * 86400`,
			Summary: `New DKIM keys wait to be published.`,
			Cure:    "`deliverd dkim rotate --status` prints the records. The former keys sign until DNS has the new ones."},
		{Name: "DeliverdDKIMRevoke", Severity: Ticket,
			Expr:    `max(deliverd_dkim_generation_seconds{phase="revoke"}) > 37 * 86400`,
			Summary: `Former DKIM keys can be revoked since a week.`,
			Cure:    "Nothing that they signed is on its way any more: empty the `p=` of their records, as `deliverd dkim rotate --status` says. They go from the disk then."},
		{Name: "DeliverdDKIMOld", Severity: Ticket,
			Expr:    `max(deliverd_dkim_generation_seconds{phase="active"}) > 400 * 86400`,
			Summary: `The DKIM keys are older than a year.`,
			Cure:    "`deliverd dkim rotate DOMAIN` makes the next ones and prints their records; the rest happens by itself."},
		{Name: "DeliverdCertificateEnds", Severity: Ticket,
			Expr:    `deliverd_certificate_expiry_timestamp_seconds - time() < 14 * 86400`,
			Summary: `The bounce listener's certificate ends in {{ $value | humanizeDuration }}.`,
			Cure:    "Renew the file of `bounces.certificate` and restart: it is read at the start. Senders go on without a valid one, as RFC 7435 lets them, but some report it."},
		{Name: "DeliverdDowngraded", Severity: Ticket,
			Expr:    `sum(increase(deliverd_tls_downgrades_total[1h])) > 10`,
			Summary: `{{ $value }} connections went without TLS to servers that had it.`,
			Cure:    "`deliverd tls` says where. One provider: theirs. Many: something between this host and the net strips STARTTLS, often a firewall's mail inspection."},
		{Name: "DeliverdRestarts", Severity: Ticket,
			Expr:    `changes(process_start_time_seconds{job="deliverd"}[1h]) > 3`,
			Summary: `{{ $labels.instance }} was started {{ $value }} times within an hour.`,
			Cure:    "`journalctl -u deliverd | grep -B5 -A20 panic`, or the kernel's log for memory (`journalctl -k | grep -i oom`): see [sizing](#sizing)."},
	}
}
