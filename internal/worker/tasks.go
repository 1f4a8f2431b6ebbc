package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is the HTTP side of tasks: how they stand, and their logs, from the runners' disks. A request
// shows the client's token in the header X-Socket-Meta, or as a bearer, and sees that client's tasks
// only. Any worker answers. Errors are problem+json (RFC 9457) with a code of the closed list.

const (
	pathTasks = "GET /v1/tasks"
	pathTask  = "GET /v1/tasks/{id}"
	pathLog   = "GET /v1/tasks/{id}/log"
)

// client reads the token of a request; it answers the request itself if there is none that is good.
func (w *Worker) client(rw http.ResponseWriter, r *http.Request) (socketmeta.ClientID, bool) {
	t, ok := w.token(rw, r)
	return t.Client, ok
}

// token is client with all that the token says.
func (w *Worker) token(rw http.ResponseWriter, r *http.Request) (socketmeta.Token, bool) {
	token := r.Header.Get(tokenHeader)
	if token == "" {
		token = bearer(r.Header)
	}
	t, err := w.o.Keys.VerifyToken(token, time.Now())
	if err != nil {
		problem(rw, wire.Errorf(wire.CodeUnauthorized, "the header %s must have the token of the client's last socket_meta: %s", tokenHeader, reasonOf(err)))
		return socketmeta.Token{}, false
	}
	return t, true
}

// task reads the token of a request and the task ID in its path; it answers the request itself if one of them is not good.
func (w *Worker) task(rw http.ResponseWriter, r *http.Request) (client socketmeta.ClientID, id wire.TaskID, ok bool) {
	if client, ok = w.client(rw, r); !ok {
		return client, "", false
	}
	id, err := wire.ParseTaskID(r.PathValue("id"))
	if err != nil {
		problem(rw, wire.Errorf(wire.CodeBadFrame, "%v", err))
	}
	return client, id, err == nil
}

// statusOf is the HTTP status of a code.
func statusOf(code wire.Code) int {
	switch code {
	case wire.CodeBadFrame, wire.CodeBadParams, wire.CodeUnknownType, wire.CodeUnknownKind, wire.CodeUnexpected:
		return http.StatusBadRequest
	case wire.CodeUnauthorized:
		return http.StatusUnauthorized
	case wire.CodeForbidden:
		return http.StatusForbidden
	case wire.CodeUnknownTask, wire.CodeLogUnavailable:
		return http.StatusNotFound
	case wire.CodeConflict, wire.CodeNotAttached:
		return http.StatusConflict
	case wire.CodeFrameTooLarge:
		return http.StatusRequestEntityTooLarge
	case wire.CodeTooManyTasks, wire.CodeTooManyChannels:
		return http.StatusTooManyRequests
	case wire.CodeFailed:
		return http.StatusBadGateway
	case wire.CodeNoAnswer:
		return http.StatusGatewayTimeout
	case wire.CodeUnavailable, wire.CodeOverloaded:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// bearer is what a request shows as Authorization: Bearer, "" if nothing: a token of a client or a grant.
func bearer(h http.Header) string {
	shown, _ := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
	return shown
}

// problem answers a request with an error.
func problem(rw http.ResponseWriter, err error) {
	e, ok := errors.AsType[*wire.Error](err)
	if !ok {
		e = wire.Errorf(wire.CodeInternal, "%v", err)
	}
	status := statusOf(e.Code)
	rw.Header().Set("Content-Type", "application/problem+json")
	switch status {
	case http.StatusServiceUnavailable:
		rw.Header().Set("Retry-After", "1")
	case http.StatusUnauthorized:
		rw.Header().Set("WWW-Authenticate", "Bearer")
	}
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		*wire.Error
	}{http.StatusText(status), status, e.Message, e})
}

func writeJSON(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(rw).Encode(v) // who asked is gone: nobody to tell
}

// listTasks answers with the latest run of each of the client's tasks, the latest submitted first:
// ?limit= of 1 to wire.MaxRuns (default 50), ?before= a time, for the next page. Runners that did not answer are
// named: the list may lack what they have.
func (w *Worker) listTasks(rw http.ResponseWriter, r *http.Request) {
	client, ok := w.client(rw, r)
	if !ok {
		return
	}
	q := wire.FindRuns{Client: client, Limit: 50}
	if limit := r.FormValue("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > wire.MaxRuns {
			problem(rw, wire.Errorf(wire.CodeBadFrame, "limit must be a number of 1 to %d", wire.MaxRuns))
			return
		}
		q.Limit = n
	}
	if before := r.FormValue("before"); before != "" {
		at, err := time.Parse(time.RFC3339, before)
		if err != nil {
			problem(rw, wire.Errorf(wire.CodeBadFrame, "before must be a time as in RFC 3339, as 2026-03-14T09:26:53.589Z"))
			return
		}
		q.Before = wire.Time{Time: at}
	}
	found, err := w.mailbox.FindRuns(r.Context(), q)
	if err != nil {
		problem(rw, err)
		return
	}
	writeJSON(rw, struct {
		Tasks   []wire.RunInfo `json:"tasks"`
		More    bool           `json:"more"`
		Missing []string       `json:"missing_runners,omitempty"`
	}{append([]wire.RunInfo{}, found.Runs...), found.More, found.Missing})
}

