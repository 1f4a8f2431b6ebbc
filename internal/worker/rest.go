package worker

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is submit and cancel as requests that are answered themselves, for programs that have a
// session and do not want to listen to it. The session must be at the worker that the token names, attached or
// within its resume window; its events go to whoever listens.

// postTask submits a task: the fields of a submit, without a type. The task ID is the header Idempotency-Key if
// the body has none. 202 says that the task is stored; the body is the accepted that a socket would get.
func (w *Worker) postTask(rw http.ResponseWriter, r *http.Request) {
	t, ok := w.token(rw, r)
	if !ok {
		return
	}
	body, done, ok := w.readBody(rw, r)
	if !ok {
		return
	}
	defer done()
	var fields struct {
		Task     wire.TaskID     `json:"task_id"`
		Kind     string          `json:"kind"`
		Params   json.RawMessage `json:"params"`
		Priority wire.Priority   `json:"priority"`
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		problem(rw, wire.Errorf(wire.CodeBadFrame, "the body must be an object of task_id, kind, params and priority: %v", err))
		return
	}
	key := wire.TaskID(r.Header.Get("Idempotency-Key"))
	switch {
	case fields.Task == "":
		fields.Task = key
	case key != "" && key != fields.Task:
		problem(rw, wire.Errorf(wire.CodeBadFrame, "task_id and Idempotency-Key differ; either of them is enough"))
		return
	}
	if fields.Task == "" {
		problem(rw, wire.Errorf(wire.CodeBadFrame, "task_id or Idempotency-Key must name the task: it makes it safe to ask again"))
		return
	}
	w.answerRequest(rw, r, t.Meta, &wire.Submit{Task: fields.Task, Kind: fields.Kind, Params: fields.Params, Priority: fields.Priority}, fields.Task)
}

// deleteTask cancels a task. 202 says that the cancel is stored; the task's final event tells how it ended.
func (w *Worker) deleteTask(rw http.ResponseWriter, r *http.Request) {
	t, ok := w.token(rw, r)
	if !ok {
		return
	}
	id := wire.TaskID(r.PathValue("id"))
	w.answerRequest(rw, r, t.Meta, &wire.Cancel{Task: id}, id)
}

// answerRequest has m done at the worker of the session, and answers with what that says.
func (w *Worker) answerRequest(rw http.ResponseWriter, r *http.Request, at socketmeta.Meta, m wire.ClientMessage, id wire.TaskID) {
	frame := wire.EncodeClient(m)
	m, refused := wire.DecodeClient(frame) // the rules are those of a frame
	if refused != nil {
		problem(rw, &refused.Error)
		return
	}
	var reply []byte
	var err error
	if at.Server == w.o.Server {
		var answer wire.ServerMessage
		if answer, err = w.request(r.Context(), at.Client, at.Epoch, m); err == nil {
			reply = wire.EncodeServer(answer)
		}
	} else {
		reply, err = w.mailbox.Forward(r.Context(), at.Server, wire.Forward{Client: at.Client, Epoch: at.Epoch, Frame: frame, Reply: true})
	}
	if err != nil {
		problem(rw, err)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	rw.Header().Set("Location", "/v1/tasks/"+string(id))
	rw.WriteHeader(http.StatusAccepted)
	_, _ = rw.Write(reply) // who asked is gone: nobody to tell
}

// request submits or cancels for a session that is here, and waits for the answer, at most replyWithin: it
// is *wire.Accepted or *wire.Canceling. Errors are *wire.Error.
func (w *Worker) request(ctx context.Context, client socketmeta.ClientID, epoch socketmeta.Epoch, m wire.ClientMessage) (wire.ServerMessage, error) {
	have, _ := w.surface.holder(client, epoch)
	if have == nil {
		return nil, errNotAttached
	}
	reply := make(chan wire.ServerMessage, 1)
	switch m := m.(type) {
	case *wire.Submit:
		w.mailbox.SubmitFor(have, m, reply)
	case *wire.Cancel:
		w.mailbox.CancelFor(have, m, reply)
	default:
		return nil, wire.Errorf(wire.CodeUnexpected, "only a submit or a cancel is answered by HTTP")
	}
	ctx, cancel := context.WithTimeout(ctx, replyWithin)
	defer cancel()
	select {
	case a := <-reply:
		if refused, ok := a.(*wire.Refused); ok {
			return nil, &refused.Error
		}
		return a, nil
	case <-ctx.Done():
		return nil, wire.Errorf(wire.CodeUnavailable, "the broker gave no answer in time; try again with the same task ID")
	}
}
