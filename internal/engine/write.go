package engine

import (
	"golang.org/x/sys/unix"
)

// offer is Engine.Offer.
func (c *conn) offer(f *Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.e.o
	switch {
	case c.state != open:
		return ErrGone
	case c.q.bytes > o.QueueBytes/2 || len(c.q.frames) > o.QueueFrames/2:
		c.full = true // or Writable would not be owed where a pong took the room
		return ErrQueueFull
	case !c.q.empty() && c.e.count.held.Load() > int64(o.HeldBytes/2):
		c.starved = true
		return ErrQueueFull
	}
	return c.send(f)
}

// send is Engine.Send. mu is held.
func (c *conn) send(f *Frame) error {
	if c.state != open {
		return ErrGone
	}
	o, b := &c.e.o, c.encode(f)
	if !c.q.fits(len(b), o.QueueBytes, o.QueueFrames) {
		if len(b) <= o.QueueBytes {
			c.full, c.room = true, max(c.room, len(b))
		}
		c.e.count.fullSend.Add(1)
		return ErrQueueFull
	}
	if c.e.count.held.Load()+int64(len(b)) > int64(o.HeldBytes) {
		c.starved = true
		c.e.count.fullSend.Add(1)
		return ErrQueueFull
	}
	c.write(b)
	if c.state == gone {
		return ErrGone
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
	c.e.count.framesOut.Add(1)
	c.e.count.bytesOut.Add(uint64(len(b)))
}

// put writes b at once as far as the socket takes it and queues the rest, whatever the limits:
// each caller has its own bound. On a connection that is gone it does nothing. mu is held.
func (c *conn) put(b []byte) {
	if c.state == gone {
		return
	}
	if c.stream {
		c.lastPing = c.e.now()
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
	if c.q.empty() {
		c.progress = c.e.now()
	}
	c.q.push(b, sent)
	c.e.count.held.Add(int64(len(b) - sent))
	o := &c.e.o
	if c.q.bytes > o.QueueBytes/2 || len(c.q.frames) > o.QueueFrames/2 {
		c.full = true
	}
	c.line.flush()
}

// writeOnce is one write(2); a full socket takes 0 bytes without an error.
func writeOnce(fd int, bufs ...[]byte) (n int, err error) {
	for {
		if len(bufs) == 1 {
			n, err = unix.Write(fd, bufs[0])
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
	o := &c.e.o
	return c.full && c.state == open &&
		c.q.bytes <= min(o.QueueBytes/4, o.QueueBytes-c.room) && len(c.q.frames) <= o.QueueFrames/4
}

// wrote takes n bytes off the queue. mu is held.
func (c *conn) wrote(n int) {
	c.q.wrote(n)
	c.e.count.held.Add(int64(-n))
	c.progress = c.e.now()
}
