package smtptest

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// Behaviour is how a Sink treats mail to an address. The zero value accepts it.
type Behaviour struct {
	// Greylist refuses the first attempts with a 451, as many as it says.
	Greylist int
	// Reply, such as "550 5.1.1 No such user", is given at Stage; "" accepts.
	Reply string
	// Delay is waited at Stage before anything is said there.
	Delay time.Duration
	// Vanish closes the connection at Stage instead of answering.
	Vanish bool
	// Stall never answers at Stage; the connection stays until the client leaves.
	Stall bool
	// Lose, at the dot only: takes the message, counts it, and closes without a reply
	// (RFC 1047).
	Lose bool
	// Stage is StageRcpt, StageData or StageDot; "" is StageRcpt.
	Stage Stage
}

// Stage is where a Behaviour shows.
type Stage string

// The stages at which the recipient is known.
const (
	StageRcpt Stage = "rcpt"
	StageData Stage = "data" // before 354
	StageDot  Stage = "dot"
)

// Rule gives the addresses that match Pattern a Behaviour. A pattern is a whole
// address, or a shell pattern over one in lower case: "refuse*@*", "*@gone.example".
type Rule struct {
	Pattern   string
	Behaviour Behaviour
}

// Newcomers are rules by which a rehearsal can be played without any configuration:
// what an address begins with is what happens to its mail.
func Newcomers() []Rule {
	return []Rule{
		{"greylist*@*", Behaviour{Greylist: 2}},
		{"refuse*@*", Behaviour{Reply: "550 5.1.1 <recipient>: Recipient address rejected: User unknown"}},
		{"full*@*", Behaviour{Reply: "452 4.2.2 The recipient's mailbox is over its quota"}},
		{"spam*@*", Behaviour{Reply: "554 5.7.1 Message rejected as spam by content filtering", Stage: StageDot}},
		{"busy*@*", Behaviour{Reply: "421 4.7.0 Too many connections, try again in 60 seconds"}},
		{"slow*@*", Behaviour{Delay: 5 * time.Second, Stage: StageDot}},
		{"stall*@*", Behaviour{Stall: true, Stage: StageData}},
		{"vanish*@*", Behaviour{Vanish: true, Stage: StageData}},
		{"lose*@*", Behaviour{Lose: true, Stage: StageDot}},
	}
}

// ParseBehaviour reads a behaviour as a person writes it, "WHAT [at STAGE]":
//
//	accept
//	greylist 3
//	refuse 550 5.1.1 no such user
//	refuse 554 5.7.1 looks like spam at dot
//	delay 5s at dot
//	stall at data
//	vanish at rcpt
//	lose
func ParseBehaviour(s string) (Behaviour, error) {
	b := Behaviour{Stage: StageRcpt}
	words := strings.Fields(s)
	if n := len(words); n >= 2 && words[n-2] == "at" {
		switch stage := Stage(words[n-1]); stage {
		case StageRcpt, StageData, StageDot: // anything else may be a reply's text
			b.Stage = stage
			words = words[:n-2]
		}
	}
	if len(words) == 0 {
		return Behaviour{}, fmt.Errorf("behaviour %q: %w", s, errBehaviour)
	}
	rest := strings.Join(words[1:], " ")
	if err := b.parse(words[0], rest); err != nil {
		return Behaviour{}, fmt.Errorf("behaviour %q: %w", s, err)
	}
	return b, nil
}

var errBehaviour = errors.New("use accept, greylist N, refuse REPLY, delay TIME, stall, vanish or lose, and after it: at rcpt, at data or at dot")

func (b *Behaviour) parse(what, rest string) (err error) {
	switch what {
	case "greylist":
		b.Greylist, err = strconv.Atoi(rest)
		return err
	case "refuse":
		b.Reply = rest
		if !validReply(rest) {
			return errors.New("a reply begins with a code from 400 to 599")
		}
		return nil
	case "delay":
		b.Delay, err = time.ParseDuration(rest)
		return err
	case "accept":
	case "stall":
		b.Stall = true
	case "vanish":
		b.Vanish = true
	case "lose":
		b.Lose, b.Stage = true, StageDot
	default:
		return errBehaviour
	}
	if rest != "" {
		return errBehaviour
	}
	return nil
}

// String writes a behaviour as ParseBehaviour reads it.
func (b Behaviour) String() string {
	var s string
	switch {
	case b.Greylist > 0:
		s = "greylist " + strconv.Itoa(b.Greylist)
	case b.Reply != "":
		s = "refuse " + b.Reply
	case b.Lose:
		return "lose"
	case b.Vanish:
		s = "vanish"
	case b.Stall:
		s = "stall"
	case b.Delay > 0:
		s = "delay " + b.Delay.String()
	default:
		return "accept"
	}
	if b.Stage == "" || b.Stage == StageRcpt {
		return s
	}
	return s + " at " + string(b.Stage)
}

func validReply(s string) bool {
	return len(s) >= 3 && (s[0] == '4' || s[0] == '5') && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9' &&
		(len(s) == 3 || s[3] == ' ')
}

// rules finds behaviours. Exact addresses are looked up, patterns tried in order.
type rules struct {
	exact    map[string]Behaviour
	patterns []Rule
}

// Bounds of what a Sink can be told.
const (
	maxExact    = 100_000
	maxPatterns = 1000
)

func (r *rules) add(rule Rule) error {
	pattern := strings.ToLower(rule.Pattern)
	if !strings.ContainsAny(pattern, "*?[") {
		if r.exact == nil {
			r.exact = make(map[string]Behaviour)
		}
		if _, known := r.exact[pattern]; !known && len(r.exact) >= maxExact {
			return fmt.Errorf("smtptest: more than %d addresses have rules", maxExact)
		}
		r.exact[pattern] = rule.Behaviour
		return nil
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("smtptest: pattern %q: %w", rule.Pattern, err)
	}
	for i := range r.patterns {
		if r.patterns[i].Pattern == pattern {
			r.patterns[i].Behaviour = rule.Behaviour
			return nil
		}
	}
	if len(r.patterns) >= maxPatterns {
		return fmt.Errorf("smtptest: more than %d patterns", maxPatterns)
	}
	r.patterns = append(r.patterns, Rule{pattern, rule.Behaviour})
	return nil
}

// find returns the behaviour for an address: the exact one, else that of the last
// pattern that was added and matches.
func (r *rules) find(address string) Behaviour {
	if len(r.exact) == 0 && len(r.patterns) == 0 {
		return Behaviour{}
	}
	address = strings.ToLower(address)
	if b, ok := r.exact[address]; ok {
		return b
	}
	for i := len(r.patterns) - 1; i >= 0; i-- {
		if ok, _ := path.Match(r.patterns[i].Pattern, address); ok {
			return r.patterns[i].Behaviour
		}
	}
	return Behaviour{}
}
