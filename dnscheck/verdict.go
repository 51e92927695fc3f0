package dnscheck

import (
	"fmt"
	"slices"
)

// phrases are the sentences of a report's first lines in one language. The words
// of findings stay in English: they are for those who run mail servers.
type phrases struct {
	arrives, arrivesAt, arrivesBehind string
	held, undeliverable, unknown      string
	askAllow, askSpelling, askOther   string
	askFix                            string
	askUs, askAgain                   string
	oursWell, oursIll, oursUnknown    string
	reasons                           map[string]string // by finding code
}

var languages = map[string]*phrases{
	"en": {
		arrives:       "Mail from us to %s should arrive.",
		arrivesAt:     "Mail from us to %s should arrive; it is received by %s.",
		arrivesBehind: "Mail from us to %s should arrive; it is filtered by %s and kept by %s.",
		held:          "Mail from us to %s will probably be held or refused: %s",
		undeliverable: "Mail to %s cannot be delivered: %s",
		unknown:       "It is unknown whether mail to %s arrives: the DNS did not answer.",
		askAllow:      "If it does not arrive, their IT can allow our mail in %s with the steps below.",
		askSpelling:   "Ask for the right address: the domain is perhaps misspelt.",
		askOther:      "Ask for another address: this domain chooses to take no mail.",
		askFix:        "Their IT has to repair this: %s",
		askUs:         "We have to repair this: %s",
		askAgain:      "Check again in a few minutes.",
		oursWell:      "Our side is in order: others can verify our mail.",
		oursIll:       "Our mail will be refused or held in places: %s",
		oursUnknown:   "It is unknown whether our side is in order: the DNS did not answer.",
		reasons:       map[string]string{},
	},
	"fi": {
		arrives:       "Viestimme osoitteisiin %s menevät todennäköisesti perille.",
		arrivesAt:     "Viestimme osoitteisiin %s menevät todennäköisesti perille; ne vastaanottaa %s.",
		arrivesBehind: "Viestimme osoitteisiin %s menevät todennäköisesti perille; ne suodattaa %s ja säilyttää %s.",
		held:          "Viestimme osoitteisiin %s todennäköisesti pysäytetään tai torjutaan: %s",
		undeliverable: "Osoitteisiin %s ei voi toimittaa viestejä: %s",
		unknown:       "Ei tiedetä, menevätkö viestit osoitteisiin %s perille: nimipalvelu ei vastannut.",
		askAllow:      "Jos viesti ei tule perille, heidän IT-tukensa voi sallia viestimme tuotteessa %s alla olevin ohjein.",
		askSpelling:   "Pyydä oikea osoite: verkkotunnuksessa on ehkä kirjoitusvirhe.",
		askOther:      "Pyydä toinen osoite: tämä verkkotunnus ei halua vastaanottaa sähköpostia.",
		askFix:        "Heidän IT-tukensa on korjattava tämä: %s",
		askUs:         "Meidän on korjattava tämä: %s",
		askAgain:      "Tarkista uudelleen muutaman minuutin kuluttua.",
		oursWell:      "Oma puolemme on kunnossa: muut voivat todentaa viestimme.",
		oursIll:       "Viestimme torjutaan tai pysäytetään paikoin: %s",
		oursUnknown:   "Ei tiedetä, onko oma puolemme kunnossa: nimipalvelu ei vastannut.",
		reasons: map[string]string{
			"domain.invalid":        "se ei ole verkkotunnus.",
			"domain.nxdomain":       "verkkotunnusta ei ole olemassa.",
			"mx.null":               "verkkotunnus ilmoittaa, ettei se ota vastaan sähköpostia.",
			"mx.none":               "sähköpostille ei ole nimetty vastaanottajaa.",
			"mx.target_nxdomain":    "nimettyä sähköpostipalvelinta ei ole olemassa.",
			"mx.target_no_address":  "nimetyllä sähköpostipalvelimella ei ole osoitetta.",
			"mx.ip_literal":         "MX-tietueessa on IP-osoite palvelimen nimen sijaan.",
			"mx.private_address":    "sähköpostipalvelimen osoitteeseen ei pääse internetistä.",
			"dnssec.bogus":          "verkkotunnuksen DNSSEC-allekirjoitukset eivät kelpaa.",
			"smtp.unreachable":      "sähköpostipalvelin ei vastaa.",
			"smtp.refused":          "sähköpostipalvelin torjuu viestimme.",
			"mtasts.mx_mismatch":    "MTA-STS-käytäntö ei salli heidän omia sähköpostipalvelimiaan.",
			"dane.mismatch":         "palvelimen varmenne ei vastaa TLSA-tietueita.",
			"sender.spf_ip_missing": "oma SPF-tietueemme ei kata lähettävää osoitettamme.",
			"dmarc.not_aligned":     "DMARC ei toteudu viesteissämme.",
			"dkim.missing":          "DKIM-avaimemme puuttuu nimipalvelusta.",
			"dkim.mismatch":         "julkaistu DKIM-avain ei vastaa allekirjoitusavaintamme.",
			"ptr.missing":           "lähettävältä osoitteeltamme puuttuu PTR-tietue.",
			"dnsbl.listed":          "lähettävä osoitteemme on estolistalla.",
			"history.refused":       "viimeksi lähettämämme viestit on torjuttu.",
		},
	},
}

func phrasesOf(lang string) *phrases {
	if p := languages[lang]; p != nil {
		return p
	}
	return languages["en"]
}

