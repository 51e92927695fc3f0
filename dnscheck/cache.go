package dnscheck

import (
	"container/list"
	"time"
)

// entryOverhead is what an entry costs besides its answer's bytes on the wire:
// the parsed records, the key, the list's element.
const entryOverhead = 600

// cache remembers answers until they are too old, the least recently used making
// room. Guarded by the resolver's mutex.
type cache struct {
	limit   int // bytes
	size    int
	order   *list.List // of *entry, the most recently used first
	entries map[question]*list.Element
}

type entry struct {
	question question
	answer   *answer
	until    time.Time
}

func newCache(limit int) *cache {
	return &cache{limit: limit, order: list.New(), entries: map[question]*list.Element{}}
}

func (c *cache) get(q question, now time.Time) *answer {
	element := c.entries[q]
	if element == nil {
		return nil
	}
	e := element.Value.(*entry)
	if !now.Before(e.until) {
		c.drop(element)
		return nil
	}
	c.order.MoveToFront(element)
	return e.answer
}

func (c *cache) put(q question, a *answer, now time.Time) {
	if a.keep <= 0 {
		return
	}
	if old := c.entries[q]; old != nil {
		c.drop(old)
	}
	c.entries[q] = c.order.PushFront(&entry{q, a, now.Add(a.keep)})
	c.size += a.size + entryOverhead
	for c.size > c.limit && c.order.Len() > 0 {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(element *list.Element) {
	e := c.order.Remove(element).(*entry)
	delete(c.entries, e.question)
	c.size -= e.answer.size + entryOverhead
}
