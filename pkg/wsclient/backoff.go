package wsclient

import (
	"errors"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	steady        = 5 * time.Second // a socket that was open for so long ends a row of retries
	maxRetryAfter = time.Hour       // the longest wait that a server may ask for
)

// CloseError says that the server closed the socket: the code and reason of its bye or close frame.
type CloseError struct {
	Code       int
	Reason     string
	RetryAfter time.Duration // what the server asks for; 0 if it does not
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("the server closed the socket: %d", e.Code)
	}
	return fmt.Sprintf("the server closed the socket: %d, %s", e.Code, e.Reason)
}

// HandshakeError says that the handshake was answered with another status than 101.
type HandshakeError struct {
	Status     int
	RetryAfter time.Duration // of the answer's Retry-After; 0 if it has none
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("the server answered the handshake with HTTP status %d", e.Status)
}

// errStarved ends a socket on our side: the application has room again for events that were dropped.
var errStarved = errors.New("resuming, for events that had no room")

// stops reports whether err means that the client must not come back by itself.
func stops(err error) bool {
	e, ok := errors.AsType[*CloseError](err)
	return ok && (e.Code == closePolicy || e.Code >= 4000 && e.Code < 4100)
}

// closePolicy is RFC 6455's "policy violation".
const closePolicy = 1008

// delay returns how long to wait before the retry-th retry in a row, counted from 1, after a socket
// that ended with err or a submit that was refused with it. random is in [0, 1): full jitter, so that a crowd spreads out. The server's
// own wish is a lower bound. A resume goes at once, but only the first in a row: a server that
// keeps asking for it is not hammered.
func delay(o *Options, err error, retry int, random float64) time.Duration {
	bound := o.MaxDelay
	if d := o.BaseDelay << retry; d>>retry == o.BaseDelay && d < bound {
		bound = d
	}
	wait := time.Duration(random * float64(bound))
	var asked time.Duration
	if e, ok := errors.AsType[*CloseError](err); ok {
		asked = e.RetryAfter
		if e.Code >= 4200 && e.Code < 4300 && retry == 1 {
			wait = 0
		}
	}
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		asked = e.RetryAfter
	}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		asked = time.Duration(min(max(0, e.RetryAfterMS), maxRetryAfter.Milliseconds())) * time.Millisecond
	}
	if errors.Is(err, errStarved) && retry == 1 {
		wait = 0
	}
	return max(wait, min(asked, maxRetryAfter))
}
