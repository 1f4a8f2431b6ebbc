package ask

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Bounds of one worker.
const (
	MaxOpen = 1024 // questions that have no answer; more are refused with overloaded

	maxKept      = 1000 // answers, the latest
	maxKeptBytes = 16 << 20
	keepFor      = 10 * time.Minute
)

// A question is sent again without a cause only because any control message may be lost: after firstPause where
// nobody says that the client got it, else after reachedPause; each pause is pauseGrowth times the one before, and
// maxPause at most.
const (
	firstPause   = time.Second
	reachedPause = 15 * time.Second
	pauseGrowth  = 4
	maxPause     = time.Minute
)

// core is the questions that were asked at this worker, and what this worker knows of those of others. It is
// pure: every method takes what happened and when, and appends to orders what is to be done. What it is told may come twice,
// late, or not at all.
//
// A question goes to all workers, for nobody knows where its client is. The one that has the client sends it on.
// Where none has, or the client's connection ends, the question goes to the worker that the client attaches to
// next: one that it comes to from another worker says so to all (moved), one that it comes back to says so to
// those whose questions it has heard (wanted).
type core struct {
	self     socketmeta.ServerID
	open     map[wire.RunID]*question
	byClient map[socketmeta.ClientID][]*question // open
	byName   map[name]*question                  // open, and kept
	kept     []*question                         // the oldest first
	bytes    int                                 // of the kept answers
	wanted   wanted

	orders []order // the caller takes them
}

// name is what makes two questions one.
type name struct {
	client socketmeta.ClientID
	key    string
}

type question struct {
	Question
	name   name
	ask    wire.RunID
	digest [sha256.Size]byte // of what is asked for
	until  time.Time         // open: when it is given up; kept: when it is forgotten

	// While it is open.
	again   time.Time // when it is sent again
	pause   time.Duration
	reached bool // a worker has sent it to the client

	answer *Answer // nil while it is open
}

// order is one thing to be done.
type order struct {
	verb    verb
	message *wire.AskClient     // of send
	to      socketmeta.ServerID // of send, say and tellHere
	reply   *wire.ClientReplied // of say
	client  socketmeta.ClientID // of tellHere
	ask     wire.RunID          // of resolve
	answer  *Answer             // of resolve; nil with err
	err     *wire.Error         // of resolve
}

type verb uint8

const (
	deliver  verb = iota // send message to its client here, if it has a connection: then reached follows, or Reached is said to the asking worker
	send                 // message to the worker `to`, or to all if that is ""; each time first to the client, if it has a connection here
	say                  // reply to the worker `to`
	tellHere             // tell the worker `to` that client is attached here, if it is
	resolve              // ask has answer or err, once for each question
)

func newCore(self socketmeta.ServerID) *core {
	return &core{
		self: self, open: map[wire.RunID]*question{}, byClient: map[socketmeta.ClientID][]*question{}, byName: map[name]*question{},
		wanted: wanted{byClient: map[socketmeta.ClientID][]*wish{}},
	}
}

func (c *core) order(o order) { c.orders = append(c.orders, o) }

func (c *core) takeOrders() (out []order) {
	out, c.orders = c.orders, nil
	return out
}

// asked takes a question, to be known as ask if it is a new one. It returns the answer if there is one already; else the ID under
// which resolve follows. A question with the client and the key of an earlier one is that one: it is an error if
// it asks for something else.
func (c *core) asked(q Question, ask wire.RunID, now time.Time) (*Answer, wire.RunID, *wire.Error) {
	n := name{q.Client, q.Key}
	digest := sha256.Sum256(append([]byte(q.Name+"\x00"), q.Body...))
	old := c.byName[n]
	if old != nil && old.answer == nil && !now.Before(old.until) { // who asked it may know before tick does
		c.fail(old, noAnswer(old.reached))
		old = nil
	}
	if old != nil && now.Before(old.until) {
		if old.digest != digest {
			return nil, "", wire.Errorf(wire.CodeConflict, "this client was asked for something else under the same key")
		}
		return old.answer, old.ask, nil
	}
	if len(c.open) >= MaxOpen {
		return nil, "", wire.Errorf(wire.CodeOverloaded, "%d questions to clients wait for answers here; try again", MaxOpen)
	}
	c.forgetOld(now)
	x := &question{Question: q, name: n, ask: ask, digest: digest, until: now.Add(q.Within), pause: firstPause}
	c.open[ask], c.byName[n] = x, x
	c.byClient[q.Client] = append(c.byClient[q.Client], x)
	c.send(x, "", now)
	return nil, ask, nil
}

// send orders q to be sent, and says when it is sent again if nothing is heard.
func (c *core) send(q *question, to socketmeta.ServerID, now time.Time) {
	q.again = now.Add(q.pause)
	q.pause = min(q.pause*pauseGrowth, maxPause)
	c.order(order{verb: send, to: to, message: &wire.AskClient{
		From: c.self, Ask: q.ask, Client: q.Client, Key: q.Key, Name: q.Name, Body: q.Body,
		TimeoutMS: max(1, q.until.Sub(now).Milliseconds()),
	}})
}

// reached notes that a worker has sent the question to its client.
func (c *core) reached(ask wire.RunID, now time.Time) {
	if q := c.open[ask]; q != nil {
		q.reached = true
		q.again, q.pause = now.Add(reachedPause), maxPause
	}
}

