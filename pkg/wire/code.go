package wire

import "fmt"

// Code says to a program what went wrong. This is the whole list; docs/PROTOCOL.md explains each.
type Code string

// The closed list of codes. The second column says whether the same request may succeed later.
const (
	CodeBadFrame        Code = "bad_frame"         // no:  not JSON, or a field of the wrong type or out of its limit
	CodeUnknownType     Code = "unknown_type"      // no:  a type that this version does not have
	CodeFrameTooLarge   Code = "frame_too_large"   // no:  over MaxClientFrame
	CodeUnexpected      Code = "unexpected"        // no:  a hello that is not the first message, or another message before the confirm
	CodeUnauthorized    Code = "unauthorized"      // no:  the auth token is missing or refused
	CodeUnknownKind     Code = "unknown_kind"      // no:  no task runner has ever offered this kind
	CodeBadParams       Code = "bad_params"        // no:  the kind's schema refuses the parameters
	CodeConflict        Code = "conflict"          // no:  the same task ID was submitted with other contents
	CodeUnknownTask     Code = "unknown_task"      // no:  this session has no such task that has not ended
	CodeLogUnavailable  Code = "log_unavailable"   // yes: no runner that can be reached has this log
	CodeForbidden       Code = "forbidden"         // no:  the ticket, or the lack of one, does not allow this channel or request
	CodeTooManyChannels Code = "too_many_channels" // yes: MaxSubscriptions are subscribed to
	CodeNotAttached     Code = "not_attached"      // yes: the client has no open connection, or not at the worker that its token names
	CodeNoAnswer        Code = "no_answer"         // yes: the client did not answer in time
	CodeTooManyTasks    Code = "too_many_tasks"    // yes: MaxOpenTasks are open
	CodeUnavailable     Code = "unavailable"       // yes: the worker has no broker now, or the broker refused
	CodeOverloaded      Code = "overloaded"        // yes: a queue of the worker is full
	CodeTimeout         Code = "timeout"           // yes: the task ran longer than its kind allows
	CodeFailed          Code = "failed"            // yes: the task ran and failed, as a build with an error does
	CodeOutputLimit     Code = "output_limit"      // no:  the task wrote more output than its kind allows
	CodeAttempts        Code = "attempts"          // no:  the task was started, or given to runners, too often without an end
	CodeCanceled        Code = "canceled"          // no:  the client asked for it
	CodeInternal        Code = "internal"          // yes: a fault of ours; the operator's log has the rest
)

var retryable = map[Code]bool{
	CodeBadFrame: false, CodeUnknownType: false, CodeFrameTooLarge: false, CodeUnexpected: false,
	CodeUnauthorized: false, CodeUnknownKind: false, CodeBadParams: false, CodeConflict: false,
	CodeUnknownTask: false, CodeCanceled: false, CodeForbidden: false,
	CodeTooManyChannels: true, CodeNotAttached: true, CodeNoAnswer: true,
	CodeLogUnavailable: true, CodeTooManyTasks: true, CodeUnavailable: true, CodeOverloaded: true, CodeTimeout: true,
	CodeFailed: true, CodeOutputLimit: false, CodeAttempts: false, CodeInternal: true,
}

// Retryable reports whether the same request may succeed later. A code outside the list is not.
func (c Code) Retryable() bool { return retryable[c] }

// Known reports whether c is in the closed list.
func (c Code) Known() bool { _, ok := retryable[c]; return ok }

// The close codes that a worker chooses; those of the protocol itself are in RFC 6455 section
// 7.4.1. By range the client does not reconnect (4000-4099), backs off (4100-4199), or resumes at
// once (4200-4299).
const (
	CloseServiceRestart = 1012 // RFC 6455's registry: this worker is stopping; come back after retry_after_ms

	CloseReplaced     = 4000 // a newer socket took the session over
	CloseUnauthorized = 4001 // the auth token was missing or refused
	CloseBadFrames    = 4002 // too many frames that could not be read
	CloseNoBroker     = 4100 // the worker lost its broker for longer than the grace
	CloseUnconfirmed  = 4101 // a resumed session's socket_meta was not confirmed in time
	CloseMoved        = 4200 // the client is attached to another worker, which this socket did not know
	CloseSlow         = 4208 // the client read or acknowledged too slowly; resume and catch up
)

// Error is a refusal as a client reads it, and an error that Go code can return.
type Error struct {
	Code         Code   `json:"code"`
	Message      string `json:"message"`
	Retryable    bool   `json:"retryable"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Errorf returns an Error of a code in the list, with its Retryable filled in.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Retryable: code.Retryable()}
}