// showTask answers with the runs of one task, the latest first.
func (w *Worker) showTask(rw http.ResponseWriter, r *http.Request) {
	client, id, ok := w.task(rw, r)
	if !ok {
		return
	}
	found, err := w.mailbox.FindRuns(r.Context(), wire.FindRuns{Client: client, Task: id, Limit: wire.MaxRuns})
	switch {
	case err != nil:
		problem(rw, err)
	case len(found.Runs) == 0:
		problem(rw, wire.Errorf(wire.CodeUnknownTask, "no task runner that can be reached has run task %s of this client; it may wait", id))
	default:
		writeJSON(rw, struct {
			wire.RunInfo
			Earlier []wire.RunInfo `json:"earlier_runs,omitempty"`
			Missing []string       `json:"missing_runners,omitempty"`
		}{found.Runs[0], found.Runs[1:], found.Missing})
	}
}

// downloadLog answers with the log of a task: its latest run, or ?run_id=. As text it takes ranges
// (RFC 9110 section 14) over what there is now, also while the task runs; with ?format=ndjson it is one object a line, from
// ?from_line= on. It has the first piece before it says 200: a log that its runner lists and does not have is log_unavailable,
// and a range further on costs a question more. It asks the runner for the next piece only when the last one was read.
func (w *Worker) downloadLog(rw http.ResponseWriter, r *http.Request) {
	client, id, ok := w.task(rw, r)
	if !ok {
		return
	}
	run, err := wire.ParseRunID(r.FormValue("run_id"))
	if r.FormValue("run_id") != "" && err != nil {
		problem(rw, wire.Errorf(wire.CodeBadFrame, "%v", err))
		return
	}
	found, err := w.mailbox.LogOf(r.Context(), client, id, run)
	if err != nil {
		problem(rw, err)
		return
	}
	log := &remoteLog{ctx: r.Context(), worker: w, client: client, info: found}
	rw.Header().Set("Cache-Control", "no-store")
	rw.Header().Set("X-Content-Type-Options", "nosniff")
	switch format := r.FormValue("format"); format {
	case "", "text":
		if err := log.fetch(); err != nil {
			problem(rw, err)
			return
		}
		if found.Status != wire.RunRunning {
			rw.Header().Set("ETag", strconv.Quote(string(found.Run)))
		}
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		rw.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.log"`, id))
		http.ServeContent(rw, r, "", time.Time{}, log)
	case "ndjson":
		log.serveLines(rw, r)
	default:
		problem(rw, wire.Errorf(wire.CodeBadFrame, "format %.40q must be text or ndjson", format))
	}
}

// remoteLog reads a log from its runner, a piece at a time. Its size is that of when it was found.
type remoteLog struct {
	ctx    context.Context
	worker *Worker
	client socketmeta.ClientID
	info   *wire.RunInfo
	at     int64
	piece  []byte // read already
	start  int64  // where it begins
}

// errShort says that a log ends before its size of when it was found: it was removed meanwhile, or cut.
var errShort = wire.Errorf(wire.CodeLogUnavailable, "the log is shorter than it was, or is gone")

var _ io.ReadSeeker = (*remoteLog)(nil)

// Seek does not read.
func (l *remoteLog) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += l.at
	case io.SeekEnd:
		offset += l.info.LogBytes
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	l.at = offset
	return offset, nil
}

func (l *remoteLog) Read(p []byte) (int, error) {
	if l.at >= l.info.LogBytes {
		return 0, io.EOF
	}
	if err := l.fetch(); err != nil {
		return 0, err
	}
	n := copy(p, l.piece[l.at-l.start:min(int64(len(l.piece)), l.info.LogBytes-l.start)])
	l.at += int64(n)
	return n, nil
}

// fetch has the piece read that has the byte at, unless that is there or behind the end.
func (l *remoteLog) fetch() (err error) {
	if l.at >= l.info.LogBytes || l.at >= l.start && l.at < l.start+int64(len(l.piece)) {
		return nil
	}
	l.piece, err = l.get(wire.ReadLog{Offset: l.at})
	l.start = l.at
	return err
}

// get returns at least one byte. Errors are *wire.Error.
func (l *remoteLog) get(q wire.ReadLog) ([]byte, error) {
	q.Client, q.Task, q.Run, q.Max = l.client, l.info.Task, l.info.Run, wire.MaxLogChunk
	chunk, err := l.worker.mailbox.ReadLog(l.ctx, l.info.Runner, q)
	if err != nil {
		return nil, err
	}
	if len(chunk.Data) == 0 {
		return nil, errShort
	}
	return chunk.Data, nil
}

// serveLines writes the lines that there are, one object each.
func (l *remoteLog) serveLines(rw http.ResponseWriter, r *http.Request) {
	line := int64(1)
	if from := r.FormValue("from_line"); from != "" {
		var err error
		if line, err = strconv.ParseInt(from, 10, 64); err != nil || line < 1 {
			problem(rw, wire.Errorf(wire.CodeBadFrame, "from_line must be a number from 1"))
			return
		}
	}
	rw.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(rw)
	out.SetEscapeHTML(false)
	for first := line; line <= l.info.LastLine; {
		piece, err := l.get(wire.ReadLog{Line: line})
		switch {
		case err != nil && line == first:
			problem(rw, err)
			return
		case err != nil:
			panic(http.ErrAbortHandler) // the reader must not take half a log for a whole one
		}
		for text := range bytes.Lines(piece) {
			if line > l.info.LastLine {
				return
			}
			if out.Encode(struct {
				Line int64  `json:"line"`
				Text string `json:"text"`
			}{line, strings.TrimSuffix(string(text), "\n")}) != nil {
				return
			}
			line++
		}
	}
}
