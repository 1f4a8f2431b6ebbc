package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/google/uuid"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// A batch is several events for clients of one worker in one message of the broker. Its type property is
// BatchType, which no event has, and its content type BatchContent: it is not JSON. An event alone travels
// as DecodeEvent reads it.
const (
	BatchType    = "events"
	BatchContent = "application/vnd.wscluster.events"
)

// The first byte of a batch. Whoever changes the format chooses another one.
const batchVersion = 1

// The flags of an event in a batch.
const (
	batchedDurable = 1 << iota
	batchedLast
)

const (
	batchHead   = 2  // bytes before the first event: version and count
	batchedHead = 16 // bytes of a client's ID
	batchedMin  = batchedHead + 10
)

// BatchedSize is how many bytes e takes in a batch. A batch may have MaxBatch events and, with 2 bytes of
// its own, MaxBatchBytes.
func BatchedSize(e *Event) int {
	n := batchedSize(e)
	return uvarintSize(uint64(n)) + n
}

// batchedSize is the same without the size that leads it.
func batchedSize(e *Event) int {
	n := batchedHead + 1 + len(e.Body)
	for _, text := range [...]int{len(e.Task), len(e.Run), len(e.Home), len(e.Type)} {
		n += uvarintSize(uint64(text)) + text
	}
	for _, number := range [...]int64{int64(e.Attempt), e.Seq, e.Prev, int64(e.Epoch), int64(e.Hops)} {
		n += uvarintSize(uint64(number))
	}
	return n
}

func uvarintSize(v uint64) int { return max(1, (bits.Len64(v)+6)/7) }

// EncodeBatch returns the body of a batch of 1 to MaxBatch numbered events, which together fit into it (see
// BatchedSize). Nothing else is checked: DecodeBatch must take each of them. Order is kept.
func EncodeBatch(events []*Event) []byte {
	size := batchHead
	for _, e := range events {
		size += BatchedSize(e)
	}
	b := append(make([]byte, 0, size), batchVersion, byte(len(events)))
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for _, e := range events {
		b = binary.AppendUvarint(b, uint64(batchedSize(e)))
		b = append(b, e.Client[:]...)
		flags := byte(0)
		if e.Durable {
			flags |= batchedDurable
		}
		if e.Last {
			flags |= batchedLast
		}
		b = append(b, flags)
		text(string(e.Task))
		text(string(e.Run))
		text(string(e.Home))
		text(string(e.Type))
		for _, number := range [...]int64{int64(e.Attempt), e.Seq, e.Prev, int64(e.Epoch), int64(e.Hops)} {
			b = binary.AppendUvarint(b, uint64(number))
		}
		b = append(b, e.Body...)
	}
	return b
}

// Batched is one event of a batch, or why it is none: then Alone is a batch of it alone, byte for byte, and
// belongs in the dead queue with reason bad_body.
type Batched struct {
	Event Event
	Err   error
	Alone []byte // nil unless Err is set
}

// DecodeBatch reads the body of a batch. What cannot be read of one event spoils no other. An error means
// that the message cannot even be taken apart, and belongs in the dead queue as a whole. The bodies of the
// events are parts of p, not copies; nothing is allocated for what p only announces.
func DecodeBatch(p []byte) ([]Batched, error) {
	switch {
	case len(p) > MaxBatchBytes:
		return nil, fmt.Errorf("batch: %w: it has %d bytes and may have %d", ErrTooLarge, len(p), MaxBatchBytes)
	case len(p) < batchHead:
		return nil, fmt.Errorf("batch: it has only %d bytes", len(p))
	case p[0] != batchVersion:
		return nil, fmt.Errorf("batch: version %d is not known", p[0])
	}
	count, rest := int(p[1]), p[batchHead:]
	if count < 1 || count > MaxBatch || len(rest) < count*batchedMin {
		return nil, fmt.Errorf("batch: %d bytes cannot be %d events, of which there may be 1 to %d", len(p), count, MaxBatch)
	}
	all := make([]Batched, count)
	for i := range all {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return nil, fmt.Errorf("batch: event %d of %d is longer than what is left", i+1, count)
		}
		end := n + int(size)
		e, before := &all[i], &Event{}
		if i > 0 {
			before = &all[i-1].Event
		}
		if e.Event, e.Err = decodeBatched(rest[n:end], before); e.Err != nil {
			e.Err = fmt.Errorf("event %d of a batch of %d: %w", i+1, count, e.Err)
			e.Alone = append([]byte{batchVersion, 1}, rest[:end]...)
		}
		rest = rest[end:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("batch: %d bytes follow the last event", len(rest))
	}
	return all, nil
}

