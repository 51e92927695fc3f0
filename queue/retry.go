package queue

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

const (
	// hintCap is the longest wait that a server may ask for, unless the kind's own
	// waits are longer: an hour is what greylisting and rate limits ask for at most;
	// more is a mistake, or an outage that ends earlier.
	hintCap = time.Hour
	// lastMargin is how long before expiry the last attempt is placed: DNS, a slow
	// greeting and a body fit into it on most days.
	lastMargin = 30 * time.Second
	// jitterPart of a wait is the most that chance adds to it.
	jitterPart = 10
)

// retry is when a message is tried again.
type retry struct {
	wait time.Duration // from now on; never past the time left
	// attempt: there is one. Without it wait ends at expiry.
	attempt bool
	// atRisk: by the schedule alone the next attempt would come too late.
	atRisk bool
}

// retryAfter is the schedule: a pure function of the kind, the number of the attempt
// that has just ended (from 1), the time left until expiry, and the wait that the
// server's text asked for (0: none).
//
// The server's wish is followed whether it is longer or shorter than the kind's own
// wait, but never below the kind's first wait and never above the longer of an hour
// and the kind's longest. An attempt that would come later than shortly before
// expiry is placed there; if even that is sooner than half the first wait from now,
// no attempt follows.
func retryAfter(k mail.Kind, attempt int, left, hint time.Duration) retry {
	waits := k.Retries
	if len(waits) == 0 {
		waits = []time.Duration{time.Minute}
	}
	w := waits[min(max(attempt, 1), len(waits))-1]
	if hint > 0 {
		w = min(max(hint, waits[0]), max(hintCap, waits[len(waits)-1]))
	}
	r := retry{wait: w, attempt: true, atRisk: w >= left}
	margin := lastMargin
	if k.ValidFor > 0 {
		margin = min(margin, k.ValidFor/20)
	}
	if latest := left - margin; w > latest {
		r.wait = latest
		if latest < waits[0]/2 {
			r.wait, r.attempt, r.atRisk = max(left, 0), false, true
		}
	}
	return r
}

// jittered adds up to a tenth of the wait, chance being in [0, 1), so that messages
// refused together do not come back together, and never past the last place.
func jittered(r retry, left time.Duration, chance float64) time.Duration {
	if !r.attempt {
		return r.wait
	}
	room := min(r.wait/jitterPart, max(left-lastMargin-r.wait, 0))
	return r.wait + time.Duration(chance*float64(room))
}
