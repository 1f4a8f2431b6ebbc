package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// person is one user with one page: one client after another, each going on where the last one
// stood. It always has one task of the publishers open, and now and then one of the real runners.
type person struct {
	fleet   *fleet
	name    string
	cookies *cookies
	orders  chan order
	paused  atomic.Int64 // until when the application stands still, Unix nanoseconds

	mu      sync.Mutex
	random  *rand.Rand              // guarded by mu, as all below
	errands map[wire.TaskID]*errand // without an end
	client  *wsclient.Client        // nil while there is none
	count   int                     // tasks asked for so far
	state   wsclient.State          // what the page's sessionStorage holds, while there is no client
	session string                  // the client ID
}

// errand is one task from its first submit to its final event.
type errand struct {
	id       wire.TaskID
	kind     string
	params   json.RawMessage
	accepted bool
	release  func()
}

// order closes the page and opens it again later.
type order struct {
	abrupt bool          // without a goodbye
	away   time.Duration // until it is opened again
}

// ask has the page closed as soon as it can be; an order too many is forgotten.
func (p *person) ask(o order) {
	select {
	case p.orders <- o:
	default:
	}
}

// cut cuts the socket, if there is one.
func (p *person) cut() {
	p.mu.Lock()
	c := p.client
	p.mu.Unlock()
	if c != nil {
		c.Cut()
	}
}

func (p *person) busy() (open []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.errands {
		open = append(open, fmt.Sprintf("%s %s", e.kind, e.id))
	}
	slices.Sort(open)
	return open
}

// run opens the page again and again until ctx ends.
func (p *person) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait(ctx, p.live(ctx).away)
	}
}

// live is one life of the page: it ends with ctx or an order, which it returns.
func (p *person) live(ctx context.Context) (o order) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := wsclient.New(wsclient.Options{
		URL: p.fleet.url, Jar: p.cookies, MaxDelay: 3 * time.Second, State: p.restore(),
		OnEvent: p.got, OnMeta: p.met, OnStatus: p.status(),
		Faults: wsclient.Faults{Receive: p.overhear},
	})
	if err != nil {
		panic(err) // the options above are right
	}
	p.mu.Lock()
	p.client = c
	p.mu.Unlock()
	var wg, errands sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil { // replaced, or refused: the page is loaded again
			p.ask(order{away: time.Second})
		}
	})
	for _, e := range p.unended() {
		errands.Go(func() { p.see(ctx, c, e) })
	}
	clock := time.NewTicker(100 * time.Millisecond)
	defer clock.Stop()
	for done := false; !done; {
		select {
		case o = <-p.orders:
			done = true
		case <-ctx.Done():
			done = true
		case <-clock.C:
			for _, e := range p.begin() {
				errands.Go(func() { p.see(ctx, c, e) })
			}
		}
	}
	if o.abrupt {
		c.Cut()
	}
	cancel()
	wg.Wait()
	p.mu.Lock()
	p.state, p.client = c.State(), nil
	p.mu.Unlock()
	errands.Wait()
	return o
}

// restore gives the next page what the last one left in its sessionStorage, as text. What it was
// about to submit is there too: a page that wants its tasks to survive a reload writes them down first.
func (p *person) restore() wsclient.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := json.Marshal(p.state)
	if err != nil {
		panic(err) // it is plain data
	}
	var s wsclient.State
	if err := json.Unmarshal(text, &s); err != nil {
		panic(err)
	}
	for _, id := range slices.Sorted(maps.Keys(p.errands)) {
		e := p.errands[id]
		if !slices.ContainsFunc(s.Tasks, func(t wsclient.OpenTask) bool { return t.Task == id }) {
			s.Tasks = append(s.Tasks, wsclient.OpenTask{Position: wire.Position{Task: id}, Kind: e.kind, Params: e.params, Accepted: e.accepted})
		}
	}
	return s
}

func (p *person) unended() []*errand {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.errands))
}

