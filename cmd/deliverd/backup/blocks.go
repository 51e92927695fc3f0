package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/queue"
)

// The NATS server keeps a stream in files of records, each with a checksum of its own,
// and reads past what it finds damaged: a flipped bit hides one message, or with the
// index gone the rest of its file, while its health says ok. So the files are read
// here, as nats-server 2.2 to 2.15 write them (server/filestore.go):
//
//	length 4, its top bit set where there are headers | place 8 | time 8 | subject's length 2 |
//	subject | with headers: their length 4, headers | data | HighwayHash-64 8
//
// all little-endian. The hash is keyed with SHA-256 of the stream's
// name and the file's number, and covers all but the lengths. A place's two top bits
// mark records that say that something was removed.
const (
	blockHead    = 22
	blockSum     = 8
	withHeaders  = 1 << 31
	placeErased  = 1 << 63
	placeRemoved = 1 << 62
	blockMost    = 1 << 30 // the server's own are 16 MiB at most
)

func streamsDir(dir string) string {
	return filepath.Join(dir, "nats", "jetstream", "$G", "streams")
}

// storedStreams are the streams in a data directory, in the order of a copy.
func storedStreams(dir string) ([]string, error) {
	all, err := os.ReadDir(streamsDir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no store of a deliverd in %s", dir)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range all {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return queue.StreamsToCopy(names), nil
}

// readBlocks visits every message in a stream's files in the order of their places.
func readBlocks(dir, stream string, visit func(*queue.Stored), damaged func(format string, args ...any)) error {
	files, err := filepath.Glob(filepath.Join(escapeGlob(streamsDir(dir)), stream, "msgs", "*.blk"))
	if err != nil {
		return err
	}
	var numbers []uint64
	for _, f := range files {
		n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(f), ".blk"), 10, 32)
		if err != nil {
			damaged("%s is no file of the store", f)
			continue
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		path := filepath.Join(streamsDir(dir), stream, "msgs", strconv.FormatUint(n, 10)+".blk")
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() > blockMost {
			damaged("%s is too long for a file of the store", path)
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if read, err := readBlock(stream, n, b, visit); err != nil {
			damaged("%s, byte %d of %d: %v%s", path, read, len(b), err, ifLast(i == len(numbers)-1))
		}
	}
	return nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// ifLast: the machine may have gone down in the middle of a write that nobody had an
// acknowledgement of.
func ifLast(last bool) string {
	if last {
		return "; at the end of a stream's last file this can be a write that a crash cut off, which nobody was promised"
	}
	return ""
}

var (
	errCut      = errors.New("the file ends, or goes on as nothing that the store writes")
	errSum      = errors.New("a message is not as it was written")
	errPacked   = errors.New("the stream is compressed or encrypted, which this can't look into: make a backup and verify that")
	packedMagic = []byte("cmp")
)

// readBlock visits a file's messages, and returns where the first damage is.
func readBlock(stream string, number uint64, b []byte, visit func(*queue.Stored)) (at int, err error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, number))
	hash, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return 0, err
	}
	if bytes.HasPrefix(b, packedMagic) {
		return 0, errPacked
	}
	var broken error
	first := 0
	for at < len(b) {
		rest := b[at:]
		if len(rest) < blockHead+blockSum {
			return at, errCut
		}
		length := binary.LittleEndian.Uint32(rest)
		headers := length&withHeaders != 0
		length &^= withHeaders
		subject := int(binary.LittleEndian.Uint16(rest[20:]))
		lead := subject
		if headers {
			lead += 4
		}
		if uint64(length) > uint64(len(rest)) || int(length) < blockHead+lead+blockSum {
			return at, errCut
		}
		body := rest[blockHead : int(length)-blockSum]
		hash.Reset()
		hash.Write(rest[4:20])
		hash.Write(body[:subject])
		hash.Write(body[lead:])
		if !bytes.Equal(hash.Sum(nil), rest[int(length)-blockSum:length]) {
			// The length was plausible: what follows may well be good.
			if broken == nil {
				broken, first = errSum, at
			}
			at += int(length)
			continue
		}
		if m, ok := blockMessage(rest, body, subject, headers); ok {
			visit(m)
		}
		at += int(length)
	}
	return first, broken
}

// blockMessage decodes a record; false for one that only says what was removed.
func blockMessage(record, body []byte, subject int, headers bool) (*queue.Stored, bool) {
	seq := binary.LittleEndian.Uint64(record[4:])
	if seq == 0 || seq&(placeErased|placeRemoved) != 0 {
		return nil, false
	}
	m := &queue.Stored{Seq: seq, Time: time.Unix(0, int64(binary.LittleEndian.Uint64(record[12:]))).UTC(), Subject: string(body[:subject])}
	m.Data = body[subject:]
	if headers {
		n := int(binary.LittleEndian.Uint32(body[subject:]))
		rest := body[subject+4:]
		if n > len(rest) {
			return m, true // its sum is right: whatever reads it will say what it misses
		}
		m.Header, _ = nats.DecodeHeadersMsg(rest[:n])
		m.Data = rest[n:]
	}
	return m, true
}
