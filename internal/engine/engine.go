// Package engine owns sockets: the handshake, frames, queues, timers and limits of WebSocket
// (RFC 6455) connections, and of event streams (text/event-stream), which are connections that are
// only written to. It knows bytes, not messages. gobwas/ws lives here as the codec and
// nowhere else but in the Go client.
package engine

import (
	"errors"
	"net/http"
	"net/netip"

	"github.com/gobwas/ws"
)

// The codec's own types and the values of them that callers need, so that nobody above imports it.
type (
	OpCode     = ws.OpCode
	StatusCode = ws.StatusCode
)

// OpText is the opcode of text messages.
const OpText = ws.OpText

// ConnRef names one connection: generation<<32 | slot. It is a value that is safe to keep after
// the connection has closed: every use of it then says ErrGone. The zero value names none.
type ConnRef uint64

// Request is what a client asked for in its opening handshake, or for a stream.
type Request struct {
	Target string // path and query as sent
	Host   string
	Header http.Header // its values may share memory: clone what is kept for long
	Remote netip.AddrPort
	Protos []string // the offered subprotocols, in order

	Stream bool   // it asked for an event stream, and not for a WebSocket
	Body   []byte // of a request for a stream
}

// Decision is the answer to a handshake.
type Decision struct {
	Status int         // 0 accepts; anything else refuses with this HTTP status
	Reason string      // the body of a refusal, for people
	Proto  string      // accept: the subprotocol to answer with; "" for none
	Header http.Header // further response headers, nil for none
	Later  bool        // no decision yet: Decide will be called
}

// Handler is what the engine calls. Calls for one connection are serial, calls for different
// connections run at once. No call may block.
type Handler interface {
	// Handshake decides over a connection that is not yet open. One that is then refused, or
	// whose client gave up or whose decision came too late, ends without a further call.
	Handshake(c ConnRef, r *Request) Decision
	// Open is the first call after an accepted handshake, and of a stream; frames may be sent from now on.
	Open(c ConnRef, r *Request)
	// Message is one whole text or binary message within the limits, or what Receive was given; p is
	// valid until return.
	Message(c ConnRef, op ws.OpCode, p []byte)
	// Writable says that a queue which was over its high-water mark, or which had made Send
	// or Offer answer ErrQueueFull, has fallen below its low-water mark.
	Writable(c ConnRef)
	// Closed is the last call for c, exactly once for each Open: the close code that the peer
	// sent (1005 if it named none, or ended a stream) or the one that the engine closed with (1006 if there was
	// none), and the cause: nil after a close by the peer or by CloseConn. The reference is
	// already gone.
	Closed(c ConnRef, code ws.StatusCode, cause error)
}

// Errors of Send, of Offer and of Closed's cause.
var (
	ErrGone       = errors.New("the connection is gone")
	ErrQueueFull  = errors.New("the connection's queue is full")
	ErrPeerSilent = errors.New("the peer did not answer a ping in time")
	ErrStalled    = errors.New("the peer did not read in time")
	ErrProtocol   = errors.New("the peer broke RFC 6455")
	ErrTooLarge   = errors.New("the message is over the limit")
	ErrSlowFrame  = errors.New("the peer began a message and did not finish it in time")
	ErrOverloaded = errors.New("the engine holds as many bytes as it may")
	ErrHandler    = errors.New("the handler panicked")
	ErrShutdown   = errors.New("the engine is shutting down")
)
