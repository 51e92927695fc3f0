package queue

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func FuzzRecord(f *testing.F) {
	r := record{Message: mail.Message{ID: mail.NewID(epoch), To: "kari@nordlys.example"}, State: mail.StateDelayed, sealed: []byte("sealed")}
	b, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{recordVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Skip() // a time that JSON reads and can't write
		}
		r2, err := decodeRecord(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := r2.encode(); err != nil || !bytes.Equal(again, third) {
			t.Errorf("what was read and written reads differently: %v", err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add("delayed", int64(1), int64(2), 3, true, "nordlys.example", "pin", "tenant with spaces %20")
	f.Add("queued", int64(1), int64(2), 0, true, "nordlys.example", "pin", "")
	f.Fuzz(func(t *testing.T, state string, due, exp int64, attempts int, keyed bool, domain, kind, tenant string) {
		x := index{state: mail.StateDelayed, due: due, exp: exp, attempts: attempts, keyed: keyed, wish: flagCancelled,
			writer: "w", domain: "nordlys.example", kind: kind, tenant: tenant}
		if kind == "" {
			return // Enqueue knows no such kind
		}
		got, err := decodeIndex(strings.TrimSpace(x.encode())) // as headers are
		if err != nil || got != x {
			t.Errorf("%+v came back as %+v, %v", x, got, err)
		}
		_, _ = decodeIndex(state + domain) // must not panic
	})
}

func TestRecordHoldsNoSecretInClear(t *testing.T) {
	t.Parallel()
	m := mail.Message{ID: mail.NewID(epoch), Data: map[string]any{"code": "917342", "n": json.Number("123456789012345678901")}}
	r := &record{Message: m, State: mail.StateQueued}
	ring := NewKeyRing()
	if err := r.sealData(ring, time.Now()); err != nil {
		t.Fatal(err)
	}
	b, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("917342")) {
		t.Error("the record shows the code")
	}
	got, err := decodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := got.openData(ring)
	if err != nil || opened.Data["code"] != "917342" || opened.Data["n"] != json.Number("123456789012345678901") {
		t.Errorf("opened %v, %v", opened.Data, err)
	}
}

func TestOutboxMark(t *testing.T) {
	t.Parallel()
	o := newOutbox()
	for rev := uint64(1); rev <= 5; rev++ {
		o.saw(rev, rev != 3)
	}
	o.said(1)
	o.said(4)
	if m := o.mark(); m != 1 {
		t.Errorf("mark %d with 2 unsaid, want 1", m)
	}
	o.said(2)
	if m := o.mark(); m != 4 {
		t.Errorf("mark %d with 5 unsaid, want 4", m)
	}
	o.said(5)
	o.said(7) // before the feed came by
	o.saw(6, true)
	o.saw(7, true)
	if m := o.mark(); m != 5 {
		t.Errorf("mark %d with 6 unsaid, want 5", m)
	}
	o.said(6)
	o.said(8) // replaced before the feed came by
	o.saw(9, false)
	if m := o.mark(); m != 9 || len(o.early) != 0 || len(o.open) != 0 {
		t.Errorf("mark %d, %d early, %d open", m, len(o.early), len(o.open))
	}
}
