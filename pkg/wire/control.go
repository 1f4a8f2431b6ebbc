package wire

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// ControlMessage is what workers and runners say to each other through the broker: *Moved, *Seek, *Handback,
// *Offer, *Owner or *Probe among workers; *AskKinds, *FindRuns and *ReadLog to runners, which answer with
// *Kinds, *RunsFound and *LogChunk; *Here, *FindChannels with *ChannelsFound, *Forward with *Forwarded, and *AskClient
// with *Reached and *ClientReplied for channels and requests. Each may be lost: whoever needs an answer asks again.
type ControlMessage interface {
	ControlType() string
	check() error
}

// Moved says that the clients are attached to From, each in the epoch given. Whoever holds
// events for one of them passes them on to From; whoever has a socket of one in a lower epoch
// closes it.
type Moved struct {
	From    socketmeta.ServerID `json:"from"`
	Clients []Claim             `json:"clients"`
}

// Claim is one client's place in Moved.
type Claim struct {
	Client socketmeta.ClientID `json:"client_id"`
	Epoch  socketmeta.Epoch    `json:"epoch"`
}

// Seek says that From holds events for clients that are not attached to it. The worker that has
// one of them answers with Moved.
type Seek struct {
	From    socketmeta.ServerID   `json:"from"`
	Clients []socketmeta.ClientID `json:"clients"`
}

// Handback asks the worker that has adopted Mailbox to give it up: its own worker, which asks, is back.
type Handback struct {
	Mailbox socketmeta.ServerID `json:"mailbox"`
}

// Offer says that From, which stops, is about to give up Mailbox: whoever can, adopts it.
type Offer struct {
	From    socketmeta.ServerID `json:"from"`
	Mailbox socketmeta.ServerID `json:"mailbox"`
}

// Owner says that From owns Mailbox from now on.
type Owner struct {
	From    socketmeta.ServerID `json:"from"`
	Mailbox socketmeta.ServerID `json:"mailbox"`
}

// Probe asks nothing: that it is not returned says that the mailbox has an owner.
type Probe struct {
	From socketmeta.ServerID `json:"from"`
}

// Kinds says which kinds a runner takes; none when it stops. It says so to all when it begins to take
// tasks and every 30 s, and to a worker that asks.
type Kinds struct {
	Runner  string      `json:"runner"`
	Slots   int         `json:"slots"`
	Running int         `json:"running"` // tasks that it works on
	Kinds   []KindOffer `json:"kinds"`
}

// KindOffer is one kind of Kinds.
type KindOffer struct {
	Kind      string          `json:"kind"`
	Schema    json.RawMessage `json:"schema,omitempty"` // a JSON Schema (2020-12) of the parameters; none takes any
	TimeoutMS int64           `json:"timeout_ms"`       // of one run
}

// AskKinds asks all runners for their Kinds: From has just joined.
type AskKinds struct {
	From socketmeta.ServerID `json:"from"`
}

func (*Moved) ControlType() string    { return "moved" }
func (*Seek) ControlType() string     { return "seek" }
func (*Handback) ControlType() string { return "handback" }
func (*Offer) ControlType() string    { return "offer" }
func (*Owner) ControlType() string    { return "owner" }
func (*Probe) ControlType() string    { return "probe" }
func (*Kinds) ControlType() string    { return "kinds" }
func (*AskKinds) ControlType() string { return "ask_kinds" }

// EncodeControl returns the body of m as it crosses the broker; the message's type says which it is.
func EncodeControl(m ControlMessage) []byte {
	p, err := marshal(m)
	if err != nil {
		panic(fmt.Sprintf("wire: encode %s: %v", m.ControlType(), err)) // nothing in them can fail
	}
	return p
}

// DecodeControl reads a control message of the given type. It keeps nothing of p. ErrUnknownType
// is for one of a newer version: pass over it.
func DecodeControl(typ string, p []byte) (ControlMessage, error) {
	var m ControlMessage
	switch typ {
	case "moved":
		m = new(Moved)
	case "seek":
		m = new(Seek)
	case "handback":
		m = new(Handback)
	case "offer":
		m = new(Offer)
	case "owner":
		m = new(Owner)
	case "probe":
		m = new(Probe)
	case "runs_find":
		m = new(FindRuns)
	case "runs_found":
		m = new(RunsFound)
	case "log_read":
		m = new(ReadLog)
	case "log_chunk":
		m = new(LogChunk)
	case "here":
		m = new(Here)
	case "channels_find":
		m = new(FindChannels)
	case "channels_found":
		m = new(ChannelsFound)
	case "forward":
		m = new(Forward)
	case "forwarded":
		m = new(Forwarded)
	case "client_ask":
		m = new(AskClient)
	case "client_reached":
		m = new(Reached)
	case "client_replied":
		m = new(ClientReplied)
	case "kinds":
		m = new(Kinds)
	case "ask_kinds":
		m = new(AskKinds)
	default:
		return nil, fmt.Errorf("control message: %w: %.64q", ErrUnknownType, typ)
	}
	if len(p) > MaxControl {
		return nil, fmt.Errorf("control message %s: %w: it has %d bytes and may have %d", typ, ErrTooLarge, len(p), MaxControl)
	}
	if err := json.Unmarshal(p, m); err != nil {
		return nil, fmt.Errorf("control message %s: %s", typ, describe(err))
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("control message %s: %w", typ, err)
	}
	return m, nil
}

