package deliver

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// oracle is a server made of arbitrary bytes, without a goroutine or a clock: what it
// says after the n-th write of the client is the n-th piece of them. Where it has
// nothing to say, the client's deadline passes.
type oracle struct {
	net.Conn
	pieces [][]byte
	wrote  int
	sent   bytes.Buffer
	closed bool
	// last is what the server had to say from the final dot on.
	last   []byte
	dotted bool
}

func (o *oracle) Read(b []byte) (int, error) {
	if o.closed {
		return 0, net.ErrClosed
	}
	for i := range o.pieces {
		if i > o.wrote {
			return 0, os.ErrDeadlineExceeded
		}
		if len(o.pieces[i]) > 0 {
			n := copy(b, o.pieces[i])
			o.pieces[i] = o.pieces[i][n:]
			return n, nil
		}
	}
	return 0, io.EOF
}

func (o *oracle) Write(b []byte) (int, error) {
	if o.closed {
		return 0, net.ErrClosed
	}
	o.wrote++
	o.sent.Write(b)
	if bytes.HasSuffix(b, []byte("Goodbye\r\n.\r\n")) {
		o.dotted = true
		o.last = bytes.Join(o.pieces[:min(o.wrote+1, len(o.pieces))], nil)
	}
	return len(b), nil
}

func (o *oracle) Close() error                     { o.closed = true; return nil }
func (o *oracle) SetDeadline(time.Time) error      { return nil }
func (o *oracle) SetReadDeadline(time.Time) error  { return nil }
func (o *oracle) SetWriteDeadline(time.Time) error { return nil }

// yes is a complete positive reply, in other words than the reader's.
var yes = regexp.MustCompile(`^(2[0-9][0-9]-[^\n]*\n)*2[0-9][0-9]( [^\n]*)?\r?\n`)

// The laws of the conversation: whatever a server says, the attempt ends, in one
// outcome; an accept is never claimed without a complete 2xx to the final dot; what
// may have been taken is said to be so; and a definite no is one.
func FuzzConversation(f *testing.F) {
	const sep = "\xff"
	for _, s := range []string{
		"220 mx\r\n" + sep + "250-mx\r\n250 PIPELINING\r\n" + sep + "250 ok\r\n250 ok\r\n354 go\r\n" + sep + "250 ok\r\n" + sep + "221 bye\r\n",
		"220 mx\r\n" + sep + "250 mx\r\n" + sep + "250 ok\r\n" + sep + "250 ok\r\n" + sep + "354 go\r\n" + sep + "250 ok\r\n",
		"220 mx\r\n" + sep + "250 mx\r\n" + sep + "250 ok\r\n" + sep + "550 5.1.1 no\r\n",
		"220 mx\r\n" + sep + "250-mx\r\n250 PIPELINING\r\n" + sep + "250 ok\r\n550 no\r\n354 go\r\n" + sep + "250 ok\r\n",
		"220 mx\r\n" + sep + "250-mx\r\n250 PIPELINING\r\n" + sep + "250 ok\r\n250 ok\r\n354 go\r\n250 early\r\n" + sep + "250 ok\r\n",
		"220 mx\r\n" + sep + "250-mx\r\n250 PIPELINING\r\n" + sep + "250 ok\r\n250 ok\r\n354 go\r\n" + sep + "250 2.0.0 que",
		"220 mx\r\n" + sep + "250-mx\r\n250-STARTTLS\r\n250 SIZE 100\r\n" + sep + "454 no\r\n" + sep,
		"220 mx\r\n" + sep + "500 what\r\n" + sep + "250 mx\r\n" + sep + "421 bye\r\n",
	} {
		f.Add([]byte(s))
	}
	m := testMessage()
	f.Fuzz(func(t *testing.T, in []byte) {
		var last *oracle
		o := testOptions(t, smtptest.NewNetwork(nil, nil), twoHosts(nil))
		o.Log = nil
		o.Pool.Messages = 1
		o.Dial = func(context.Context, string, string) (net.Conn, error) {
			last = &oracle{pieces: bytes.Split(bytes.Clone(in), []byte(sep))}
			return last, nil
		}
		d := newDeliverer(t, o)
		got := d.Attempt(t.Context(), &mail.Attempt{Message: m, Number: 2})
		d.Close()
		switch {
		case got.State == mail.StateAccepted:
			if !last.dotted || !yes.Match(last.last) || got.PossibleDuplicate {
				t.Fatalf("accepted, and the dot was answered with %q", last.last)
			}
		case got.State != mail.StateDelayed && got.State != mail.StateRefused, got.Cause == "":
			t.Fatalf("got %+v", got)
		case got.State == mail.StateRefused && (got.PossibleDuplicate || got.Evidence.Reply == nil && got.Cause != mail.CauseTooLarge && got.Cause != mail.CauseLoop):
			t.Fatalf("refused by %+v", got)
		case got.PossibleDuplicate != (last.dotted && got.Evidence.Stage == mail.StageDot && got.Evidence.Reply == nil):
			t.Fatalf("possible duplicate %v, dot sent %v, %+v", got.PossibleDuplicate, last.dotted, got.Evidence)
		case last.dotted && got.Evidence.Reply == nil && !got.PossibleDuplicate:
			t.Fatalf("the dot was sent, nobody said no, and it is no possible duplicate: %+v", got)
		}
		if got.Evidence.Reply != nil {
			checkSaid(t, *got.Evidence.Reply)
		}
	})
}
