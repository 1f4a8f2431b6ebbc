package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// Here says that the worker From is there, and how it stands. It says so to all when it joins, when that
// changes, every 30 s, and when it stops.
type Here struct {
	From        socketmeta.ServerID `json:"from"`
	Ready       bool                `json:"ready"`
	Gone        bool                `json:"gone,omitempty"` // it stops
	Connections int                 `json:"connections"`
	Sessions    int                 `json:"sessions"`
	Channels    int                 `json:"channels"`
	Started     Time                `json:"started_at"`
}

// FindChannels asks all workers and runners what they have of channels: posts that they keep, and subscribers.
// Each one answers with ChannelsFound, if only to say that it has nothing.
type FindChannels struct {
	From     socketmeta.ServerID `json:"from"`
	Ask      RunID               `json:"ask"`
	Channels []Channel           `json:"channels"` // 1 to MaxAskedChannels

	CountOnly bool `json:"count_only,omitempty"` // only subscribers are asked for: posts are left out of the answer
}

// ChannelsFound answers FindChannels, in order of the question. A channel of which there is nothing is left out.
type ChannelsFound struct {
	Ask      RunID          `json:"ask"`
	Name     string         `json:"name"` // of the worker (a server ID) or the runner (r. before its name)
	Channels []FoundChannel `json:"channels"`
}

// FoundChannel is what one process has of a channel.
type FoundChannel struct {
	Channel     Channel `json:"channel"`
	Subscribers int     `json:"subscribers,omitempty"`
	Kept        []Post  `json:"kept,omitempty"` // the oldest first: the newest that fit into the answer; those of another channel are passed over
}

// Forward hands a client's message, which came to From by HTTP, to the worker that has the client's
// connection. It answers with Forwarded.
type Forward struct {
	From   socketmeta.ServerID `json:"from"`
	Ask    RunID               `json:"ask"`
	Client socketmeta.ClientID `json:"client_id"`
	Epoch  socketmeta.Epoch    `json:"epoch"`           // of the token that came with it
	Frame  json.RawMessage     `json:"frame"`           // at most MaxClientFrame
	Reply  bool                `json:"reply,omitempty"` // a submit or a cancel that is answered by Forwarded and not by the connection, which may be away
}

// Forwarded answers Forward: the message was taken, or why not.
type Forwarded struct {
	Ask   RunID           `json:"ask"`
	Error *Error          `json:"error,omitempty"`
	Reply json.RawMessage `json:"reply,omitempty"` // the frame that would have gone to the connection, if it was asked for
}

// AskClient asks whichever worker has the client to send it a Request. Reached says that one did, and ClientReplied
// what the client said; both go to From.
type AskClient struct {
	From      socketmeta.ServerID `json:"from"`
	Ask       RunID               `json:"ask"`
	Client    socketmeta.ClientID `json:"client_id"`
	Key       string              `json:"key"`
	Name      string              `json:"name"`
	Body      json.RawMessage     `json:"body,omitempty"`
	TimeoutMS int64               `json:"timeout_ms"` // that are left
}

// Reached says that the client of an AskClient is attached to the worker Server, and was sent the Request.
type Reached struct {
	Ask    RunID               `json:"ask"`
	Server socketmeta.ServerID `json:"server_id"`
}

// ClientReplied carries a client's Reply to the worker that asked.
type ClientReplied struct {
	Ask    RunID               `json:"ask"`
	Client socketmeta.ClientID `json:"client_id"` // who replied
	Body   json.RawMessage     `json:"body,omitempty"`
	Error  string              `json:"error,omitempty"`
}

func (*Here) ControlType() string          { return "here" }
func (*FindChannels) ControlType() string  { return "channels_find" }
func (*ChannelsFound) ControlType() string { return "channels_found" }
func (*Forward) ControlType() string       { return "forward" }
func (*Forwarded) ControlType() string     { return "forwarded" }
func (*AskClient) ControlType() string     { return "client_ask" }
func (*Reached) ControlType() string       { return "client_reached" }
func (*ClientReplied) ControlType() string { return "client_replied" }