func (m *Moved) check() error {
	for i, c := range m.Clients {
		if c.Client.IsZero() || c.Epoch < 1 || c.Epoch > MaxNumber {
			return fmt.Errorf("clients[%d] has no client_id or its epoch is out of range", i)
		}
	}
	return checkFrom(m.From, len(m.Clients))
}

func (m *Seek) check() error {
	for i, c := range m.Clients {
		if c.IsZero() {
			return fmt.Errorf("clients[%d] is empty", i)
		}
	}
	return checkFrom(m.From, len(m.Clients))
}

func (m *Handback) check() error { return checkMailbox(m.Mailbox) }
func (m *Offer) check() error    { return cmp.Or(checkFrom(m.From, 1), checkMailbox(m.Mailbox)) }
func (m *Owner) check() error    { return cmp.Or(checkFrom(m.From, 1), checkMailbox(m.Mailbox)) }
func (m *Probe) check() error    { return checkFrom(m.From, 1) }
func (m *AskKinds) check() error { return checkFrom(m.From, 1) }

func (m *Kinds) check() error {
	if err := CheckKind(m.Runner); err != nil { // a name has the letters of a kind
		return fmt.Errorf("runner: %w", err)
	}
	if m.Slots < 0 || m.Slots > MaxNumber || m.Running < 0 || m.Running > MaxNumber {
		return fmt.Errorf("slots %d or running %d is out of range", m.Slots, m.Running)
	}
	for i, k := range m.Kinds {
		if err := CheckKind(k.Kind); err != nil {
			return fmt.Errorf("kinds[%d].kind: %w", i, err)
		}
		if len(k.Schema) > MaxSchema {
			return fmt.Errorf("kinds[%d].schema: %w: it has %d bytes and may have %d", i, ErrTooLarge, len(k.Schema), MaxSchema)
		}
		if k.Schema != nil && !isObject(k.Schema) {
			return fmt.Errorf("kinds[%d].schema must be an object", i)
		}
		if k.TimeoutMS < 0 || k.TimeoutMS > MaxNumber {
			return fmt.Errorf("kinds[%d].timeout_ms: %d is out of range", i, k.TimeoutMS)
		}
	}
	return nil
}

func checkFrom(s socketmeta.ServerID, clients int) error {
	if _, err := socketmeta.ParseServerID(string(s)); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if clients < 1 || clients > MaxClaims {
		return fmt.Errorf("it names %d clients and may name 1 to %d", clients, MaxClaims)
	}
	return nil
}

// A reserved server, as "_parked", is none to ServerID's own reader; check knows better.

func (m *Handback) UnmarshalJSON(p []byte) (err error) { _, m.Mailbox, err = readPlace(p); return err }
func (m *Offer) UnmarshalJSON(p []byte) (err error) {
	m.From, m.Mailbox, err = readPlace(p)
	return err
}
func (m *Owner) UnmarshalJSON(p []byte) (err error) {
	m.From, m.Mailbox, err = readPlace(p)
	return err
}

func readPlace(p []byte) (from, mailbox socketmeta.ServerID, err error) {
	var place struct {
		From    string `json:"from"`
		Mailbox string `json:"mailbox"`
	}
	err = json.Unmarshal(p, &place)
	return socketmeta.ServerID(place.From), socketmeta.ServerID(place.Mailbox), err
}

// checkMailbox lets pass the reserved servers too: an underscore before [a-z0-9], as in "_parked". A
// mailbox becomes part of a queue's name.
func checkMailbox(s socketmeta.ServerID) error {
	like := string(s)
	if name, reserved := strings.CutPrefix(like, "_"); reserved {
		like = "reserved-" + name
	}
	if _, err := socketmeta.ParseServerID(like); err != nil {
		return fmt.Errorf("mailbox %.80q: %w", s, err)
	}
	return nil
}
