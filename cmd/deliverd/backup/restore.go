package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/archive"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/queue"
)

// unfinished is where a restore works; it becomes the store at the end, in one step.
const unfinished = ".restoring"

// Restore makes a data directory of a backup. dir must be empty or not there; what a
// restore that broke off left in it is removed. A damaged file is refused with
// ErrDamaged unless damaged is set: then what can be read is restored, and the report
// tells what could not. The keys are not in the file: see RestoreKeys.
func Restore(path, dir string, damaged bool) (Report, error) {
	if err := emptyDir(dir); err != nil {
		return Report{}, err
	}
	report, ledger, c, err := examine(path)
	if err != nil {
		return report, err
	}
	if len(report.Damage) > 0 && !damaged {
		return report, ErrDamaged
	}
	if err := os.MkdirAll(filepath.Join(dir, unfinished), 0o700); err != nil {
		return report, err
	}
	ledger.Unsure = c.last == nil
	err = restoreStreams(path, filepath.Join(dir, unfinished), ledger, c)
	if err == nil {
		err = syncTree(filepath.Join(dir, unfinished))
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, unfinished), filepath.Join(dir, "nats"))
	}
	if err == nil {
		err = syncPath(dir)
	}
	if err != nil {
		return report, errors.Join(err, os.RemoveAll(filepath.Join(dir, unfinished)))
	}
	return report, nil
}

// emptyDir sees to it that nothing in dir can be overwritten.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == unfinished })
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: it holds %s", dir, entries[0].Name())
	}
	return os.RemoveAll(filepath.Join(dir, unfinished))
}

// restoreStreams has a NATS server of our own version make the store.
func restoreStreams(path, dir string, l *queue.Ledger, c contents) (err error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "deliverd", JetStream: true, StoreDir: dir, JetStreamMaxStore: 1 << 50,
		DontListen: true, NoSigs: true, NoLog: true, SyncInterval: time.Hour, // syncTree does it, once
	})
	if err != nil {
		return fmt.Errorf("embedded NATS server: %w", err)
	}
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(time.Minute) || !s.JetStreamEnabled() {
		return errors.New("embedded NATS server: not ready after a minute")
	}
	streams := map[string]*restoring{} // all at once: the records' come in two parts
	_, err = readFile(path, visitor{
		stream: func(config jetstream.StreamConfig) (err error) {
			if streams[config.Name] == nil {
				streams[config.Name], err = restoreStream(s.GlobalAccount(), config, c.first[config.Name], c.last[config.Name])
			}
			return err
		},
		message: func(stream string, m *queue.Stored) error {
			if at := streams[stream]; at != nil && l.Restores(stream, m) {
				return at.message(m)
			}
			return nil
		},
	})
	for _, at := range streams {
		err = errors.Join(err, at.close())
	}
	return err
}

// restoring is one stream on its way into the server, in the format of the server's
// own snapshots.
type restoring struct {
	pipe *io.PipeWriter
	pack *s2.Writer
	out  *archive.Writer
	done chan error
	last uint64
}

func restoreStream(account *server.Account, c jetstream.StreamConfig, first, last uint64) (*restoring, error) {
	c.Replicas, c.Placement = 1, nil // one node makes it; a cluster's operator adds replicas
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var cfg server.StreamConfig
	if err := json.Unmarshal(text, &cfg); err != nil {
		return nil, fmt.Errorf("%s: its configuration: %w", c.Name, err)
	}
	in, out := io.Pipe()
	r := &restoring{pipe: out, done: make(chan error, 1)}
	go func() {
		_, err := account.RestoreStreamV2(&cfg, in)
		if err != nil {
			err = fmt.Errorf("%s: %w", c.Name, err)
		}
		in.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		r.done <- err
	}()
	r.pack = s2.NewWriter(out, s2.WriterConcurrency(1), s2.WriterUncompressed())
	r.out = archive.NewWriter(r.pack)
	if first == 0 {
		first = last + 1 // nothing is in it
	}
	state, err := json.Marshal(server.StreamState{FirstSeq: first, LastSeq: max(last, first-1)})
	if err != nil {
		return nil, err
	}
	return r, r.entry(&archive.Header{Name: "state.json", PayloadSize: int64(len(state)), Timestamp: time.Now().UnixNano()}, state)
}

func (r *restoring) entry(h *archive.Header, body []byte) error {
	if err := r.out.WriteHeader(h); err != nil {
		return err
	}
	_, err := r.out.Write(body)
	return err
}

func (r *restoring) message(m *queue.Stored) error {
	if m.Seq <= r.last {
		return nil // of a piece that stands in a damaged file twice
	}
	r.last = m.Seq
	header := wireHeader(m.Header)
	return r.entry(&archive.Header{Name: m.Subject, Sequence: m.Seq, Timestamp: m.Time.UnixNano(),
		HeaderSize: int64(len(header)), PayloadSize: int64(len(m.Data))}, append(header, m.Data...))
}

// wireHeader writes headers as they stand in a stream.
func wireHeader(h nats.Header) []byte {
	if len(h) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("NATS/1.0\r\n")
	for name, values := range h {
		for _, v := range values {
			b.WriteString(name + ": " + v + "\r\n")
		}
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// close ends the stream and waits until the server has it.
func (r *restoring) close() error {
	if r == nil {
		return nil // it could not be begun
	}
	err := errors.Join(r.entry(&archive.Header{}, nil), r.pack.Close())
	r.pipe.CloseWithError(err)
	if failed := <-r.done; failed != nil {
		err = failed // what it met made the writes fail
	}
	return err
}

// syncTree makes what is in a directory durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