func (m *Here) check() error {
	if m.Connections < 0 || m.Sessions < 0 || m.Channels < 0 {
		return errors.New("a number is negative")
	}
	return checkFrom(m.From, 1)
}

func (m *FindChannels) check() error {
	if err := checkFrom(m.From, 1); err != nil {
		return err
	}
	if len(m.Channels) < 1 || len(m.Channels) > MaxAskedChannels {
		return fmt.Errorf("it asks for %d channels and may ask for 1 to %d", len(m.Channels), MaxAskedChannels)
	}
	for i, c := range m.Channels {
		if err := checkChannel(c); err != nil {
			return fmt.Errorf("channels[%d]: %w", i, err)
		}
	}
	return checkAskID(m.Ask)
}

func (m *ChannelsFound) check() error {
	if m.Name == "" || len(m.Name) > 2*MaxID {
		return fmt.Errorf("name must have 1 to %d bytes", 2*MaxID)
	}
	if len(m.Channels) > MaxAskedChannels {
		return fmt.Errorf("it has %d channels and may have %d", len(m.Channels), MaxAskedChannels)
	}
	for i := range m.Channels {
		c := &m.Channels[i]
		if err := checkChannel(c.Channel); err != nil {
			return fmt.Errorf("channels[%d]: %w", i, err)
		}
		if c.Subscribers < 0 || c.Subscribers > MaxNumber {
			return fmt.Errorf("channels[%d].subscribers: %d is out of range", i, c.Subscribers)
		}
		for j := range c.Kept {
			if err := c.Kept[j].Check(); err != nil {
				return fmt.Errorf("channels[%d].kept[%d]: %w", i, j, err)
			}
		}
	}
	return checkAskID(m.Ask)
}

func (m *Forward) check() error {
	if m.Epoch < 1 || m.Epoch > MaxNumber {
		return fmt.Errorf("epoch %d is out of range", m.Epoch)
	}
	if !isObject(m.Frame) {
		return errors.New("frame must be an object")
	}
	if len(m.Frame) > MaxClientFrame {
		return fmt.Errorf("frame: %w: it has %d bytes and may have %d", ErrTooLarge, len(m.Frame), MaxClientFrame)
	}
	return checkAsk(m.From, m.Ask, m.Client)
}

func (m *Forwarded) check() error {
	if len(m.Reply) > MaxClientFrame {
		return fmt.Errorf("reply: %w: it has %d bytes and may have %d", ErrTooLarge, len(m.Reply), MaxClientFrame)
	}
	return checkAskID(m.Ask)
}

func (m *AskClient) check() error {
	switch {
	case m.Key == "" || len(m.Key) > MaxKey:
		return fmt.Errorf("key must have 1 to %d bytes", MaxKey)
	case len(m.Body) > MaxPost:
		return fmt.Errorf("body: %w: it has %d bytes and may have %d", ErrTooLarge, len(m.Body), MaxPost)
	case m.TimeoutMS < 0 || m.TimeoutMS > MaxNumber:
		return fmt.Errorf("timeout_ms %d is out of range", m.TimeoutMS)
	}
	if err := CheckName(m.Name); err != nil {
		return err
	}
	return checkAsk(m.From, m.Ask, m.Client)
}

// CheckName says what is wrong with the name of what a client is asked for.
func CheckName(name string) error {
	if name == "" || len(name) > MaxID || !isPlain(name) {
		return fmt.Errorf("name %.80q must have 1 to %d bytes of [A-Za-z0-9_.-]", name, MaxID)
	}
	return nil
}

func (m *Reached) check() error {
	if err := checkFrom(m.Server, 1); err != nil {
		return err
	}
	return checkAskID(m.Ask)
}

func (m *ClientReplied) check() error {
	if m.Client.IsZero() {
		return fmt.Errorf("client_id: %w: there is none", socketmeta.ErrClientID)
	}
	if len(m.Body) > MaxClientFrame || len(m.Error) > MaxReason {
		return fmt.Errorf("the reply: %w", ErrTooLarge)
	}
	return checkAskID(m.Ask)
}

func checkAskID(ask RunID) error {
	if _, err := ParseRunID(string(ask)); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	return nil
}
