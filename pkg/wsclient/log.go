package wsclient

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// logView is what a view has of its run's log, where the application wants every line: pure, as the view.
// Live copies that continue what the application has are given at once. What they leave out is read from
// the runner, one piece at a time and only while there is room; the final event waits for the last line.
type logView struct {
	runner string // who has the log; "" if not known: all are asked then
	next   int64  // the first line that was not made ready
	seen   int64  // the last line known to be there

	asked *socket   // where a piece was asked for that has not come
	tries int       // since the last piece
	again time.Time // not asked before
}

// A piece of a log that cannot be had now is asked for so often, with a growing pause; then its lines are
// given up.
const (
	maxLogTries = 3
	logPause    = 250 * time.Millisecond
	logRoom     = 300 << 10 // of the client's room that a piece needs
)

// logPrefix is before the task's ID in the request ID of a log_read.
const logPrefix = "log:"

// putLog takes a live copy of lines of next's run.
func (v *view) putLog(e wire.Event) verdict {
	var body wire.Log
	if json.Unmarshal(e.Body, &body) != nil || body.FirstLine < 1 || len(body.Lines) == 0 {
		return v.putTransient(e) // of a runner that is not ours
	}
	last := body.FirstLine + int64(len(body.Lines)) - 1
	v.log.seen = max(v.log.seen, last)
	if v.log.asked != nil || v.log.tries > 0 || body.FirstLine > v.log.next || last < v.log.next {
		return early
	}
	return v.readyLog(e, body)
}

// readyLog makes ready what is new in body, before a final event that waits for it.
func (v *view) readyLog(e wire.Event, body wire.Log) verdict {
	if skip := v.log.next - body.FirstLine; skip > 0 {
		body.FirstLine, body.Lines = v.log.next, body.Lines[skip:]
		e.Body, _ = json.Marshal(body) // strings and numbers: it cannot fail
	}
	if !v.room.take(&e) {
		return shed
	}
	at := len(v.ready)
	if at > 0 && v.ready[at-1].Last {
		at--
	}
	v.ready = slices.Insert(v.ready, at, Event{Event: e, Reset: v.reset})
	v.reset = false
	v.log.next = body.FirstLine + int64(len(body.Lines)) + body.Missing
	v.log.seen = max(v.log.seen, v.log.next-1)
	return inOrder
}

// noteLog learns from a durable event that becomes ready: who has the log, and how long it is in the end.
func (v *view) noteLog(e *wire.Event) {
	switch e.Type {
	case wire.EventStarted:
		var body wire.Started
		if json.Unmarshal(e.Body, &body) == nil {
			v.log.runner = body.Runner
		}
	case wire.EventLog: // of a runner that keeps none
		var body wire.Log
		if json.Unmarshal(e.Body, &body) == nil {
			v.log.next = max(v.log.next, body.FirstLine+int64(len(body.Lines)))
			v.log.seen = max(v.log.seen, v.log.next-1)
		}
	case wire.EventResult, wire.EventError:
		var body struct {
			LastLine int64 `json:"last_line"`
		}
		if json.Unmarshal(e.Body, &body) == nil && body.LastLine > 0 && body.LastLine <= wire.MaxNumber {
			v.log.seen = body.LastLine // and no more: the final event is the last word
		}
	}
}

// behind reports whether lines are missing.
func (v *view) behind() bool { return v.logs && v.log.seen >= v.log.next }

// askLog returns what to ask s for now; nil for nothing, and then when to look again, if time alone tells.
func (v *view) askLog(s *socket, now time.Time) (m *wire.LogRead, again time.Time) {
	switch {
	case !v.behind() || v.log.asked == s || v.room.bytes < logRoom || v.room.events < 2:
		return nil, time.Time{}
	case now.Before(v.log.again):
		return nil, v.log.again
	}
	v.log.asked = s
	id := v.next.Task
	return &wire.LogRead{ID: logPrefix + string(id)[:min(len(id), wire.MaxID-len(logPrefix))], Task: id, Runner: v.log.runner, Run: v.next.Run, From: v.log.next}, time.Time{}
}

// putLines takes a piece that was asked for, and reports whether there is something to take.
func (v *view) putLines(m *wire.LogLines, now time.Time) bool {
	if v.log.asked == nil || m.Run != v.next.Run || m.First != v.log.next {
		return false // of an earlier question
	}
	if len(m.Lines) == 0 {
		return v.lostLines(now)
	}
	v.log.asked, v.log.runner = nil, m.Runner
	v.log.tries = 0
	if len(v.ready) == 0 || !v.ready[len(v.ready)-1].Last {
		v.log.seen = max(v.log.seen, m.LastLine)
	}
	return v.readyLines(wire.Log{FirstLine: m.First, Lines: m.Lines})
}

// lostLines notes that a piece could not be had: it is asked for again, or given up as missing.
func (v *view) lostLines(now time.Time) bool {
	if v.log.asked == nil {
		return false
	}
	v.log.asked, v.log.runner = nil, "" // somebody else may have it
	if v.log.tries++; v.log.tries <= maxLogTries {
		v.log.again = now.Add(logPause << v.log.tries)
		return false
	}
	v.log.tries = 0
	return v.readyLines(wire.Log{FirstLine: v.log.next, Lines: []string{}, Missing: v.log.seen - v.log.next + 1})
}

func (v *view) readyLines(body wire.Log) bool {
	e := wire.Event{Task: v.next.Task, Attempt: v.next.Attempt, Run: v.next.Run, Type: wire.EventLog}
	var err error
	if e.Body, err = json.Marshal(body); err != nil {
		return false
	}
	return v.readyLog(e, body) == inOrder || v.behind()
}

// readLogs asks for what is missing of the tasks' logs. Guarded by c.mu.
func (c *Client) readLogs(s *socket, now time.Time, t *turn) {
	if !c.o.Logs {
		return
	}
	asked := 0
	for id, task := range c.tasks {
		v := c.in.open[id]
		if v.log.asked == s {
			asked++
		}
		if asked >= maxLogReads || !task.accepted {
			continue
		}
		m, again := v.askLog(s, now)
		if m != nil {
			asked++
			t.messages = append(t.messages, m)
		} else if !again.IsZero() && again.Before(t.next) {
			t.next = again
		}
	}
}

// maxLogReads is how many pieces of logs a client asks for at once; a worker answers no more.
const maxLogReads = 4

// lines takes a piece of a log, or nil for one that was refused.
func (c *Client) lines(id wire.TaskID, m *wire.LogLines) {
	c.mu.Lock()
	t, v := c.tasks[id], c.in.open[id]
	if t == nil || v == nil {
		c.mu.Unlock()
		return
	}
	ready := false
	if m == nil {
		ready = v.lostLines(time.Now())
	} else {
		ready = v.putLines(m, time.Now())
	}
	c.mu.Unlock()
	c.poke()
	if ready {
		c.hand(t)
	}
}

// isLogRefusal reports whether m refuses a log_read.
func isLogRefusal(m *wire.Refused) bool { return strings.HasPrefix(m.ID, logPrefix) }
