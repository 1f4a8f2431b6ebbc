package taskrunner

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

var (
	errSpoolFull = errors.New("the spool is full")
	errSpoolRead = errors.New("the spool cannot be read back, so the task begins anew")
)

// spoolPause is between two tries to write to a spool that took no more.
const spoolPause = time.Second

// spool is the place on disk of one Run: what its runs have to tell and cannot keep in memory while
// the broker takes nothing, or less than they say. It serves the living process only, so nothing is
// synced: a runner that dies loses its runs too, and their tasks begin anew elsewhere. A nil spool
// has no files.
type spool struct {
	dir   string
	limit int64
	lock  spoolLock
	used  atomic.Int64 // bytes of all files, what was read back of them included
}

// openSpool sees that files can be made in dir, which need not exist.
func openSpool(dir string, limit int64) (*spool, error) {
	s := &spool{dir: dir, limit: limit}
	f, err := s.create()
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w (give a folder that this user may write to)", err)
	}
	return s, nil
}

// file returns a file that takes no space yet; nil from a nil spool.
func (s *spool) file() *spoolFile {
	if s == nil {
		return nil
	}
	return &spoolFile{spool: s}
}

func (s *spool) bytes() int64 {
	if s == nil {
		return 0
	}
	return s.used.Load()
}

// create makes a file that has no name: it is gone when it is closed or the process is.
func (s *spool) create() (*os.File, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil { // something may have tidied up
		return nil, err
	}
	f, err := os.CreateTemp(s.dir, "run-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// spoolFile is what one run has on disk: events in order, appended behind and taken from the
// front. Its space is used again once all of it was taken.
type spoolFile struct {
	spool *spool

	mu                sync.Mutex
	file              *os.File // nil before the first append
	front             *bufio.Reader
	taken, ahead, end int64 // offsets: what was taken, what front has read, what there is
	closed            bool
}

// append writes events behind all others. After an error none of them is there; errSpoolFull says
// that the spool's limit is reached.
func (f *spoolFile) append(events []*wire.Event) (err error) {
	var records []byte
	for _, e := range events {
		records = appendRecord(records, e)
	}
	size := int64(len(records))
	if f.spool.used.Add(size) > f.spool.limit {
		f.spool.used.Add(-size)
		return fmt.Errorf("%w: %d bytes may be in it", errSpoolFull, f.spool.limit)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.write(records); err != nil {
		f.spool.used.Add(-size)
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

func (f *spoolFile) write(records []byte) (err error) {
	if f.closed {
		return os.ErrClosed
	}
	if f.file == nil {
		if f.file, err = f.spool.create(); err != nil {
			return err
		}
		f.front = bufio.NewReader(readAhead{f})
	}
	if _, err = f.file.WriteAt(records, f.end); err != nil {
		return err
	}
	f.end += int64(len(records))
	return nil
}

// take removes events from the front, at least one, until they cost size bytes as the outbox
// counts them. There must be one. They have their Seq, Prev, Type and Body only.
func (f *spoolFile) take(size int) (events []*wire.Event, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for cost := 0; cost < size && f.taken < f.end; {
		e, n, err := readRecord(f.front)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errSpoolRead, err)
		}
		f.taken += n
		cost += len(e.Body) + eventOverhead
		events = append(events, e)
	}
	if f.taken == f.end && f.file.Truncate(0) == nil {
		f.spool.used.Add(-f.end)
		f.taken, f.ahead, f.end = 0, 0, 0
	}
	return events, nil
}

// close gives the space back. What was not taken is gone.
func (f *spoolFile) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.file != nil {
		_ = f.file.Close() // nobody wants what is in it
		f.spool.used.Add(-f.end)
	}
}

// readAhead reads on where it has ended, once there is more. f.mu is held.
type readAhead struct{ f *spoolFile }

func (r readAhead) Read(p []byte) (int, error) {
	left := r.f.end - r.f.ahead
	if left == 0 {
		return 0, io.EOF
	}
	n, err := r.f.file.ReadAt(p[:min(int64(len(p)), left)], r.f.ahead)
	r.f.ahead += int64(n)
	return n, err
}

// A record is the lengths of type (1 byte) and body (4 bytes), Seq and Prev (8 bytes each), type
// and body.
const recordHeader = 1 + 4 + 8 + 8

func appendRecord(p []byte, e *wire.Event) []byte {
	p = append(p, byte(len(e.Type)))
	p = binary.BigEndian.AppendUint32(p, uint32(len(e.Body)))
	p = binary.BigEndian.AppendUint64(p, uint64(e.Seq))
	p = binary.BigEndian.AppendUint64(p, uint64(e.Prev))
	p = append(p, e.Type...)
	return append(p, e.Body...)
}

// readRecord returns an event and how many bytes its record has.
func readRecord(r io.Reader) (*wire.Event, int64, error) {
	var header [recordHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, 0, err
	}
	typeLen, bodyLen := int(header[0]), int(binary.BigEndian.Uint32(header[1:]))
	rest := make([]byte, typeLen+bodyLen)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, 0, err
	}
	return &wire.Event{
		Seq:  int64(binary.BigEndian.Uint64(header[5:])),
		Prev: int64(binary.BigEndian.Uint64(header[13:])),
		Type: wire.EventType(rest[:typeLen]),
		Body: rest[typeLen:],
	}, int64(recordHeader + len(rest)), nil
}
