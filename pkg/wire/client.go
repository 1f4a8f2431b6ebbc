package wire

import (
	"encoding/json"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// ClientMessage is what a client sends: *Hello, *Confirm, *Submit, *Cancel, *LogRead, *Ack, *Subscribe,
// *Unsubscribe, *AskPresence, *Reply or *Ping.
type ClientMessage interface{ clientMessage() }

// Hello opens a session or resumes one. It is the first message of a socket; a client that says
// nothing for a second is given a new session, so that the simplest client needs to send nothing.
type Hello struct {
	Auth  string     `json:"auth,omitempty"`  // who the user is; asked for only where authentication is on
	Token string     `json:"token,omitempty"` // the resume ticket of the last socket_meta
	Tasks []Position `json:"tasks,omitempty"` // the client's open tasks, and where it stands in each
}

// Confirm says that the client has the socket_meta which answered its hello, and keeps its token.
// It is asked for where the session was resumed: until then the worker claims the session from
// nobody and sends nothing, for a welcome that is lost on the way must not cost the session its
// place (docs/adr/0006). Epoch is that of the socket_meta.
type Confirm struct {
	Epoch socketmeta.Epoch `json:"epoch"`
}

// Position says how far one client is in one task: its application has every durable event of
// (attempt, run) whose seq is lower than Next, and wants nothing of an earlier attempt or run.
// An open task of which nothing has come yet has Attempt 0, no Run and Next 0.
type Position struct {
	Task    TaskID `json:"task_id"`
	Attempt int    `json:"attempt"`
	Run     RunID  `json:"run_id"`
	Next    int64  `json:"next"`
}

// Submit asks for a task. It is idempotent: the same task ID with the same contents is accepted
// again and runs once; with other contents it is a conflict. Once the session has moved or its worker was
// started anew those are accepted too, and only the contents that a runner claims first are run (docs/adr/0002).
type Submit struct {
	ID     string          `json:"id,omitempty"` // echoed in the reply
	Task   TaskID          `json:"task_id"`
	Kind   string          `json:"kind"`
	Params json.RawMessage `json:"params,omitempty"` // an object; what it may hold is the kind's affair

	Priority Priority `json:"priority,omitempty"`
}

// Cancel asks for the end of a task that this client submitted, whether it waits or runs. It may be
// asked again. The task's final event tells how it ended: an error with code canceled, or what came first.
type Cancel struct {
	ID   string `json:"id,omitempty"` // echoed in the reply
	Task TaskID `json:"task_id"`
	Kind string `json:"kind,omitempty"` // of the task; without it a task that waits for a runner ends only when one takes it
}

// Ack tells what the client's application has. It never covers an event that waits in a buffer.
type Ack struct {
	Tasks []Position `json:"tasks"`
}

// Ping asks for a pong: a browser cannot send or see RFC 6455's own.
type Ping struct {
	ID string `json:"id,omitempty"`
}

func (*Hello) clientMessage()   {}
func (*Confirm) clientMessage() {}
func (*Submit) clientMessage()  {}
func (*Cancel) clientMessage()  {}
func (*Ack) clientMessage()     {}
func (*Ping) clientMessage()    {}

// TaskState is what a worker knows of a task when its client comes back.
type TaskState string

// The states in a socket_meta.
const (
	TaskRunning  TaskState = "running"  // not known to have ended: what is missing will come
	TaskFinished TaskState = "finished" // its final event was acknowledged
	TaskUnknown  TaskState = "unknown"  // older than the resume window: nothing will come
)

// SocketMeta is the first frame of the server, the answer to hello.
type SocketMeta struct {
	Client         socketmeta.ClientID `json:"client_id"`
	Server         socketmeta.ServerID `json:"server_id"`
	Epoch          socketmeta.Epoch    `json:"epoch"`
	Token          string              `json:"token"` // for the next hello
	Route          string              `json:"route"` // for ?route= or X-Route; affinity and nothing else
	HeartbeatMS    int64               `json:"heartbeat_ms"`
	ResumeWindowMS int64               `json:"resume_window_ms"`
	Resumed        bool                `json:"resumed"`
	Reason         string              `json:"reason,omitempty"` // why the hello's token was not honoured
	Tasks          []TaskStatus        `json:"tasks,omitempty"`  // one for each task of the hello
}

// TaskStatus is one line of SocketMeta.
type TaskStatus struct {
	Task  TaskID    `json:"task_id"`
	State TaskState `json:"state"`
}

// Accepted replies to a submit after the broker's confirm: the task is stored.
type Accepted struct {
	ID       string `json:"id,omitempty"`
	Task     TaskID `json:"task_id"`
	Position *int   `json:"queue_position,omitempty"` // tasks ahead when it was accepted, roughly; absent if not known
}

// Canceling replies to a cancel after the broker's confirm: it will reach the task.
type Canceling struct {
	ID   string `json:"id,omitempty"`
	Task TaskID `json:"task_id"`
}

// Refused is an error frame: the reply to a request, or, without ID and Task, a word on the
// frame that came last.
type Refused struct {
	ID   string `json:"id,omitempty"`
	Task TaskID `json:"task_id,omitempty"`
	Error
}

// Pong answers a ping.
type Pong struct {
	ID string `json:"id,omitempty"`
}

// Bye comes before the server closes a socket; the close frame has the same code.
type Bye struct {
	Code         int    `json:"code"`
	Reason       string `json:"reason"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}
