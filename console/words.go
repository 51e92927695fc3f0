package console

import (
	"embed"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed lang/*.json
var langFiles embed.FS

// languages are the languages of stories; each is one file in lang. Their phrases
// are complete: a test compares them.
var languages = [...]string{"en", "fi"}

// phrases is one language file: phrases by name, with {placeholders}.
type phrases map[string]string

// loadPhrases reads the language files, which are part of the program: they are
// read once, and a bad one is a mistake that the tests find.
var loadPhrases = sync.OnceValue(func() map[string]phrases {
	all := map[string]phrases{}
	for _, lang := range languages {
		b, err := langFiles.ReadFile("lang/" + lang + ".json")
		if err != nil {
			panic(err)
		}
		var p phrases
		if err := json.Unmarshal(b, &p); err != nil {
			panic(fmt.Errorf("lang/%s.json: %w", lang, err))
		}
		all[lang] = p
	}
	return all
})

// language returns the language that a story is told in when lang is asked for:
// "fi" for "fi-FI", and "en" for what isn't known.
func language(lang string) string {
	lang, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(lang)), "-")
	if _, ok := loadPhrases()[lang]; ok {
		return lang
	}
	return "en"
}

// words speaks one language at one moment.
type words struct {
	lang    string
	phrases phrases
	now     time.Time
	zone    *time.Location
}

func newWords(lang string, now time.Time, zone *time.Location) words {
	if zone == nil {
		zone = time.UTC
	}
	lang = language(lang)
	return words{lang: lang, phrases: loadPhrases()[lang], now: now.In(zone), zone: zone}
}

// has reports whether there is a phrase of this name.
func (w words) has(name string) bool { return w.phrases[name] != "" }

// say returns the phrase with its placeholders filled: name, value, name, value …
func (w words) say(name string, fill ...string) string {
	text := w.phrases[name]
	if len(fill) == 0 {
		return text
	}
	pairs := make([]string, 0, len(fill))
	for i := 0; i+1 < len(fill); i += 2 {
		pairs = append(pairs, "{"+fill[i]+"}", fill[i+1])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// clock returns the time of day, with the date when it is not today's.
func (w words) clock(t time.Time) string {
	t = t.In(w.zone)
	layout := w.say("time.today")
	if y, m, d := t.Date(); y != w.now.Year() || m != w.now.Month() || d != w.now.Day() {
		layout = w.say("time.other_day")
		if y != w.now.Year() {
			layout = w.say("time.other_year")
		}
	}
	return t.Format(layout)
}

// day names a day: "Today", "Yesterday", "Monday 2 March".
func (w words) day(t time.Time) string {
	t = t.In(w.zone)
	y, m, d := t.Date()
	switch ny, nm, nd := w.now.Date(); {
	case y == ny && m == nm && d == nd:
		return w.say("day.today")
	case time.Date(y, m, d, 0, 0, 0, 0, time.UTC).AddDate(0, 0, 1).Equal(time.Date(ny, nm, nd, 0, 0, 0, 0, time.UTC)):
		return w.say("day.yesterday")
	}
	layout := "day.date"
	if y != w.now.Year() {
		layout = "day.date.year"
	}
	return w.say("day.other", "weekday", w.say("weekday."+strconv.Itoa(int(t.Weekday()))), "date", t.Format(w.say(layout)))
}

// ago returns t as seen from now, before or after it: "12 minutes ago", "in 3 hours".
func (w words) ago(t time.Time) string {
	switch d := w.now.Sub(t); {
	case d >= time.Second:
		return w.count("ago", d)
	case d <= -time.Second:
		return w.count("in", -d)
	}
	return w.say("now")
}

// span returns how long something lasted: "2 seconds".
func (w words) span(d time.Duration) string { return w.count("for", max(d, 0)) }

// count says d in its largest unit, and exactly enough: 90 seconds are not "1
// minute".
func (w words) count(prefix string, d time.Duration) string {
	unit, n := "second", roundTo(d, time.Second)
	switch {
	case d >= 47*time.Hour+30*time.Minute:
		unit, n = "day", roundTo(d, 24*time.Hour)
	case d >= 119*time.Minute+30*time.Second:
		unit, n = "hour", roundTo(d, time.Hour)
	case d >= 119*time.Second+500*time.Millisecond:
		unit, n = "minute", roundTo(d, time.Minute)
	}
	form := "many"
	if n == 1 {
		form = "one"
	}
	return w.say(prefix+"."+unit+"."+form, "n", strconv.Itoa(n))
}

func roundTo(d, unit time.Duration) int { return int((d + unit/2) / unit) }
