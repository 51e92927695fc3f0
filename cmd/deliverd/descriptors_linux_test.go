package main

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestF17FewDescriptors takes nearly all file descriptors from a daemon that works.
// What can't be dialled waits, at no cost of attempts; when there are descriptors again,
// all is handed over once.
func TestF17FewDescriptors(t *testing.T) {
	t.Parallel()
	const all, spare = 60, 8
	gate := make(chan struct{})
	w := newWorld(t, smtptest.SinkOptions{Ledger: true, OnMail: func(smtptest.Mail) { <-gate }}, "")
	p := w.start(t)
	c := w.client(t)
	if _, err := c.SendAndWait(t.Context(), invite("4711", "first@nomail.example"), 0); err != nil {
		t.Fatal(err) // and its connection stays open for the rest
	}
	pid := p.cmd.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	few := unix.Rlimit{Cur: uint64(len(open) + spare), Max: 1 << 20}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	few.Max = before.Max
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	sent := make(chan mail.ID, all)
	go func() {
		defer close(sent)
		for i := range all {
			m := invite("4711", fmt.Sprintf("kari%d@company%d.example", i, i))
			m.IdempotencyKey = m.To
			for t.Context().Err() == nil {
				if r, err := c.Send(t.Context(), m); err == nil {
					sent <- r.ID
					break
				}
			}
		}
	}()
	eventually(t, "connections were as many as there can be", func() bool { return w.sink.Stats().Accepted > 0 })
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	close(gate)
	var ids []mail.ID
	for id := range sent {
		ids = append(ids, id)
	}
	for range waitSettled(t, c, w.sink, ids) {
		break
	}
	for _, id := range ids {
		m, events := storyOf(t, c, id)
		if m.State != mail.StateAccepted || m.PossibleDuplicate || w.sink.Ledger()["<"+string(id)+"@acme.example>"] != 1 {
			t.Errorf("%s: %s, %v", id, m.State, states(events))
		}
		for _, a := range m.Attempts {
			if a.Number != 1 {
				t.Errorf("%s: attempt %d, though none of the server's had failed", id, a.Number)
			}
		}
	}
}
