package taskrunner

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sort"
	"sync"
)

// A log is a file of lines, each with its end (\n). Its index has a mark for the first line that begins
// at or behind every further indexEvery bytes: the line's number and its offset, 8 bytes each, big endian.
const (
	indexEvery = 64 << 10
	markSize   = 16
)

// logFile is the log of a run that goes on. It is written by one run and may be read meanwhile. It has no
// files before there is something in them.
type logFile struct {
	path, indexPath string
	limit           int64

	mu          sync.Mutex
	text, index *os.File // nil before the first line, and the first mark
	size, lines int64
	marked      int64 // where the last mark is
	marks       int64
	dropped     int64 // bytes that did not fit or could not be written
	err         error // the first error of writing
}

// append writes lines behind all others and reports whether they are there. With must set they may exceed
// the limit.
func (f *logFile) append(lines []string, must bool) bool {
	var text, marks []byte
	f.mu.Lock()
	defer f.mu.Unlock()
	marked := f.marked
	for i, line := range lines {
		if at := f.size + int64(len(text)); at-marked >= indexEvery {
			marks = binary.BigEndian.AppendUint64(marks, uint64(f.lines+int64(i)+1))
			marks = binary.BigEndian.AppendUint64(marks, uint64(at))
			marked = at
		}
		text = append(text, line...)
		text = append(text, '\n')
	}
	if f.size+int64(len(text)) > f.limit && !must {
		f.dropped += int64(len(text))
		return false
	}
	if err := f.write(text, marks); err != nil {
		f.err = errors.Join(f.err, err)
		f.dropped += int64(len(text))
		return false
	}
	f.size += int64(len(text))
	f.lines += int64(len(lines))
	f.marks += int64(len(marks) / markSize)
	f.marked = marked
	return true
}

// write writes at the places of now: what an earlier error left behind is overwritten.
func (f *logFile) write(text, marks []byte) (err error) {
	create := func(at **os.File, path string) error {
		if *at == nil {
			*at, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		}
		return err
	}
	if len(marks) > 0 {
		if err := create(&f.index, f.indexPath); err != nil {
			return err
		}
		if _, err := f.index.WriteAt(marks, f.marks*markSize); err != nil {
			return err
		}
	}
	if err := create(&f.text, f.path); err != nil {
		return err
	}
	_, err = f.text.WriteAt(text, f.size)
	return err
}

// numbers returns the bytes and lines that are there, and the bytes that are not.
func (f *logFile) numbers() (size, lines, dropped int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, f.lines, f.dropped
}

// close returns what went wrong since the file was made.
func (f *logFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.text != nil {
		f.err = errors.Join(f.err, f.text.Truncate(f.size), f.text.Close())
	}
	if f.index != nil {
		f.err = errors.Join(f.err, f.index.Close())
	}
	return f.err
}

// savedLog reads a log of which size bytes, or lines lines, are there.
type savedLog struct {
	path, index string
	size, lines int64
}

// read returns at most limit bytes and where they begin: for line 0 those from offset on, else whole
// lines from that line on. Nothing is returned from behind the end.
func (l *savedLog) read(line, offset, limit int64) (at int64, data []byte, err error) {
	if line > l.lines || line == 0 && offset >= l.size {
		return l.size, []byte{}, nil
	}
	f, err := os.Open(l.path)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	if line > 0 {
		if offset, err = l.find(f, line); err != nil {
			return 0, nil, err
		}
	}
	data = make([]byte, min(limit, l.size-offset))
	if _, err := f.ReadAt(data, offset); err != nil {
		return 0, nil, err
	}
	if line > 0 {
		data = data[:bytes.LastIndexByte(data, '\n')+1]
	}
	return offset, data, nil
}

// find returns the offset of a line that is there.
func (l *savedLog) find(text io.ReaderAt, line int64) (int64, error) {
	have, at, err := l.mark(line)
	if err != nil || have == line {
		return at, err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(text, at, l.size-at), 16<<10)
	for have < line {
		part, err := r.ReadSlice('\n')
		at += int64(len(part))
		switch {
		case err == nil:
			have++
		case !errors.Is(err, bufio.ErrBufferFull):
			return 0, err
		}
	}
	return at, nil
}

// mark returns the last marked line that is not behind line, and its offset.
func (l *savedLog) mark(line int64) (have, at int64, err error) {
	f, err := os.Open(l.index)
	if errors.Is(err, os.ErrNotExist) {
		return 1, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	var mark [markSize]byte
	read := func(i int) (line, at int64) {
		if _, e := f.ReadAt(mark[:], int64(i)*markSize); e != nil {
			err = e
		}
		return int64(binary.BigEndian.Uint64(mark[:8])), int64(binary.BigEndian.Uint64(mark[8:]))
	}
	n := sort.Search(int(info.Size()/markSize), func(i int) bool {
		have, at := read(i)
		return have > line || at >= l.size // what is behind the size is of a write that did not come to its end
	})
	if n == 0 {
		return 1, 0, err
	}
	have, at = read(n - 1)
	return have, at, err
}

// countLines returns how much of a log is there whose run did not come to its end: all whole lines.
func countLines(text, index string) (size, lines int64, err error) {
	f, err := os.Open(text)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	l := savedLog{path: text, index: index, size: info.Size()}
	line, at, err := l.mark(1<<63 - 1)
	if err != nil {
		return 0, 0, err
	}
	lines, size = line-1, at
	r := bufio.NewReader(io.NewSectionReader(f, at, info.Size()-at))
	for {
		part, err := r.ReadSlice('\n')
		at += int64(len(part))
		switch {
		case err == nil:
			lines, size = lines+1, at
		case errors.Is(err, io.EOF):
			return size, lines, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return 0, 0, err
		}
	}
}
