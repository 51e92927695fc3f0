package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/queue"
)

const (
	format       = 1
	nameHead     = "backup.json"
	nameManifest = "manifest.json"
	nameSum      = "manifest.sha256" // of the manifest, in hex, as sha256sum has it
	nameStream   = "stream.json"
	pieceSize    = 4 << 20  // of lines, before compression
	entryMost    = 64 << 20 // that a reader believes in
)

// Head is the file's first entry.
type Head struct {
	Format  int       `json:"format"`
	Began   time.Time `json:"began"`
	Version string    `json:"version"` // of the deliverd that made it
}

// manifest is the last entry: without it the file broke off.
type manifest struct {
	Entries []entrySum        `json:"entries"`
	Last    map[string]uint64 `json:"last"` // the last place of each stream, of a message that is gone too
}

type entrySum struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// line is one message in a piece.
type line struct {
	Seq     uint64      `json:"seq"`
	Subject string      `json:"subject"`
	Time    time.Time   `json:"time"`
	Header  nats.Header `json:"header,omitempty"`
	Data    []byte      `json:"data,omitempty"`
}

// writer writes the file front to back.
type writer struct {
	tar      *tar.Writer
	began    time.Time
	manifest manifest
	stream   string
	pieces   map[string]int // by stream, that are written
	buf      bytes.Buffer
	gz       *gzip.Writer
	lines    *json.Encoder
	raw      int // bytes of lines in buf, before compression
}

func newWriter(w io.Writer, h Head) (*writer, error) {
	out := &writer{tar: tar.NewWriter(w), began: h.Began, manifest: manifest{Last: map[string]uint64{}}, pieces: map[string]int{}}
	return out, out.entryJSON(nameHead, h)
}

func (w *writer) entryJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.entry(name, b)
}

func (w *writer) entry(name string, b []byte) error {
	sum := sha256.Sum256(b)
	w.manifest.Entries = append(w.manifest.Entries, entrySum{name, int64(len(b)), hex.EncodeToString(sum[:])})
	err := w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(b)), ModTime: w.began, Format: tar.FormatPAX})
	if err == nil {
		_, err = w.tar.Write(b)
	}
	return err
}

// begin begins a stream.
func (w *writer) begin(c jetstream.StreamConfig) error {
	w.stream = c.Name
	return w.entryJSON(c.Name+"/"+nameStream, c)
}

// resume goes on with a stream that was begun before.
func (w *writer) resume(stream string) { w.stream = stream }

// Write counts what goes into a piece.
func (w *writer) Write(p []byte) (int, error) {
	w.raw += len(p)
	return w.gz.Write(p)
}

func (w *writer) message(m *line) error {
	if w.gz == nil {
		// The text is half ciphertext: more effort gains little.
		w.gz, _ = gzip.NewWriterLevel(&w.buf, gzip.BestSpeed) // the level is a known one
		w.lines = json.NewEncoder(w)
		w.lines.SetEscapeHTML(false)
	}
	if err := w.lines.Encode(m); err != nil {
		return err
	}
	if w.raw < pieceSize {
		return nil
	}
	return w.flush()
}

// flush writes the piece at hand.
func (w *writer) flush() error {
	if w.raw == 0 {
		return nil
	}
	if err := w.gz.Close(); err != nil {
		return err
	}
	w.pieces[w.stream]++
	err := w.entry(fmt.Sprintf("%s/%08d.jsonl.gz", w.stream, w.pieces[w.stream]), w.buf.Bytes())
	w.buf.Reset()
	w.gz.Reset(&w.buf)
	w.raw = 0
	return err
}

// end ends a stream, whose last place is or was that one.
func (w *writer) end(last uint64) error {
	w.manifest.Last[w.stream] = last
	return w.flush()
}

func (w *writer) close() error {
	if err := w.entryJSON(nameManifest, w.manifest); err != nil {
		return err
	}
	sum := w.manifest.Entries[len(w.manifest.Entries)-1].SHA256
	if err := w.entry(nameSum, []byte(sum)); err != nil {
		return err
	}
	return w.tar.Close()
}

// visitor is what a reader calls. Nil functions are not called.
type visitor struct {
	stream  func(jetstream.StreamConfig) error
	message func(stream string, m *queue.Stored) error
}

// contents is what a reader has found.
type contents struct {
	head    Head
	first   map[string]uint64 // the lowest place of each stream that has messages here
	last    map[string]uint64 // the last place of each stream
	streams []string
	// damage says what is not as it was written, in sentences.
	damage []string
}

