package bounces

import (
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

const (
	// oftenMost is how many mails about one message are taken in oftenSpan. A report, its
	// repetitions, a few delay notices and a vacation are a handful; whoever sends the
	// thousandth has seen one return path and plays it again (FAULTS E05). More are put
	// off, not lost.
	oftenMost = 50
	oftenSpan = time.Hour
	// oftenMany bounds the messages that are counted at once; beyond it counting begins
	// anew, as listening to many is what matters.
	oftenMany = 100_000
)

// often counts the mails about each message. The zero value is ready.
type often struct {
	mu    sync.Mutex
	since time.Time
	count map[mail.ID]int
}

// tooOften counts a mail about a message, and reports whether it is one too many.
func (o *often) tooOften(id mail.ID, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == nil || now.Sub(o.since) >= oftenSpan || len(o.count) >= oftenMany {
		o.since, o.count = now, make(map[mail.ID]int)
	}
	o.count[id]++
	return o.count[id] > oftenMost
}
