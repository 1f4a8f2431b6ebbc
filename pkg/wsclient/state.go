package wsclient

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/wscluster/wscluster/pkg/wire"
)

// State is what survives the client: enough for another one, in another process, to go on with the
// session. It holds a token: keep it as you keep a password. Its JSON form is stable.
type State struct {
	Token string     `json:"token,omitempty"`
	Route string     `json:"route,omitempty"`
	Tasks []OpenTask `json:"tasks,omitempty"`
}

// OpenTask is one task of a State, and where the application stands in it.
type OpenTask struct {
	wire.Position
	Kind     string          `json:"kind"`
	Params   json.RawMessage `json:"params,omitempty"`
	Priority wire.Priority   `json:"priority,omitempty"`
	Accepted bool            `json:"accepted"` // if not, it is submitted again
}

// State returns where the client stands now. An event whose application is not yet done with it
// comes again to the client that goes on from here; so an application that is to go on as well
// keeps what it has before it asks for the next event.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{Token: c.meta.Token, Route: c.meta.Route}
	for id, t := range c.tasks {
		open := OpenTask{Position: c.in.open[id].had, Kind: t.submit.Kind, Accepted: t.accepted}
		if !t.accepted {
			open.Params, open.Priority = t.submit.Params, t.submit.Priority
		}
		s.Tasks = append(s.Tasks, open)
	}
	slices.SortFunc(s.Tasks, func(a, b OpenTask) int { return strings.Compare(string(a.Task), string(b.Task)) })
	return s
}

// restore is called before anything else.
func (c *Client) restore(s State) {
	c.meta.Token, c.meta.Route = s.Token, s.Route
	for _, open := range s.Tasks {
		t := c.begin(open.Position, wire.Submit{Task: open.Task, Kind: open.Kind, Params: open.Params, Priority: open.Priority})
		if open.Accepted {
			t.accepted = true
		} else {
			t.sent = true // by the earlier client, for all that is known
			c.ask(t)
		}
	}
}
