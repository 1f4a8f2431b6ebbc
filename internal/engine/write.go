package engine

import (
	"golang.org/x/sys/unix"
)

// offer is Engine.Offer.
func (c *conn) offer(f *Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spare(); err != nil {
		return err
	}
	return c.send(f)
}

// spare returns nil while there is room for what may be left out. mu is held.
func (c *conn) spare() error {
	o := &c.s.e.o
	switch {
	case c.state != open:
		return ErrGone
	case c.q.empty():
		return nil
	case c.q.over(o.QueueBytes/2, o.QueueFrames/2):
		c.full = true // or Writable would not be owed where a pong took the room
		return ErrQueueFull
	case c.s.e.count.held.Load() > int64(o.HeldBytes/2):
		c.starved = true
		return ErrQueueFull
	}
	return nil
}

// send is Engine.Send. mu is held.
func (c *conn) send(f *Frame) error {
	if c.state != open {
		return ErrGone
	}
	b := c.encode(f)
	if err := c.admit(len(b)); err != nil {
		return err
	}
	c.write(b)
	if c.state == gone {
		return ErrGone
	}
	return nil
}

// admit returns nil if n bytes more may be queued. mu is held.
func (c *conn) admit(n int) error {
	o := &c.s.e.o
	if !c.q.fits(n, o.QueueBytes, o.QueueFrames) {
		if n <= o.QueueBytes {
			c.full, c.q.room = true, max(c.q.room, n) // there is one: an empty queue has room
		}
		c.s.e.count.fullSend.Add(1)
		return ErrQueueFull
	}
	if c.s.e.count.held.Load()+int64(n) > int64(o.HeldBytes) {
		c.starved = true
		c.s.e.count.fullSend.Add(1)
		return ErrQueueFull
	}
	return nil
}

// encode is f as it goes over this connection.
func (c *conn) encode(f *Frame) []byte {
	if c.stream {
		return f.event()
	}
	return f.wire
}

// write is put for a frame that counts. mu is held.
func (c *conn) write(b []byte) {
	c.counted(b)
	c.put(b)
}

func (c *conn) counted(b []byte) {
	c.s.e.count.framesOut.Add(1)
	c.s.e.count.bytesOut.Add(uint64(len(b)))
}

// put writes b at once as far as the socket takes it and queues the rest, whatever the limits:
// each caller has its own bound. On a connection that is gone it does nothing. mu is held.
func (c *conn) put(b []byte) {
	if c.state == gone {
		return
	}
	if c.stream {
		c.lastPing = c.s.e.now()
	}
	sent := 0
	if c.q.empty() {
		n, err := c.line.try(b)
		if err != nil {
			c.drop(byLoss, err)
			return
		}
		if n == len(b) {
			return
		}
		sent = n
	}
	c.enqueue(b, sent)
	c.line.flush()
}

// enqueue adds b, of which the first sent bytes are on the wire, to the queue. mu is held.
func (c *conn) enqueue(b []byte, sent int) {
	if c.q == nil {
		c.q = &queue{progress: c.s.e.now()}
	}
	c.q.push(b, sent)
	c.s.e.count.held.Add(int64(len(b) - sent))
	o := &c.s.e.o
	if c.q.over(o.QueueBytes/2, o.QueueFrames/2) {
		c.full = true
	}
}

// writeOnce is one write(2); a full socket takes 0 bytes without an error.
func writeOnce(fd int, bufs ...[]byte) (n int, err error) {
	for {
		if len(bufs) == 1 {
			n, err = writeTo(fd, bufs[0])
		} else {
			n, err = unix.Writev(fd, bufs)
		}
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}

// maxCoalesce is how many frames one write takes at most.
const maxCoalesce = 64

// owesWritable says whether the queue is below its low-water mark and the Handler waits to hear
// of it. mu is held.
func (c *conn) owesWritable() bool {
	o := &c.s.e.o
	return c.full && c.state == open && (c.q == nil || !c.q.over(min(o.QueueBytes/4, o.QueueBytes-c.q.room), o.QueueFrames/4))
}

// told says that Writable is told. mu is held.
func (c *conn) told() {
	if c.full = false; c.q != nil {
		c.q.room = 0
	}
}

// wrote takes n bytes off the queue. mu is held.
func (c *conn) wrote(n int) {
	c.q.wrote(n)
	c.s.e.count.held.Add(int64(-n))
	if c.q.progress = c.s.e.now(); c.q.empty() {
		c.q = nil
	}
}
