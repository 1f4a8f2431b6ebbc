package wire

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Subscribe asks for the messages of a channel from now on, after a snapshot of what its publishers keep. A
// subscription belongs to the connection: who comes back subscribes again. Asking again is answered again.
type Subscribe struct {
	ID      string  `json:"id,omitempty"` // echoed in the reply
	Channel Channel `json:"channel"`
	Grant   string  `json:"grant,omitempty"` // a ticket that allows it, where not everybody may
}

// Unsubscribe ends a subscription. Ending one that is not there is answered all the same.
type Unsubscribe struct {
	ID      string  `json:"id,omitempty"`
	Channel Channel `json:"channel"`
}

// AskPresence asks how many are subscribed to a channel, in the whole cluster. It needs what Subscribe needs.
type AskPresence struct {
	ID      string  `json:"id,omitempty"`
	Channel Channel `json:"channel"`
	Grant   string  `json:"grant,omitempty"`
}

// Reply answers a Request, by its ID, on any connection of the session: with Body or with Error.
type Reply struct {
	ID      string          `json:"id,omitempty"` // the reply's own; echoed if it is refused
	Request string          `json:"request_id"`
	Body    json.RawMessage `json:"body,omitempty"`
	Error   string          `json:"error,omitempty"` // for people: why the client cannot do it
}

// Subscribed replies to Subscribe. So many messages of the channel follow as its snapshot, the oldest first; what
// comes after them is new.
type Subscribed struct {
	ID       string  `json:"id,omitempty"`
	Channel  Channel `json:"channel"`
	Snapshot int     `json:"snapshot"`
	Partial  bool    `json:"partial,omitempty"` // a publisher did not say in time what it keeps
}

// Unsubscribed replies to Unsubscribe: no message of the channel comes after it.
type Unsubscribed struct {
	ID      string  `json:"id,omitempty"`
	Channel Channel `json:"channel"`
}

// Presence replies to AskPresence.
type Presence struct {
	ID          string  `json:"id,omitempty"`
	Channel     Channel `json:"channel"`
	Subscribers int     `json:"subscribers"`
	Partial     bool    `json:"partial,omitempty"` // a worker did not answer in time
}

// Missed says that messages of a channel did not come to this subscriber, and will not.
type Missed struct {
	Channel Channel      `json:"channel"`
	Count   int64        `json:"count"` // 0 if nobody knows
	Reason  MissedReason `json:"reason"`
}

// MissedReason says why messages of a channel did not come.
type MissedReason string

// The reasons of Missed.
const (
	MissedSlow MissedReason = "slow" // this subscriber did not read fast enough
	MissedLost MissedReason = "lost" // they did not reach this worker: it was behind, or had no broker
)

// Request asks the client for something in the name of a backend that waits for its Reply. It may come
// twice: one that has the Key of an earlier one gets the same reply and is not done again.
type Request struct {
	ID        string          `json:"request_id"`
	Key       string          `json:"key"`
	Name      string          `json:"name"` // what is asked for, at most MaxID bytes of [A-Za-z0-9_.-]
	Body      json.RawMessage `json:"body,omitempty"`
	TimeoutMS int64           `json:"timeout_ms"` // nobody waits for the reply after that
}

func (*Subscribe) clientMessage()   {}
func (*Unsubscribe) clientMessage() {}
func (*AskPresence) clientMessage() {}
func (*Reply) clientMessage()       {}

func (*Subscribed) serverMessage()   {}
func (*Unsubscribed) serverMessage() {}
func (*Presence) serverMessage()     {}
func (*Missed) serverMessage()       {}
func (*Request) serverMessage()      {}

func (m *Subscribe) check() error   { return checkChannelRequest(m.ID, m.Channel, m.Grant) }
func (m *Unsubscribe) check() error { return checkChannelRequest(m.ID, m.Channel, "") }
func (m *AskPresence) check() error { return checkChannelRequest(m.ID, m.Channel, m.Grant) }

func (m *Reply) check() error {
	if err := checkRequestID(m.ID); err != nil {
		return err
	}
	switch {
	case m.Request == "" || len(m.Request) > MaxAskID:
		return fmt.Errorf("request_id must have 1 to %d bytes", MaxAskID)
	case len(m.Error) > MaxReason:
		return fmt.Errorf("error has %d bytes and may have %d", len(m.Error), MaxReason)
	}
	return nil
}

func (m *Subscribed) check() error   { return checkChannel(m.Channel) }
func (m *Unsubscribed) check() error { return checkChannel(m.Channel) }
func (m *Presence) check() error     { return checkChannel(m.Channel) }

func (m *Missed) check() error {
	if m.Count < 0 {
		return errors.New("count is negative")
	}
	return checkChannel(m.Channel)
}

func (m *Request) check() error {
	switch {
	case m.ID == "" || len(m.ID) > MaxAskID:
		return fmt.Errorf("request_id must have 1 to %d bytes", MaxAskID)
	case m.TimeoutMS < 0 || m.TimeoutMS > MaxNumber:
		return fmt.Errorf("timeout_ms %d is out of range", m.TimeoutMS)
	}
	return nil
}

func checkChannel(c Channel) error {
	if _, err := ParseChannel(string(c)); err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	return nil
}

func checkChannelRequest(id string, c Channel, grant string) error {
	if err := checkRequestID(id); err != nil {
		return err
	}
	if len(grant) > MaxToken {
		return fmt.Errorf("grant has %d bytes and may have %d", len(grant), MaxToken)
	}
	return checkChannel(c)
}
