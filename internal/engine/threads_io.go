package engine

import (
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is how threads reads and writes.

// readBuffers are taken when bytes are there: an idle connection holds none.
var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// input reads from a socket into pooled buffers. A connection without a descriptor keeps one
// while it waits.
type input struct {
	nc     net.Conn
	raw    syscall.RawConn
	readFn func(fd uintptr) bool
	buf    *[readSize]byte
	n      int
	err    error
}

func newInput(nc net.Conn, raw syscall.RawConn) *input {
	in := &input{nc: nc, raw: raw}
	in.readFn = in.ready
	return in
}

// read waits for bytes. The caller gives buf back to the pool if n > 0.
func (in *input) read() (buf *[readSize]byte, n int, err error) {
	if in.raw == nil {
		buf = readBuffers.Get().(*[readSize]byte)
		n, err = in.nc.Read(buf[:])
		if n == 0 {
			readBuffers.Put(buf)
		}
		return buf, n, err
	}
	in.buf, in.n, in.err = nil, 0, nil
	if err := in.raw.Read(in.readFn); err != nil {
		return nil, 0, err
	}
	buf, in.buf = in.buf, nil
	return buf, in.n, in.err
}

// ready reads once without blocking and returns false to be called again when bytes are there.
func (in *input) ready(fd uintptr) bool {
	buf := readBuffers.Get().(*[readSize]byte)
	for {
		n, err := unix.Read(int(fd), buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case n > 0:
			in.buf, in.n = buf, n
			return true
		}
		readBuffers.Put(buf)
		switch {
		case err == unix.EAGAIN:
			return false
		case err == nil:
			err = io.EOF
		}
		in.err = err
		return true
	}
}

func (t *threads) try(b []byte) (n int, err error) {
	if t.written != nil || t.raw == nil {
		return 0, nil
	}
	t.trial = trial{b: b}
	err = t.raw.Write(t.tryFn)
	done := t.trial
	t.trial = trial{}
	if err != nil {
		return 0, err
	}
	return done.n, done.err
}

func (t *threads) attempt(fd uintptr) bool {
	t.trial.n, t.trial.err = writeOnce(int(fd), t.trial.b)
	return true
}

func (t *threads) flush() {
	if t.written == nil {
		t.written = make(chan struct{})
		t.c.s.conns.Go(t.writer)
	}
}

// writer lives while frames are queued. It ends when none is left and no Writable is owed, or
// when the connection is cut.
func (t *threads) writer() {
	flush := t.flushPlain
	if t.raw != nil {
		flush = t.flushRaw
	}
	for {
		err := flush()
		t.c.mu.Lock()
		if err != nil {
			t.c.drop(byLoss, err)
		}
		tell := t.c.owesWritable()
		if tell {
			t.c.told()
		} else if t.c.q.empty() || t.c.state == gone {
			close(t.written)
			t.written = nil
			t.c.endStream()
			t.c.mu.Unlock()
			return
		}
		t.c.mu.Unlock()
		if tell {
			t.c.call("Writable", func() { t.c.s.e.h.Writable(t.c.ref) })
		}
	}
}

// flushRaw writes until the queue is empty or a Writable is owed, waiting for the socket.
func (t *threads) flushRaw() error {
	var failed error
	iov := make([][]byte, 0, maxCoalesce)
	err := t.raw.Write(func(fd uintptr) bool {
		t.c.mu.Lock()
		defer t.c.mu.Unlock()
		for !t.c.q.empty() && !t.c.owesWritable() {
			var n int
			n, failed = writeOnce(int(fd), t.c.q.next(iov[:0], maxCoalesce)...)
			if failed != nil {
				return true
			}
			if n == 0 {
				return false
			}
			t.c.wrote(n)
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

// flushPlain is flushRaw for a connection without a descriptor: one blocking write a frame.
func (t *threads) flushPlain() error {
	for {
		t.c.mu.Lock()
		if t.c.q.empty() || t.c.state == gone || t.c.owesWritable() {
			t.c.mu.Unlock()
			return nil
		}
		b := t.c.q.next(nil, 1)[0]
		t.c.mu.Unlock()
		n, err := t.nc.Write(b)
		t.c.mu.Lock()
		if !t.c.q.empty() {
			t.c.wrote(n)
		}
		t.c.mu.Unlock()
		if err != nil {
			return err
		}
	}
}
