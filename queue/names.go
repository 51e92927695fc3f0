package queue

// names gives every distinct string a small number for as long as something uses it,
// so that a million items hold numbers and no strings.
type names struct {
	list   []name
	free   []uint32
	byName map[string]uint32
}

type name struct {
	text string
	uses int
}

// hold returns the number of s and counts one more use of it.
func (n *names) hold(s string) uint32 {
	if n.byName == nil {
		n.byName = map[string]uint32{}
	}
	h, ok := n.byName[s]
	if !ok {
		if last := len(n.free) - 1; last >= 0 {
			h = n.free[last]
			n.free = n.free[:last]
		} else {
			h = uint32(len(n.list))
			n.list = append(n.list, name{})
		}
		n.list[h].text = s
		n.byName[s] = h
	}
	n.list[h].uses++
	return h
}

// drop takes one use back.
func (n *names) drop(h uint32) {
	n.list[h].uses--
	if n.list[h].uses == 0 {
		delete(n.byName, n.list[h].text)
		n.list[h].text = ""
		n.free = append(n.free, h)
	}
}

func (n *names) text(h uint32) string { return n.list[h].text }
