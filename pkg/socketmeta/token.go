package socketmeta

import (
	"errors"
	"time"
)

// Token is the resume ticket: what a client shows to get its session back, signed by the worker.
// It travels in the hello frame or the X-Socket-Meta header, never in a URL or a log.
type Token struct {
	Meta
	Subject  string    // who the session belongs to; "" where nobody is asked
	IssuedAt time.Time // whole seconds
	Expires  time.Time // whole seconds; the token is refused from then on
}

// Route is the route ticket: it lets HAProxy send a client without cookies to its worker, and is
// worth nothing else. HAProxy verifies it with its own copy of the route key (jwt_verify, HS256).
type Route struct {
	Server  ServerID
	Expires time.Time // whole seconds
}

// Errors of VerifyToken and VerifyRoute. A caller outside this process hears only which of them it was.
var (
	ErrMalformed = errors.New("ticket is malformed")        // not a ticket of ours, in any spelling
	ErrForged    = errors.New("ticket is not signed by us") // unknown key, other algorithm, wrong signature
	ErrExpired   = errors.New("ticket has expired")         // signed by us, but too old
)
