package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// ServerMessage is what a server sends: *SocketMeta, *Accepted, *Canceling, *LogLines, *Event,
// *Subscribed, *Unsubscribed, *Presence, *Post, *Missed, *Request, *Refused, *Pong or *Bye.
// Of an Event the client sees all but Client, Epoch, Home and Hops.
type ServerMessage interface{ serverMessage() }

func (*SocketMeta) serverMessage() {}
func (*Accepted) serverMessage()   {}
func (*Canceling) serverMessage()  {}
func (*Event) serverMessage()      {}
func (*Refused) serverMessage()    {}
func (*Pong) serverMessage()       {}
func (*Bye) serverMessage()        {}

// The type of each message, as it stands in its frame.
const (
	typeHello        = "hello"
	typeConfirm      = "confirm"
	typeSubmit       = "submit"
	typeCancel       = "cancel"
	typeLogRead      = "log_read"
	typeAck          = "ack"
	typePing         = "ping"
	typeSubscribe    = "subscribe"
	typeUnsubscribe  = "unsubscribe"
	typePresence     = "presence" // both ways
	typeReply        = "reply"
	typeSocketMeta   = "socket_meta"
	typeAccepted     = "accepted"
	typeCanceling    = "canceling"
	typeLogLines     = "log_lines"
	typeEvent        = "event"
	typeSubscribed   = "subscribed"
	typeUnsubscribed = "unsubscribed"
	typeMessage      = "message"
	typeMissed       = "missed"
	typeRequest      = "request"
	typeError        = "error"
	typePong         = "pong"
	typeBye          = "bye"
)

// ErrUnknownType is wrapped by DecodeServer for a message of a newer version: a client goes on
// without it.
var ErrUnknownType = errors.New("unknown type of message")

// EncodeServer returns m as a frame. An Event must be a valid one, as for AppendEventFrame.
func EncodeServer(m ServerMessage) []byte {
	switch m := m.(type) {
	case *SocketMeta:
		return encode(typeSocketMeta, m)
	case *Accepted:
		return encode(typeAccepted, m)
	case *Canceling:
		return encode(typeCanceling, m)
	case *LogLines:
		return encode(typeLogLines, m)
	case *Event:
		return AppendEventFrame(make([]byte, 0, eventFrameRoom+len(m.Body)), m)
	case *Subscribed:
		return encode(typeSubscribed, m)
	case *Unsubscribed:
		return encode(typeUnsubscribed, m)
	case *Presence:
		return encode(typePresence, m)
	case *Post:
		return AppendPostFrame(make([]byte, 0, postFrameRoom+len(m.Body)), m)
	case *Missed:
		return encode(typeMissed, m)
	case *Request:
		return encode(typeRequest, m)
	case *Refused:
		return encode(typeError, m)
	case *Pong:
		return encode(typePong, m)
	case *Bye:
		return encode(typeBye, m)
	}
	panic(fmt.Sprintf("wire: %T is not a server's message", m))
}

// DecodeServer reads one frame of a server. It keeps nothing of p. Unknown fields are ignored;
// an error means that the frame breaks the protocol, or wraps ErrUnknownType or ErrTooLarge.
func DecodeServer(p []byte) (ServerMessage, error) {
	if len(p) > MaxServerFrame {
		return nil, fmt.Errorf("server frame: %w: it has %d bytes and may have %d", ErrTooLarge, len(p), MaxServerFrame)
	}
	if !utf8.Valid(p) {
		return nil, errors.New("server frame: not UTF-8")
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(p, &head); err != nil {
		return nil, fmt.Errorf("server frame: %s", describe(err))
	}
	var m interface {
		ServerMessage
		check() error
	}
	switch head.Type {
	case typeSocketMeta:
		m = new(SocketMeta)
	case typeAccepted:
		m = new(Accepted)
	case typeCanceling:
		m = new(Canceling)
	case typeLogLines:
		m = new(LogLines)
	case typeEvent:
		return decodeEventFrame(p)
	case typeSubscribed:
		m = new(Subscribed)
	case typeUnsubscribed:
		m = new(Unsubscribed)
	case typePresence:
		m = new(Presence)
	case typeMessage:
		m = new(Post)
	case typeMissed:
		m = new(Missed)
	case typeRequest:
		m = new(Request)
	case typeError:
		m = new(Refused)
	case typePong:
		m = new(Pong)
	case typeBye:
		m = new(Bye)
	default:
		return nil, fmt.Errorf("server frame: %w: %.64q", ErrUnknownType, head.Type)
	}
	if err := json.Unmarshal(p, m); err != nil {
		return nil, fmt.Errorf("%s: %s", head.Type, describe(err))
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", head.Type, err)
	}
	return m, nil
}

func (m *SocketMeta) check() error {
	if m.Client.IsZero() {
		return fmt.Errorf("client_id: %w: there is none", socketmeta.ErrClientID)
	}
	if _, err := socketmeta.ParseServerID(string(m.Server)); err != nil {
		return fmt.Errorf("server_id: %w", err)
	}
	for i, t := range m.Tasks {
		if _, err := ParseTaskID(string(t.Task)); err != nil {
			return fmt.Errorf("tasks[%d].task_id: %w", i, err)
		}
	}
	return nil
}

func (m *Accepted) check() error {
	return checkTaskID(m.Task)
}

func (m *Canceling) check() error {
	return checkTaskID(m.Task)
}

func (m *Refused) check() error {
	if m.Code == "" {
		return errors.New("it has no code")
	}
	return nil
}

func (m *Pong) check() error { return nil }

func (m *Bye) check() error {
	if m.Code < 1000 || m.Code > 4999 {
		return fmt.Errorf("code %d is not a close code", m.Code)
	}
	return nil
}