// conclude gives the verdict, its sentence, and the one thing to do.
func (report *Report) conclude(s *survey, m *reception) {
	report.weigh(s)
	p := phrasesOf(s.options.Lang)
	decisive := report.decide(m)
	if decisive == nil && report.Verdict != Arrives {
		report.Verdict = Unknown
	}
	reason := ""
	if decisive != nil {
		reason = decisive.Text
		if local := p.reasons[decisive.Code]; local != "" {
			reason = local
		}
	}
	switch report.Verdict {
	case Unknown:
		report.Summary, report.Next, report.WhoActs = fmt.Sprintf(p.unknown, report.Domain), p.askAgain, Nobody
	case Undeliverable:
		report.Summary = fmt.Sprintf(p.undeliverable, report.Domain, reason)
		report.Next, report.WhoActs = p.cure(decisive, reason)
	case Held:
		report.Summary = fmt.Sprintf(p.held, report.Domain, reason)
		report.Next, report.WhoActs = p.cure(decisive, reason)
	case Arrives:
		report.WhoActs = Nobody
		switch {
		case report.Provider != nil && report.Behind != nil:
			report.Summary = fmt.Sprintf(p.arrivesBehind, report.Domain, report.Provider.Name, report.Behind.Name)
		case report.Provider != nil:
			report.Summary = fmt.Sprintf(p.arrivesAt, report.Domain, report.Provider.Name)
		default:
			report.Summary = fmt.Sprintf(p.arrives, report.Domain)
		}
		if report.Provider != nil && len(report.Allowlist) > 0 {
			report.Next = fmt.Sprintf(p.askAllow, report.Provider.Name)
		}
	}
}

// concludeOurs gives the verdict on our own side.
func (report *Report) concludeOurs(p *phrases) {
	report.Verdict, report.Summary, report.WhoActs = Arrives, p.oursWell, Nobody
	if i := slices.IndexFunc(report.Findings, func(f Finding) bool { return f.State == StateFail }); i >= 0 {
		f := &report.Findings[i]
		reason := f.Text
		if local := p.reasons[f.Code]; local != "" {
			reason = local
		}
		report.Verdict, report.Summary = Held, fmt.Sprintf(p.oursIll, reason)
		report.Next, report.WhoActs = p.cure(f, reason)
		return
	}
	if slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.State == StateUnknown }) {
		report.Verdict, report.Summary, report.Next = Unknown, p.oursUnknown, p.askAgain
	}
}

// cure is what has to be done about the finding that decided, and who does it.
func (p *phrases) cure(f *Finding, reason string) (string, Who) {
	switch f.Code {
	case "domain.nxdomain", "domain.invalid":
		return p.askSpelling, Nobody
	case "mx.null":
		return p.askOther, Nobody
	}
	if f.Fix != "" {
		reason = f.Fix
	}
	if f.Concerns == OurMail {
		return fmt.Sprintf(p.askUs, reason), Us
	}
	return fmt.Sprintf(p.askFix, reason), TheirIT
}

// weigh adds what our own deliveries have met.
func (report *Report) weigh(s *survey) {
	h := report.History
	if h == nil || h.Refused == 0 || h.Refused <= h.Accepted {
		return
	}
	var last []string
	if len(h.LastReplies) > 0 {
		last = h.LastReplies[:1]
	}
	s.add("history.refused", report.Domain, fmt.Sprintf("Since %s, %d of our messages were refused and %d handed over.", h.Since.Format("2006-01-02"), h.Refused, h.Accepted), shown(last...))
	report.Findings = s.sorted()
}

// decide sets the verdict and returns the finding that it rests on; nil if mail
// should arrive or nothing is known.
func (report *Report) decide(m *reception) *Finding {
	of := func(codes ...string) *Finding {
		for _, code := range codes {
			if i := slices.IndexFunc(report.Findings, func(f Finding) bool { return f.Code == code && f.State != StateInfo }); i >= 0 {
				return &report.Findings[i]
			}
		}
		return nil
	}
	grave := func(codes ...string) *Finding {
		if f := of(codes...); f != nil && f.State == StateFail {
			return f
		}
		return nil
	}
	if f := of("domain.invalid", "domain.nxdomain", "mx.null", "mx.none"); f != nil {
		report.Verdict = Undeliverable
		return f
	}
	if f := of("dnssec.bogus"); f != nil && !m.usable {
		report.Verdict = Undeliverable
		return f
	}
	if m.unknown {
		report.Verdict = Unknown
		return nil
	}
	if !m.usable {
		report.Verdict = Undeliverable
		return of("mx.private_address", "mx.ip_literal", "mx.target_nxdomain", "mx.target_no_address")
	}
	if f := grave("smtp.unreachable"); f != nil {
		report.Verdict = Undeliverable
		return f
	}
	report.Verdict = Held
	if f := grave("smtp.refused", "dane.mismatch"); f != nil {
		return f
	}
	if i := slices.IndexFunc(report.Findings, func(f Finding) bool { return f.Concerns == OurMail && f.State == StateFail }); i >= 0 {
		return &report.Findings[i]
	}
	if f := of("history.refused"); f != nil {
		return f
	}
	if f := grave("mtasts.mx_mismatch"); f != nil && report.uncovered(m) {
		return f
	}
	report.Verdict = Arrives
	return nil
}

// uncovered reports whether the MTA-STS policy leaves out every exchanger.
func (report *Report) uncovered(m *reception) bool {
	for _, h := range m.hosts {
		if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Code == "mtasts.mx_mismatch" && f.Subject == h.Name }) {
			return false
		}
	}
	return true
}