// heard takes what other workers say.
func (c *core) heard(m wire.ControlMessage, now time.Time) {
	switch m := m.(type) {
	case *wire.AskClient:
		if m.From != c.self {
			c.wanted.add(m, now)
			c.order(order{verb: deliver, message: m})
		}
	case *wire.Reached:
		c.reached(m.Ask, now)
	case *wire.ClientReplied:
		c.replied(m.Ask, m.Client, Answer{m.Body, m.Error}, now)
	case *wire.Moved:
		for _, claim := range m.Clients {
			c.attachedAt(claim.Client, m.From, now)
		}
	case *wire.Owner:
		if m.From == m.Mailbox && m.From != c.self { // it has joined: what was said before it has not heard
			for _, q := range c.all() {
				c.send(q, m.From, now)
			}
		}
	}
}

// attached notes that a client is attached here. Where it came from another worker, moved, all are told already. A new one has
// told its ID to nobody yet, or just now.
func (c *core) attached(client socketmeta.ClientID, moved bool, now time.Time) {
	c.attachedAt(client, c.self, now)
	if moved {
		return
	}
	for _, to := range c.wanted.by(client, now) {
		c.order(order{verb: tellHere, to: to, client: client})
	}
}

func (c *core) attachedAt(client socketmeta.ClientID, at socketmeta.ServerID, now time.Time) {
	for _, q := range c.byClient[client] {
		q.pause = firstPause
		c.send(q, at, now)
	}
}

// linked notes that this worker has a new link to the broker: what it said before may be lost.
func (c *core) linked(now time.Time) {
	for _, q := range c.all() {
		c.send(q, "", now)
	}
}

// all returns the open questions, in order of their names.
func (c *core) all() (all []*question) {
	for _, ask := range slices.Sorted(maps.Keys(c.open)) {
		all = append(all, c.open[ask])
	}
	return all
}

// reply takes a reply from a client that is attached here. The error is for the client; a reply to a question that
// is over, or has been answered, is none.
func (c *core) reply(client socketmeta.ClientID, m *wire.Reply, now time.Time) *wire.Error {
	server, ask, err := parseRequest(m.Request)
	switch {
	case err != nil:
		return err
	case server != c.self:
		c.order(order{verb: say, to: server, reply: &wire.ClientReplied{Ask: ask, Client: client, Body: m.Body, Error: m.Error}})
	case !c.replied(ask, client, Answer{m.Body, m.Error}, now):
		return wire.Errorf(wire.CodeForbidden, "another client was asked this")
	}
	return nil
}

// replied takes the reply of a client, and reports false if it was not that client that was asked.
func (c *core) replied(ask wire.RunID, client socketmeta.ClientID, a Answer, now time.Time) bool {
	q := c.open[ask]
	switch {
	case q == nil:
		return true
	case q.Client != client:
		return false
	}
	c.close(q)
	if a.Error == "" && len(a.Body) == 0 {
		a.Body = json.RawMessage("null")
	}
	q.answer, q.Body, q.until = &a, nil, now.Add(keepFor)
	c.kept = append(c.kept, q)
	c.bytes += a.size()
	c.forgetOld(now)
	c.order(order{verb: resolve, ask: ask, answer: &a})
	return true
}

// close takes q out of the open questions.
func (c *core) close(q *question) {
	delete(c.open, q.ask)
	if c.byClient[q.Client] = slices.DeleteFunc(c.byClient[q.Client], func(x *question) bool { return x == q }); len(c.byClient[q.Client]) == 0 {
		delete(c.byClient, q.Client)
	}
}

// fail gives q up.
func (c *core) fail(q *question, err *wire.Error) {
	c.close(q)
	delete(c.byName, q.name)
	c.order(order{verb: resolve, ask: q.ask, err: err})
}

// forgetOld forgets the answers that are old, or too many. It comes before a question that takes the name of an old one.
func (c *core) forgetOld(now time.Time) {
	for len(c.kept) > 0 && (len(c.kept) > maxKept || c.bytes > maxKeptBytes || !now.Before(c.kept[0].until)) {
		q := c.kept[0]
		c.kept[0], c.kept = nil, c.kept[1:]
		c.bytes -= q.answer.size()
		delete(c.byName, q.name)
	}
}

// tick does what time asks for.
func (c *core) tick(now time.Time) {
	for _, q := range c.all() {
		switch {
		case !now.Before(q.until):
			c.fail(q, noAnswer(q.reached))
		case !now.Before(q.again):
			c.send(q, "", now)
		}
	}
	c.forgetOld(now)
}

// next returns when tick has something to do, zero for never.
func (c *core) next() (at time.Time) {
	earlier := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, q := range c.open {
		earlier(q.until)
		earlier(q.again)
	}
	if len(c.kept) > 0 {
		earlier(c.kept[0].until)
	}
	return at
}

// giveUp gives all open questions up with err.
func (c *core) giveUp(err *wire.Error) {
	for _, q := range c.all() {
		c.fail(q, err)
	}
}

func noAnswer(reached bool) *wire.Error {
	if reached {
		return wire.Errorf(wire.CodeNoAnswer, "the client was asked, and did not answer in time")
	}
	return wire.Errorf(wire.CodeNoAnswer, "the client had no connection to any worker in time")
}

// requestID names a question to its client.
func requestID(m *wire.AskClient) string { return string(m.From) + "." + string(m.Ask) }

func parseRequest(id string) (socketmeta.ServerID, wire.RunID, *wire.Error) {
	from, ask, _ := strings.Cut(id, ".")
	server, err := socketmeta.ParseServerID(from)
	run, err2 := wire.ParseRunID(ask)
	if err != nil || err2 != nil {
		return "", "", wire.Errorf(wire.CodeBadFrame, "reply: request_id is not that of a request")
	}
	return server, run, nil
}
