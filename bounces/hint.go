package bounces

import (
	"strings"
	"time"
)

// waitHint finds the wait that a temporary refusal asks for: "try again in 300
// seconds", "come back in 00:05:00", "greylisted for 5 minutes", "retry after 1h". It
// returns 0 where there is none, or one outside 1 second to 24 hours: a server that
// asks for more is not to be believed.
func waitHint(text string) time.Duration {
	const longest = 24 * time.Hour
	asked := 0 // how many words ago one asked for a wait
	words := text
	for words != "" {
		var w string
		w, words = nextWord(words)
		if w == "" {
			break
		}
		if asksToWait(w) {
			asked = hintReach
			continue
		}
		if asked == 0 {
			continue
		}
		asked--
		d := clockWait(w)
		if d == 0 {
			d = countedWait(w, words)
		}
		if d >= time.Second && d <= longest {
			return d
		}
	}
	return 0
}

// hintReach is how many words may stand between the word that asks and the number:
// "retry .. message in about 5 minutes".
const hintReach = 6

// nextWord cuts the next run of letters, digits and colons from s.
func nextWord(s string) (word, rest string) {
	start := 0
	for start < len(s) && !isWordByte(s[start]) {
		start++
	}
	end := start
	for end < len(s) && isWordByte(s[end]) {
		end++
	}
	return strings.Trim(s[start:end], ":"), s[end:]
}

func isWordByte(c byte) bool { return isLetter(c) || isDigit(c) || c == ':' || c >= 0x80 }

// asksToWait reports whether w is a word with which servers ask for a wait.
func asksToWait(w string) bool {
	switch len(w) {
	case 4:
		return strings.EqualFold(w, "wait") || strings.EqualFold(w, "back")
	case 5:
		return strings.EqualFold(w, "again") || strings.EqualFold(w, "retry") || strings.EqualFold(w, "later") ||
			strings.EqualFold(w, "delay") || strings.EqualFold(w, "defer")
	case 6:
		return strings.EqualFold(w, "resend") || strings.EqualFold(w, "erneut")
	case 7:
		return strings.EqualFold(w, "delayed") || strings.EqualFold(w, "blocked")
	}
	return len(w) >= 8 && (hasFoldPrefix(w, "greylist") || hasFoldPrefix(w, "graylist") || hasFoldPrefix(w, "deferred") ||
		hasFoldPrefix(w, "reconnect") || hasFoldPrefix(w, "uudelleen") || hasFoldPrefix(w, "réessay"))
}

func hasFoldPrefix(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// clockWait reads "00:05:00" and "05:00".
func clockWait(w string) time.Duration {
	var parts [3]int
	n := 0
	for part := range strings.SplitSeq(w, ":") {
		v, digits := leadingNumber(part)
		if n == len(parts) || digits == 0 || digits != len(part) || digits > 2 {
			return 0
		}
		parts[n] = v
		n++
	}
	switch n {
	case 2:
		return time.Duration(parts[0])*time.Minute + time.Duration(parts[1])*time.Second
	case 3:
		return time.Duration(parts[0])*time.Hour + time.Duration(parts[1])*time.Minute + time.Duration(parts[2])*time.Second
	}
	return 0
}

// countedWait reads "300s", "300" with a unit as the next word of rest, and "a" or
// "one" with one.
func countedWait(w, rest string) time.Duration {
	n, digits := leadingNumber(w)
	if digits == 0 {
		if !strings.EqualFold(w, "an") && !strings.EqualFold(w, "one") && !strings.EqualFold(w, "a") {
			return 0
		}
		n, w = 1, ""
	} else {
		w = w[digits:]
	}
	if w == "" {
		w, _ = nextWord(rest)
	}
	return time.Duration(n) * unit(w)
}

// unit returns the length of a unit of time as servers write it, 0 for another word.
func unit(w string) time.Duration {
	switch {
	case strings.EqualFold(w, "s"), hasFoldPrefix(w, "sec"), hasFoldPrefix(w, "sek"):
		return time.Second
	case strings.EqualFold(w, "m"), hasFoldPrefix(w, "min"):
		return time.Minute
	case strings.EqualFold(w, "h"), hasFoldPrefix(w, "hour"), hasFoldPrefix(w, "hrs"), hasFoldPrefix(w, "stunde"),
		hasFoldPrefix(w, "heure"), hasFoldPrefix(w, "tunti"), hasFoldPrefix(w, "tunnin"):
		return time.Hour
	}
	return 0
}

// leadingNumber reads up to six digits at the start of w.
func leadingNumber(w string) (n, digits int) {
	for digits < len(w) && digits < 6 && isDigit(w[digits]) {
		n = n*10 + int(w[digits]-'0')
		digits++
	}
	return n, digits
}
