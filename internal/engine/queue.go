package engine

import "time"

// queue is what waits to be written to one connection, in order: whole frames as they go over the
// wire, of which the first may already be written in part. It does not lock and knows no limits but
// those it is asked about. A nil queue is an empty one; an empty one holds no frames' memory.
type queue struct {
	frames [][]byte
	sent   int // bytes of frames[0] that are written
	bytes  int // bytes of all frames that are not written
	pong   int // 1 + index in frames of a pong that may still be replaced; 0: none

	// The connection's own.
	room     int           // bytes that must be free before Writable is told, for a frame that was refused
	progress time.Duration // engine time of the last byte that the socket took
}

func (q *queue) empty() bool { return q == nil || len(q.frames) == 0 }

// size is the bytes that wait.
func (q *queue) size() int {
	if q == nil {
		return 0
	}
	return q.bytes
}

// over says whether more bytes or frames wait than these.
func (q *queue) over(bytes, frames int) bool {
	return q != nil && (q.bytes > bytes || len(q.frames) > frames)
}

// fits says whether a frame of n bytes may be added within the limits; a frame that is longer
// than maxBytes never does.
func (q *queue) fits(n, maxBytes, maxFrames int) bool {
	if q == nil {
		return n <= maxBytes && maxFrames > 0
	}
	return q.bytes+n <= maxBytes && len(q.frames) < maxFrames
}

// push adds f, of which the first sent bytes are already on the wire. Only a frame that enters
// an empty queue can have been sent in part.
func (q *queue) push(f []byte, sent int) {
	if q.empty() {
		q.sent = sent
	}
	q.frames = append(q.frames, f)
	q.bytes += len(f) - sent
}

// pushPong adds an answer to a ping. It takes the place of an earlier one that waits behind
// another frame, as RFC 6455 section 5.5.3 allows: so a peer that pings and does not read fills
// no queue. The first frame is never replaced, because it may be in the middle of a write.
func (q *queue) pushPong(f []byte) {
	if i := q.pong - 1; i > 0 {
		q.bytes += len(f) - len(q.frames[i])
		q.frames[i] = f
		return
	}
	q.push(f, 0)
	q.pong = len(q.frames)
}

// next appends the unwritten bytes to dst, in order, one slice a frame, at most limit slices.
func (q *queue) next(dst [][]byte, limit int) [][]byte {
	for i, f := range q.frames[:min(limit, len(q.frames))] {
		if i == 0 {
			f = f[q.sent:]
		}
		dst = append(dst, f)
	}
	return dst
}

// wrote takes the first n unwritten bytes off the queue.
func (q *queue) wrote(n int) {
	q.bytes -= n
	q.sent += n
	done := 0
	for done < len(q.frames) && q.sent >= len(q.frames[done]) {
		q.sent -= len(q.frames[done])
		q.frames[done] = nil
		done++
	}
	q.frames = q.frames[done:]
	q.pong = max(0, q.pong-done)
	if q.empty() {
		q.frames, q.sent = nil, 0
	}
}