// read reads a file to its end, past damage as far as there is a way. Its error is of
// the visitor, of reading, or that this is no backup at all.
func read(r io.Reader, v visitor) (c contents, err error) {
	in := &reader{visitor: v, sums: map[string]entrySum{}, contents: contents{first: map[string]uint64{}}}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && len(in.sums) == 0 {
			return c, errors.New("this is no backup of a deliverd")
		}
		if err != nil {
			in.damaged("nothing can be read after %s: %v", in.entryName, err)
			break
		}
		if err := in.entry(h, t); err != nil {
			return in.contents, err
		}
	}
	in.finish()
	return in.contents, nil
}

type reader struct {
	contents
	visitor   visitor
	sums      map[string]entrySum // of what was read
	entryName string
	manifest  *manifest
	sum       string // that the file gives for its manifest
}

func (in *reader) damaged(format string, args ...any) {
	in.damage = append(in.damage, fmt.Sprintf(format, args...))
}

// summed reads an entry and knows its sum.
type summed struct {
	r io.Reader
	h hash.Hash
	n int64
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.h.Write(p[:n])
	s.n += int64(n)
	return n, err
}

func (in *reader) entry(h *tar.Header, r io.Reader) error {
	first := len(in.sums) == 0
	in.entryName = h.Name
	if h.Typeflag != tar.TypeReg || h.Size > entryMost {
		in.damaged("%s is nothing that a backup has", h.Name)
		return nil
	}
	s := &summed{r: r, h: sha256.New()}
	err := in.parse(h.Name, s)
	if first && (h.Name != nameHead || err != nil || in.head.Format == 0) {
		return errors.New("this is no backup of a deliverd")
	}
	if in.head.Format > format {
		return fmt.Errorf("this backup was made by a newer deliverd (%s); use that one", in.head.Version)
	}
	if broken, ok := errors.AsType[*unreadable](err); ok {
		in.damaged("%s: %v", h.Name, broken.err)
	} else if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		in.damaged("%s breaks off: %v", h.Name, err)
	}
	in.sums[h.Name] = entrySum{h.Name, s.n, hex.EncodeToString(s.h.Sum(nil))}
	return nil
}

// unreadable is damage, and not the visitor's trouble.
type unreadable struct{ err error }

func (u *unreadable) Error() string { return u.err.Error() }

func (in *reader) parse(name string, r io.Reader) error {
	stream, file, inStream := strings.Cut(name, "/")
	switch {
	case name == nameHead:
		return decodeOne(r, &in.head)
	case name == nameManifest:
		in.manifest = &manifest{}
		return decodeOne(r, in.manifest)
	case name == nameSum:
		b, err := io.ReadAll(io.LimitReader(r, 2*sha256.Size))
		in.sum = string(b)
		if err != nil {
			return &unreadable{err}
		}
		return nil
	case inStream && file == nameStream:
		var c jetstream.StreamConfig
		if err := decodeOne(r, &c); err != nil {
			return err
		}
		if c.Name != stream {
			return &unreadable{errors.New("it is another stream's")}
		}
		in.streams = append(in.streams, stream)
		if in.visitor.stream != nil {
			return in.visitor.stream(c)
		}
		return nil
	case inStream && strings.HasSuffix(file, ".jsonl.gz"):
		return in.messages(stream, r)
	}
	return &unreadable{errors.New("nothing that a backup has")}
}

func decodeOne(r io.Reader, v any) error {
	if err := json.NewDecoder(r).Decode(v); err != nil {
		return &unreadable{err}
	}
	return nil
}

func (in *reader) messages(stream string, r io.Reader) error {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return &unreadable{err}
	}
	lines := json.NewDecoder(io.LimitReader(gz, entryMost))
	for {
		var l line
		if err := lines.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return &unreadable{err}
		}
		if _, begun := in.first[stream]; !begun {
			in.first[stream] = l.Seq
		}
		if in.visitor.message == nil {
			continue
		}
		if err := in.visitor.message(stream, &queue.Stored{Seq: l.Seq, Subject: l.Subject, Time: l.Time, Header: l.Header, Data: l.Data}); err != nil {
			return err
		}
	}
}

// finish holds what was read against the manifest.
func (in *reader) finish() {
	if in.manifest == nil {
		in.damaged("the file has no end: it was not written to its last byte, or what was there is unreadable")
		return
	}
	in.last = in.manifest.Last
	if in.sum != in.sums[nameManifest].SHA256 {
		in.damaged("%s is not as it was written", nameManifest)
	}
	delete(in.sums, nameManifest)
	delete(in.sums, nameSum)
	for _, want := range in.manifest.Entries {
		have, ok := in.sums[want.Name]
		delete(in.sums, want.Name)
		switch {
		case !ok:
			in.damaged("%s is not there", want.Name)
		case have != want:
			in.damaged("%s is not as it was written", want.Name)
		}
	}
	for name := range in.sums {
		in.damaged("%s was not written by the backup", name)
	}
}
