package crowd

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// MessageBytes is the size of every message: {"to":17,"n":42,"at":1234,"pad":"xxx..."}
const MessageBytes = 256

// Everybody is the addressee of a broadcast.
const Everybody = -1

var (
	head = []byte(`{"to":`)
	pad  = bytes.Repeat([]byte("x"), MessageBytes)
)

// Message is the n-th message to one client, or to Everybody, that is published at the time at of
// Now: a JSON object of MessageBytes bytes.
func Message(to int, n, at int64) []byte {
	b := make([]byte, 0, MessageBytes)
	b = strconv.AppendInt(append(b, head...), int64(to), 10)
	b = strconv.AppendInt(append(b, `,"n":`...), n, 10)
	b = strconv.AppendInt(append(b, `,"at":`...), at, 10)
	b = append(b, `,"pad":"`...)
	return append(append(b, pad[:MessageBytes-len(b)-2]...), `"}`...)
}

var errBody = errors.New("the frame does not hold a message byte for byte")

// find reads the message in a frame of any protocol that leaves it as it is. found is false if there
// is none at all; one that is not whole, byte for byte, is an error.
func find(frame []byte) (to int, n, at int64, found bool, err error) {
	from := bytes.Index(frame, head)
	if from < 0 {
		return 0, 0, 0, false, nil
	}
	if len(frame) < from+MessageBytes {
		return 0, 0, 0, true, errBody
	}
	m := frame[from : from+MessageBytes]
	rest := m[len(head):]
	var numbers [3]int64
	for i, end := range []string{`,"n":`, `,"at":`, `,"pad":"`} {
		digits, after, ok := bytes.Cut(rest, []byte(end))
		if !ok {
			return 0, 0, 0, true, errBody
		}
		if numbers[i], err = strconv.ParseInt(string(digits), 10, 64); err != nil {
			return 0, 0, 0, true, errBody
		}
		rest = after
	}
	if len(rest) < 2 || !bytes.Equal(rest[:len(rest)-2], pad[:len(rest)-2]) || string(rest[len(rest)-2:]) != `"}` {
		return 0, 0, 0, true, errBody
	}
	return int(numbers[0]), numbers[1], numbers[2], true, nil
}

// Now is a time in nanoseconds that all processes of this machine share (CLOCK_MONOTONIC).
func Now() int64 { return bootAt + int64(time.Since(bootSeen)) }

var bootAt, bootSeen = func() (int64, time.Time) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux has it
	}
	return ts.Nano(), time.Now()
}()
