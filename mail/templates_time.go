package mail

import (
	"fmt"
	"strings"
	"time"
)

// timeStyle is how a language writes a time of the day and a date, in Go's reference
// time.
type timeStyle struct {
	clock, date string   // with marks where zone and month go
	months      []string // January first; nil for the English names
}

// A zone's or month's name is put in after Format, as it may contain what Format takes
// for a part of a time.
const zoneMark, monthMark = "\x01", "\x02"

func newTimeStyle(clock, date string, months []string) timeStyle {
	marks := strings.NewReplacer("MST", zoneMark, "January", monthMark)
	return timeStyle{marks.Replace(clock), marks.Replace(date), months}
}

// near is how close an expiry must be to be told by the clock alone: shorter than from
// an evening to the next day's same hour.
const near = 18 * time.Hour

// parseTimeStyle reads the head of a footer.
func parseTimeStyle(footer source) (timeStyle, source, error) {
	head, body, err := splitHead(footer, "clock", "date", "months")
	if err != nil {
		return timeStyle{}, body, err
	}
	clock, date := head["clock"].value, head["date"].value
	if clock == "" || date == "" {
		return timeStyle{}, body, fmt.Errorf(`%s:1: the file must begin with lines "clock: …" and "date: …"`, footer.origin)
	}
	var months []string
	if names := head["months"].value; names != "" {
		months = strings.Split(names, ",")
		if len(months) != 12 {
			return timeStyle{}, body, fmt.Errorf(`%s:%d: "months:" names %d months, not 12`, footer.origin, head["months"].line, len(months))
		}
	}
	return newTimeStyle(clock, date, months), body, nil
}

// until tells an expiry, as seen from a mail's date: by the clock if it is near.
func (s timeStyle) until(expires, from time.Time, zone *time.Location) string {
	if expires.Sub(from) < near {
		return s.format(s.clock, expires.In(zone))
	}
	return s.untilDate(expires, zone)
}

func (s timeStyle) untilDate(expires time.Time, zone *time.Location) string {
	return s.format(s.date, expires.In(zone))
}

// format is t.Format with the language's months, and with a name for zones that have
// only a number: "UTC+3" rather than "+03".
func (s timeStyle) format(layout string, t time.Time) string {
	month := t.Month().String()
	if s.months != nil {
		month = strings.TrimSpace(s.months[t.Month()-1])
	}
	out := strings.ReplaceAll(t.Format(layout), monthMark, month)
	return strings.ReplaceAll(out, zoneMark, zoneName(t))
}

// zoneName returns the name that people know t's zone by: "EET", "UTC-3", "UTC+5:45".
func zoneName(t time.Time) string {
	name, offset := t.Zone()
	if name != "" && name[0] != '+' && name[0] != '-' {
		return name
	}
	sign := '+'
	if offset < 0 {
		sign, offset = '-', -offset
	}
	if minutes := offset / 60 % 60; minutes != 0 {
		return fmt.Sprintf("UTC%c%d:%02d", sign, offset/3600, minutes)
	}
	return fmt.Sprintf("UTC%c%d", sign, offset/3600)
}
