package queue

import "time"

// aheadMost bounds a list of attempts ahead: a PIN has fewer, an invite's seven days
// have some thirty.
const aheadMost = 50

// Ahead lists when the attempts that are left begin, the next one first, if each of
// them fails at once and the servers ask for no other wait.
func (q *Queue) Ahead(s Status) []time.Time {
	kind, ok := q.o.Kinds[s.Message.Kind]
	if !ok || !s.State.Open() {
		return nil
	}
	var times []time.Time
	at := s.Next
	for attempt := s.Attempts + 1; at.Before(s.Message.ExpiresAt) && len(times) < aheadMost; attempt++ {
		times = append(times, at)
		r := retryAfter(kind, attempt, s.Message.ExpiresAt.Sub(at), 0)
		if !r.attempt {
			break
		}
		at = at.Add(r.wait)
	}
	return times
}