// begin makes new errands where there is room for them.
func (p *person) begin() (fresh []*errand) {
	select {
	case <-p.fleet.over:
		return nil
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	has := map[string]bool{}
	for _, e := range p.errands {
		has[e.kind] = true
	}
	if !has[TaskKind] {
		// Lengths differ, so that tasks do not end in step.
		params := p.fleet.params
		params.Events = 1 + params.Events/2 + p.random.Int64N(params.Events)
		fresh = append(fresh, p.errand(TaskKind, params, func() {}))
	}
	if !has[countdownKind] && p.random.IntN(10) == 0 {
		select {
		case p.fleet.countdown <- struct{}{}:
			fresh = append(fresh, p.errand(countdownKind, map[string]int{"lines": 20, "interval_ms": 40}, func() { <-p.fleet.countdown }))
		default: // the runners have enough to do
		}
	}
	return fresh
}

// countdownKind is a kind of the real task runners.
const countdownKind = "countdown"

// errand is called with p.mu held.
func (p *person) errand(kind string, params any, release func()) *errand {
	object, err := json.Marshal(params)
	if err != nil {
		panic(err) // it is plain data
	}
	p.count++
	e := &errand{id: wire.TaskID(fmt.Sprintf("%s.%d", p.name, p.count)), kind: kind, params: object, release: release}
	p.errands[e.id] = e
	p.fleet.journal.Asked(p.name, e.id, kind)
	return e
}

// see submits an errand, unless it was accepted before, and waits for its end or that of ctx.
func (p *person) see(ctx context.Context, c *wsclient.Client, e *errand) {
	t := p.submit(ctx, c, e)
	if t == nil {
		return
	}
	_, err := t.Wait(ctx)
	gone := errors.Is(err, wsclient.ErrTaskFinished) || errors.Is(err, wsclient.ErrTaskUnknown)
	p.mu.Lock()
	_, open := p.errands[e.id]
	p.mu.Unlock()
	if gone && open {
		p.fleet.journal.Abandoned(p.name, e.id, err.Error())
		p.end(e.id)
	}
}

// submit returns the handle of an errand's task once it is accepted; nil if ctx ends before. What
// is refused for a reason that may pass is asked again under the same ID.
func (p *person) submit(ctx context.Context, c *wsclient.Client, e *errand) *wsclient.Task {
	p.mu.Lock()
	accepted := e.accepted
	p.mu.Unlock()
	if accepted {
		for _, t := range c.Tasks() {
			if t.ID() == e.id {
				return t
			}
		}
		return nil // it has ended meanwhile
	}
	for {
		t, err := c.SubmitAs(ctx, e.id, e.kind, e.params)
		refused, isRefused := errors.AsType[*wire.Error](err)
		switch {
		case err == nil:
			p.mu.Lock()
			e.accepted = true
			p.mu.Unlock()
			p.fleet.journal.Accepted(p.name, e.id)
			return t
		case errors.Is(err, wsclient.ErrTaskOver) || ctx.Err() != nil:
			return nil
		case isRefused && !refused.Retryable && refused.Code != wire.CodeUnknownKind:
			p.fleet.journal.Accepted(p.name, e.id) // no such refusal is right
			p.fleet.journal.Abandoned(p.name, e.id, err.Error())
			p.end(e.id)
			return nil
		}
		wait(ctx, 500*time.Millisecond)
	}
}

// end forgets an errand.
func (p *person) end(id wire.TaskID) {
	p.mu.Lock()
	e, ok := p.errands[id]
	delete(p.errands, id)
	p.mu.Unlock()
	if ok {
		e.release()
	}
}

// got is the application.
func (p *person) got(_ *wsclient.Task, e wsclient.Event) {
	if until := time.Until(time.Unix(0, p.paused.Load())); until > 0 {
		time.Sleep(until)
	}
	if !e.Durable {
		return
	}
	run := RunKey{e.Task, e.Attempt, e.Run}
	if e.Type == wire.EventGap {
		var g wire.Gap
		if err := json.Unmarshal(e.Body, &g); err != nil {
			g.Reason = "unreadable"
		}
		p.fleet.journal.Gap(p.name, run, e.Seq, g.FromSeq, e.Last, g.Reason)
	} else {
		p.fleet.journal.Got(p.name, run, e.Seq, e.Prev, e.Last)
		p.fleet.got.Add(1)
	}
	if e.Last {
		p.end(e.Task)
	}
}

// overhear sees what comes off the socket before the client does.
func (p *person) overhear(m wire.ServerMessage) wsclient.Fate {
	if e, ok := m.(*wire.Event); ok && e.Durable && e.Type != wire.EventGap {
		p.fleet.journal.Wire(p.name, RunKey{e.Task, e.Attempt, e.Run}, e.Seq)
	}
	return wsclient.Pass
}

func (p *person) met(m wire.SocketMeta) {
	id := m.Client.String()
	p.mu.Lock()
	fresh := id != p.session
	p.session = id
	p.mu.Unlock()
	if fresh {
		p.fleet.journal.Met(p.name, id)
	}
}

// status counts the open sockets.
func (p *person) status() func(wsclient.Status) {
	open := false
	return func(s wsclient.Status) {
		if now := s.Phase == wsclient.Open; now != open {
			open = now
			if now {
				p.fleet.open.Add(1)
			} else {
				p.fleet.open.Add(-1)
			}
		}
	}
}
