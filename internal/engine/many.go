package engine

// This file is sending in numbers: one frame to many connections, and many frames to one.

// Failure is a connection that did not take a frame of Broadcast.
type Failure struct {
	At  int   // its place
	Err error // what Offer would have answered: ErrGone or ErrQueueFull
}

// Broadcast offers f to each of cs, in order, as Offer does, at no more than a write each. It appends those
// that did not take it to failed, which it returns, and takes no other memory. Between two connections it
// holds no lock.
func (e *Engine) Broadcast(f *Frame, cs []ConnRef, failed []Failure) []Failure {
	var sent, bytes int
	for i, ref := range cs {
		c := e.table.get(ref)
		if c == nil {
			failed = append(failed, Failure{i, ErrGone})
			continue
		}
		n, err := c.offerOne(f)
		if err != nil {
			failed = append(failed, Failure{i, err})
			continue
		}
		sent, bytes = sent+1, bytes+n
	}
	e.count.framesOut.Add(uint64(sent))
	e.count.bytesOut.Add(uint64(bytes))
	return failed
}

// offerOne is offer without the counting; n is the size of what c took.
func (c *conn) offerOne(f *Frame) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spare(); err != nil {
		return 0, err
	}
	b := c.encode(f)
	if err := c.admit(len(b)); err != nil {
		return 0, err
	}
	c.put(b)
	if c.state == gone {
		return len(b), ErrGone
	}
	return len(b), nil
}

// SendBatch is Send for each of fs in order, up to the first that c does not take, whose error it returns with
// the number of those before it. What goes out at once goes out in one write for up to 16 KiB.
func (e *Engine) SendBatch(c ConnRef, fs []*Frame) (taken int, err error) {
	k := e.table.get(c)
	if k == nil {
		return 0, ErrGone
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sendBatch(fs)
}

// sendBatch is Engine.SendBatch. mu is held.
func (c *conn) sendBatch(fs []*Frame) (taken int, err error) {
	for taken < len(fs) {
		if c.state != open {
			return taken, ErrGone
		}
		n := 0
		if c.q.empty() {
			n = c.together(fs[taken:])
		}
		if n < 2 {
			if err := c.send(fs[taken]); err != nil {
				return taken, err
			}
			taken++
			continue
		}
		c.putTogether(fs[taken : taken+n])
		taken += n
	}
	if c.state == gone {
		return taken, ErrGone
	}
	return taken, nil
}

// together is how many of fs may be written at once to c, whose queue is empty: they have room in one buffer, and in
// the queue should none of it go out.
func (c *conn) together(fs []*Frame) (n int) {
	o := &c.s.e.o
	limit := min(readSize, o.QueueBytes, int(int64(o.HeldBytes)-c.s.e.count.held.Load()))
	for _, f := range fs[:min(len(fs), o.QueueFrames)] {
		if limit -= len(c.encode(f)); limit < 0 {
			break
		}
		n++
	}
	return n
}

// putTogether writes fs, which together allows, at once as far as the socket takes them, and queues the rest. mu is held.
func (c *conn) putTogether(fs []*Frame) {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	b := buf[:0]
	for _, f := range fs {
		part := c.encode(f)
		c.counted(part)
		b = append(b, part...)
	}
	if c.stream {
		c.lastPing = c.s.e.now()
	}
	sent, err := c.line.try(b)
	if err != nil {
		c.drop(byLoss, err)
		return
	}
	if sent == len(b) {
		return
	}
	for _, f := range fs {
		part := c.encode(f)
		if sent >= len(part) {
			sent -= len(part)
			continue
		}
		c.enqueue(part, sent)
		sent = 0
	}
	c.line.flush()
}
