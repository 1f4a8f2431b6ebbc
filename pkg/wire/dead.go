package wire

import (
	"encoding/json"
	"slices"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// DeadReason says why a task was given up before it ended.
type DeadReason string

// The reasons that are known. All but the last two are RabbitMQ's own words.
const (
	DeadDeliveryLimit DeadReason = "delivery_limit" // it was delivered more often than its queue allows
	DeadRejected      DeadReason = "rejected"       // a taker refused it for good
	DeadExpired       DeadReason = "expired"        // nobody took it for as long as its queue keeps it
	DeadMaxlen        DeadReason = "maxlen"         // its queue was full, and dropped it
	DeadBadBody       DeadReason = "bad_body"       // no runner can read it
	DeadOther         DeadReason = "other"          // a reason that is not in this list, or none
)

// DeadCanceled is the reason of a task that is ended for its client before anybody began it. No task lies among
// the dead ones for it.
const DeadCanceled DeadReason = "canceled"

// DeadReasons are all those for which a task lies among the dead ones.
var DeadReasons = []DeadReason{DeadDeliveryLimit, DeadRejected, DeadExpired, DeadMaxlen, DeadBadBody, DeadOther}

// DeadAttempt is the attempt in which a task that nobody has gets its end: above any that a run of it may have had, for
// nobody knows how many there were. Those who take the ending over count on from it.
const DeadAttempt = MaxAttempt / 2

// DeadReasonOf reads why a task lies among the dead ones: the header reason of whoever put it there, or what
// RabbitMQ says of a task that it has dead-lettered.
func DeadReasonOf(headers map[string]any) DeadReason {
	for _, name := range []string{"reason", "x-first-death-reason"} {
		if text, _ := headers[name].(string); text != "" {
			return DeadReason(text).known()
		}
	}
	return DeadOther
}

// known is r, or DeadOther if r is not in the list.
func (r DeadReason) known() DeadReason {
	if slices.Contains(DeadReasons, r) {
		return r
	}
	return DeadOther
}

// Failure is what the client of a dead task is told.
func (r DeadReason) Failure() *Error {
	switch r {
	case DeadDeliveryLimit:
		return Errorf(CodeAttempts, "the task was given to task runners too often without an end")
	case DeadRejected:
		return Errorf(CodeInternal, "a task runner refused the task for good")
	case DeadExpired:
		return Errorf(CodeInternal, "no task runner took the task for as long as it is kept")
	case DeadMaxlen:
		return Errorf(CodeInternal, "the task was dropped from a queue that was full")
	case DeadBadBody:
		return Errorf(CodeInternal, "no task runner can read the task")
	case DeadCanceled:
		return Errorf(CodeCanceled, "the task was canceled")
	}
	return Errorf(CodeInternal, "the task was given up before it ended")
}

// DecodeTaskAddress reads of a task that DecodeTask refuses whose it is and where its events go: each of the
// three from its correlation ID or headers or, where it is missing there, from its body. False if one of them
// cannot be read. The Task has nothing else.
func DecodeTaskAddress(correlation string, headers map[string]any, body []byte) (*Task, bool) {
	var named struct {
		Client string `json:"client_id"`
		Server string `json:"server_id"`
		Task   string `json:"task_id"`
	}
	_ = json.Unmarshal(body, &named) // what it did not fill is missing
	for name, into := range map[string]*string{headerClient: &named.Client, "server_id": &named.Server} {
		if text, _ := headers[name].(string); text != "" {
			*into = text
		}
	}
	if correlation != "" {
		named.Task = correlation
	}
	client, err := socketmeta.ParseClientID(named.Client)
	if err != nil {
		return nil, false
	}
	server, err := socketmeta.ParseServerID(named.Server)
	if err != nil {
		return nil, false
	}
	id, err := ParseTaskID(named.Task)
	if err != nil {
		return nil, false
	}
	return &Task{Meta: socketmeta.Meta{Client: client, Server: server}, Task: id}, true
}
