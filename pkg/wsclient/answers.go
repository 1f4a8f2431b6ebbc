package wsclient

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Bounds of what a client does for backends.
const (
	maxAnswering = 64        // requests at once
	maxAsked     = 1000      // requests that wait for one of those places; more are refused
	keptAnswers  = 1000      // replies that are remembered, by key: the latest
	maxAskers    = 8         // request IDs that wait for the reply to one key: the latest
	maxReplies   = 1000      // replies that wait to be written: the latest. Who misses one asks again
	maxReplyTurn = 256 << 10 // bytes of replies in one write, and one reply more
)

// answers is what backends have asked of a client, and what it replied. Requests with one key are one: it
// is done once, and everyone who asks for it gets the same reply. It is pure.
type answers struct {
	byKey   map[string]*answer
	waiting []*answer // for a place, the oldest first
	running int
	done    []*answer // the oldest first
}

// answer is one key. It is in waiting, running, or in done.
type answer struct {
	request wire.Request // the first with this key
	until   time.Time    // nobody waits for the reply any more
	askers  []string     // IDs of requests that wait for the reply
	over    bool         // body or err is the reply
	body    json.RawMessage
	err     string
}

// ask takes a request, and returns the reply to it if there is one already.
func (a *answers) ask(r *wire.Request, now time.Time) *wire.Reply {
	key := r.Key
	if key == "" {
		key = r.ID
	}
	w := a.byKey[key]
	switch {
	case w != nil && w.over:
		return w.reply(r.ID)
	case w != nil:
		if !slices.Contains(w.askers, r.ID) {
			w.askers = append(w.askers, r.ID)
			w.askers = w.askers[max(0, len(w.askers)-maxAskers):]
		}
		return nil
	case len(a.waiting) >= maxAsked:
		return &wire.Reply{Request: r.ID, Error: fmt.Sprintf("the client has %d requests that wait", len(a.waiting))}
	}
	w = &answer{request: *r, askers: []string{r.ID}, until: now.Add(time.Duration(r.TimeoutMS) * time.Millisecond)}
	w.request.Key = key
	a.byKey[key] = w
	a.waiting = append(a.waiting, w)
	return nil
}

// next returns a request whose turn has come, nil if none has. Those for which nobody waits any more are forgotten
// without being done.
func (a *answers) next(now time.Time) *answer {
	for len(a.waiting) > 0 && a.running < maxAnswering {
		w := a.waiting[0]
		a.waiting = slices.Delete(a.waiting, 0, 1)
		if now.Before(w.until) {
			a.running++
			return w
		}
		delete(a.byKey, w.request.Key)
	}
	return nil
}

// finish notes what a request from next came to, and returns the replies to it.
func (a *answers) finish(w *answer, value any, err error) []*wire.Reply {
	a.running--
	w.over = true
	if w.body, w.err = replyOf(value, err); w.err != "" {
		w.body = nil
	}
	if a.done = append(a.done, w); len(a.done) > keptAnswers {
		delete(a.byKey, a.done[0].request.Key)
		a.done[0] = nil
		a.done = a.done[1:]
	}
	var replies []*wire.Reply
	for _, id := range w.askers {
		replies = append(replies, w.reply(id))
	}
	w.askers = nil
	w.request.Body = nil
	return replies
}

func (w *answer) reply(id string) *wire.Reply {
	return &wire.Reply{Request: id, Body: w.body, Error: w.err}
}

// replyOf makes a reply of what the application returned: one that fits into a frame.
func replyOf(value any, err error) (body json.RawMessage, failure string) {
	if err == nil {
		body, err = json.Marshal(value)
	}
	if err != nil {
		return nil, shorten(err.Error())
	}
	longest := wire.Reply{Request: strings.Repeat("x", wire.MaxAskID), Body: body}
	if n := len(wire.EncodeClient(&longest)); n > wire.MaxClientFrame {
		return nil, fmt.Sprintf("the reply has %d bytes and may have %d", n, wire.MaxClientFrame)
	}
	return body, ""
}

// shorten makes a text for people of err, as long as a Reply may have: never empty, which would be no error.
func shorten(err string) string {
	if err = strings.ToValidUTF8(err[:min(len(err), wire.MaxReason)], ""); err == "" {
		return "the client failed"
	}
	return err
}
