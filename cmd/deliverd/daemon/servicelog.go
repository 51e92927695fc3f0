package daemon

import (
	"context"
	"iter"
	"os"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/queue"
)

// lastWords is how long a stop waits for a store that takes no entries.
const lastWords = 3 * time.Second

// openServiceLog begins to write what the system notices and what people do.
func (d *Daemon) openServiceLog() {
	node, err := os.Hostname()
	if err != nil {
		node = "unnamed"
	}
	d.serviceLog = console.NewServiceLog(chain{d.queue}, node, nil, d.log)
	ctx, stop := context.WithCancel(context.Background())
	last, giveUp := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.serviceLog.Run(ctx, last)
	}()
	d.cleanups.add("service log", func(ctx context.Context) error {
		defer giveUp()
		ctx, cancel := context.WithTimeout(ctx, lastWords)
		defer cancel()
		defer context.AfterFunc(ctx, giveUp)()
		d.notice("stop", "", "")
		stop()
		<-done
		return nil
	})
	d.notice("start", "", "version "+d.version)
}

// notice writes into the service log what the system noticed or did by itself: act is
// what, on is about which thing, "" for none.
func (d *Daemon) notice(act, on, detail string) {
	d.serviceLog.Note(console.LogEntry{Act: act, On: on, Detail: detail})
}

// chain is the queue's, in the console's words.
type chain struct{ queue *queue.Queue }

func (c chain) Link(ctx context.Context, id string, next func(last []byte) ([]byte, error)) error {
	return c.queue.Link(ctx, id, next)
}

func (c chain) Links(ctx context.Context, after uint64) iter.Seq2[console.ChainRecord, error] {
	return func(yield func(console.ChainRecord, error) bool) {
		for r, err := range c.queue.Links(ctx, after) {
			if !yield(console.ChainRecord{Seq: r.Seq, Data: r.Data}, err) {
				return
			}
		}
	}
}

func (c chain) LinkBounds(ctx context.Context) (first, last uint64, err error) {
	return c.queue.LinkBounds(ctx)
}