// decodeBatched reads one event, without its size. It shares with before, the event before it, the texts that
// are the same.
func decodeBatched(p []byte, before *Event) (e Event, err error) {
	r := batchReader{p}
	id, ok := r.bytes(batchedHead)
	flags, more := r.bytes(1)
	if !ok || !more {
		return e, errors.New("it is cut off")
	}
	copy(e.Client[:], id)
	e.Durable, e.Last = flags[0]&batchedDurable != 0, flags[0]&batchedLast != 0
	if flags[0]&^(batchedDurable|batchedLast) != 0 {
		return e, fmt.Errorf("flags %#x are not known", flags[0])
	}
	task, run, home, typ := string(before.Task), string(before.Run), string(before.Home), string(before.Type)
	for _, into := range [...]*string{&task, &run, &home, &typ} {
		size, ok := r.number()
		text, more := r.bytes(int(size))
		if !ok || !more {
			return e, errors.New("it is cut off")
		}
		if *into != string(text) {
			*into = string(text)
		}
	}
	var attempt, epoch, hops int64
	for _, into := range [...]*int64{&attempt, &e.Seq, &e.Prev, &epoch, &hops} {
		if *into, ok = r.number(); !ok {
			return e, fmt.Errorf("a number is cut off, or over %d", int64(MaxNumber))
		}
	}
	e.Task, e.Run, e.Home, e.Type = TaskID(task), RunID(run), socketmeta.ServerID(home), EventType(typ)
	e.Attempt, e.Epoch, e.Hops, e.Body = int(attempt), socketmeta.Epoch(epoch), int(hops), r.rest
	if u := uuid.UUID(e.Client); u.Version() != 7 || u.Variant() != uuid.RFC4122 {
		return e, fmt.Errorf("client_id: %w: %s must be a UUIDv7", socketmeta.ErrClientID, u)
	}
	if e.Home != "" {
		if _, err := socketmeta.ParseServerID(home); err != nil {
			return e, fmt.Errorf("home: %w", err)
		}
	}
	if err := checkObject(e.Body, MaxEvent); err != nil {
		return e, fmt.Errorf("body: %w", err)
	}
	return e, e.check()
}

// batchReader takes parts off the front of what is left. False where there is not so much.
type batchReader struct{ rest []byte }

func (r *batchReader) bytes(n int) (p []byte, ok bool) {
	if n < 0 || n > len(r.rest) {
		return nil, false
	}
	p, r.rest = r.rest[:n:n], r.rest[n:]
	return p, true
}

func (r *batchReader) number() (int64, bool) {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > MaxNumber {
		return 0, false
	}
	r.rest = r.rest[n:]
	return int64(v), true
}

// DecodeEvents reads a message of the broker for who wants all of it or nothing: one event, as DecodeEvent
// does, or those of a batch.
func DecodeEvents(typ, correlation string, headers map[string]any, body []byte) ([]Event, error) {
	if typ != BatchType {
		e, err := DecodeEvent(typ, correlation, headers, body)
		if err != nil {
			return nil, err
		}
		return []Event{e}, nil
	}
	batch, err := DecodeBatch(body)
	if err != nil {
		return nil, err
	}
	events := make([]Event, len(batch))
	for i := range batch {
		if err := batch[i].Err; err != nil {
			return nil, err
		}
		events[i] = batch[i].Event
	}
	return events, nil
}
