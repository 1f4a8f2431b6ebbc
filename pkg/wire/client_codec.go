package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// DecodeClient reads one frame of a client. It keeps nothing of p.
//
// Types and limits are strict, unknown fields are ignored, names may be written in any case, and
// of a field that comes twice the last one counts. What it refuses it answers: the *Refused is ready to be sent, and has the
// request's id and task_id if they could be read.
func DecodeClient(p []byte) (ClientMessage, *Refused) {
	if len(p) > MaxClientFrame {
		return nil, &Refused{Error: *Errorf(CodeFrameTooLarge, "the frame has %d bytes and may have %d", len(p), MaxClientFrame)}
	}
	if !utf8.Valid(p) {
		return nil, &Refused{Error: *Errorf(CodeBadFrame, "the frame is not UTF-8")}
	}
	if ack := decodeAck(p); ack != nil {
		return ack, nil
	}
	var head struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		Task TaskID `json:"task_id"`
	}
	refuse := func(code Code, format string, args ...any) (ClientMessage, *Refused) {
		r := &Refused{Error: *Errorf(code, format, args...)}
		if len(head.ID) <= MaxID {
			r.ID = head.ID
		}
		if _, err := ParseTaskID(string(head.Task)); err == nil {
			r.Task = head.Task
		}
		return nil, r
	}
	if err := json.Unmarshal(p, &head); err != nil {
		// A field of the wrong type is judged below, by the message that has such a field.
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok || e.Field == "" || e.Field == "type" {
			return refuse(CodeBadFrame, "%s", describe(err))
		}
	}

	var m interface {
		ClientMessage
		check() error
	}
	switch head.Type {
	case typeHello:
		m = new(Hello)
	case typeConfirm:
		m = new(Confirm)
	case typeSubmit:
		m = new(Submit)
	case typeCancel:
		m = new(Cancel)
	case typeLogRead:
		m = new(LogRead)
	case typeAck:
		m = new(Ack)
	case typeSubscribe:
		m = new(Subscribe)
	case typeUnsubscribe:
		m = new(Unsubscribe)
	case typePresence:
		m = new(AskPresence)
	case typeReply:
		m = new(Reply)
	case typePing:
		m = new(Ping)
	case "":
		return refuse(CodeBadFrame, "the message has no type")
	default:
		return refuse(CodeUnknownType, "type %.64q is not one of hello, confirm, submit, cancel, log_read, ack, subscribe, unsubscribe, presence, reply, ping", head.Type)
	}
	if err := json.Unmarshal(p, m); err != nil {
		return refuse(CodeBadFrame, "%s: %s", head.Type, describe(err))
	}
	if err := m.check(); err != nil {
		return refuse(CodeBadFrame, "%s: %v", head.Type, err)
	}
	return m, nil
}

// EncodeClient returns m as a frame. It panics if a Submit's Params is not JSON.
func EncodeClient(m ClientMessage) []byte {
	switch m := m.(type) {
	case *Hello:
		return encode(typeHello, m)
	case *Confirm:
		return encode(typeConfirm, m)
	case *Submit:
		return encode(typeSubmit, m)
	case *Cancel:
		return encode(typeCancel, m)
	case *LogRead:
		return encode(typeLogRead, m)
	case *Ack:
		return encode(typeAck, m)
	case *Subscribe:
		return encode(typeSubscribe, m)
	case *Unsubscribe:
		return encode(typeUnsubscribe, m)
	case *AskPresence:
		return encode(typePresence, m)
	case *Reply:
		return encode(typeReply, m)
	case *Ping:
		return encode(typePing, m)
	}
	panic(fmt.Sprintf("wire: %T is not a client's message", m))
}

func encode(typ string, m any) []byte {
	object, err := marshal(m)
	if err != nil {
		panic(fmt.Sprintf("wire: encode %s: %v", typ, err)) // only raw JSON of the caller's can fail
	}
	return putFirst("type", typ, object)
}

func (m *Hello) check() error {
	switch {
	case len(m.Auth) > MaxToken:
		return fmt.Errorf("auth has %d bytes and may have %d", len(m.Auth), MaxToken)
	case len(m.Token) > MaxToken:
		return fmt.Errorf("token has %d bytes and may have %d", len(m.Token), MaxToken)
	}
	return checkPositions(m.Tasks)
}

func (m *Confirm) check() error {
	if m.Epoch < 1 || m.Epoch > MaxNumber {
		return fmt.Errorf("epoch %d is out of range", m.Epoch)
	}
	return nil
}

func (m *Submit) check() error {
	if err := checkRequestID(m.ID); err != nil {
		return err
	}
	if err := checkTaskID(m.Task); err != nil {
		return err
	}
	if err := CheckKind(m.Kind); err != nil {
		return fmt.Errorf("kind: %w", err)
	}
	if m.Params != nil && !isObject(m.Params) {
		return errors.New("params must be an object")
	}
	return CheckPriority(m.Priority)
}

func (m *Cancel) check() error {
	if err := checkRequestID(m.ID); err != nil {
		return err
	}
	if err := checkTaskID(m.Task); err != nil || m.Kind == "" {
		return err
	}
	if err := CheckKind(m.Kind); err != nil {
		return fmt.Errorf("kind: %w", err)
	}
	return nil
}

func (m *Ack) check() error { return checkPositions(m.Tasks) }

func (m *Ping) check() error { return checkRequestID(m.ID) }

func checkRequestID(id string) error {
	if len(id) > MaxID {
		return fmt.Errorf("id has %d bytes and may have %d", len(id), MaxID)
	}
	return nil
}

func checkTaskID(t TaskID) error {
	if _, err := ParseTaskID(string(t)); err != nil {
		return fmt.Errorf("task_id: %w", err)
	}
	return nil
}

func checkPositions(ps []Position) error {
	if len(ps) > MaxPositions {
		return fmt.Errorf("tasks has %d positions and may have %d", len(ps), MaxPositions)
	}
	for i, p := range ps {
		if err := p.check(); err != nil {
			return fmt.Errorf("tasks[%d].%w", i, err)
		}
	}
	return nil
}

func (p *Position) check() error {
	if _, err := ParseTaskID(string(p.Task)); err != nil {
		return fmt.Errorf("task_id: %w", err)
	}
	if p.Attempt < 0 || p.Attempt > MaxNumber {
		return fmt.Errorf("attempt: %d is out of range", p.Attempt)
	}
	if p.Next < 0 || p.Next > MaxNumber {
		return fmt.Errorf("next: %d is out of range", p.Next)
	}
	if p.Run != "" {
		if _, err := ParseRunID(string(p.Run)); err != nil {
			return fmt.Errorf("run_id: %w", err)
		}
	}
	return nil
}
