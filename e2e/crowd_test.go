package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// homeWithin bounds the wait for what is under way when a fault is mended. It is no promise: a
// machine with much else to do needs some of it.
const homeWithin = 2 * time.Minute

// crowd is clients with tasks of kind countdown. Every durable event that an application gets is
// checked as it comes: once, in order, with nothing missing before it.
type crowd struct {
	t   *testing.T
	all []*guest

	mu       sync.Mutex
	doors    []string      // guarded by mu: host:port of workers or HAProxy, of which each socket takes the next that answers
	arrivals chan *arrival // the socket metas of all guests; the newest are dropped when nobody reads
}

// arrival is one socket meta.
type arrival struct {
	guest  *guest
	server socketmeta.ServerID
	at     time.Time
}

// guest is one user: one session, over one client after another, and what its application got.
type guest struct {
	crowd *crowd
	id    int

	mu     sync.Mutex
	door   int // guarded by mu, as all below
	client *wsclient.Client
	leave  func()         // ends the client; nil while the guest is away
	state  wsclient.State // where the last client stood
	errand map[wire.TaskID]*errand
	heard  time.Time     // of the last durable event
	pause  time.Duration // the longest between two of them
	wrong  []string

	mayFail wire.Code // guarded by mu: the code with which its tasks may end
}

// errand is one task and what has come of it.
type errand struct {
	lines  int // it was asked to write
	events int // durable ones, over all runs
	runs   int
	at     wire.Position // of the application
	line   int64         // the last that came in this run
	gaps   []wire.Gap
	failed bool          // as it may
	ended  chan struct{} // closed by the final event
}

// gather returns n guests who are connected to the doors in turn. They leave with the test.
func gather(t *testing.T, n int, doors ...string) *crowd {
	t.Helper()
	c := &crowd{t: t, doors: doors, arrivals: make(chan *arrival, 4096)}
	var wg sync.WaitGroup
	for i := range n {
		g := &guest{crowd: c, id: i, errand: map[wire.TaskID]*errand{}}
		g.door = i - g.stride(len(doors))
		c.all = append(c.all, g)
		wg.Go(g.come)
	}
	wg.Wait()
	t.Cleanup(c.disperse)
	if t.Failed() {
		t.FailNow()
	}
	return c
}

// open replaces the doors.
func (c *crowd) open(doors ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doors = doors
}

// disperse has all guests leave.
func (c *crowd) disperse() {
	var wg sync.WaitGroup
	for _, g := range c.all {
		wg.Go(g.away)
	}
	wg.Wait()
}

// come connects a guest that is away, where the last client stood, and waits until it is welcome.
func (g *guest) come() {
	met := make(chan struct{})
	var once sync.Once
	client, err := wsclient.New(wsclient.Options{
		URL: "ws://crowd/v1/ws", Dial: g.dial, State: g.state, MaxDelay: time.Second, OnEvent: g.got,
		OnMeta: func(m wire.SocketMeta) {
			select {
			case g.crowd.arrivals <- &arrival{g, m.Server, time.Now()}:
			default:
			}
			once.Do(func() { close(met) })
		},
	})
	if err != nil {
		g.crowd.t.Error(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	g.mu.Lock()
	g.client = client
	g.leave = func() {
		cancel()
		if err := <-done; err != nil {
			g.complain("its client ended: %v", err)
		}
	}
	g.mu.Unlock()
	select {
	case <-met:
	case <-time.After(time.Minute):
		g.crowd.t.Errorf("guest %d: no socket meta within a minute", g.id)
	}
}

// away ends the guest's client, if there is one.
func (g *guest) away() {
	g.mu.Lock()
	leave := g.leave
	g.leave = nil
	g.mu.Unlock()
	if leave != nil {
		leave()
		g.mu.Lock()
		g.state = g.client.State()
		g.mu.Unlock()
	}
}

// stride is how many of n doors a guest goes on with each socket, so that those of one worker
// spread over the others.
func (g *guest) stride(n int) int { return 1 + g.id/n%max(1, n-1) }

// dial reaches the door a stride further, or the next one behind it that answers.
func (g *guest) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	g.crowd.mu.Lock()
	doors := slices.Clone(g.crowd.doors)
	g.crowd.mu.Unlock()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+g.id%32))}, Timeout: 5 * time.Second}
	var errs []error
	for i := range doors {
		g.mu.Lock()
		if g.door++; i == 0 {
			g.door += g.stride(len(doors)) - 1
		}
		addr := doors[g.door%len(doors)]
		g.mu.Unlock()
		conn, err := dialer.DialContext(ctx, network, addr)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// server is where the guest was welcomed last.
func (g *guest) server() socketmeta.ServerID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.client.Meta().Server
}

// on returns the guests of a worker.
func (c *crowd) on(server string) (all []*guest) {
	for _, g := range c.all {
		if string(g.server()) == server {
			all = append(all, g)
		}
	}
	return all
}

// ask has each of the guests, all unless some are named, submit a countdown of so many lines, and
// returns when all are accepted.
func (c *crowd) ask(lines int, every time.Duration, guests ...*guest) {
	c.t.Helper()
	c.submit("countdown", same(map[string]any{"lines": lines, "interval_ms": every.Milliseconds()}), lines, guests...)
}

// same are the parameters of any task.
func same(params any) func(wire.TaskID) any { return func(wire.TaskID) any { return params } }

// submit is ask for a task of any kind, which will write so many lines.
func (c *crowd) submit(kind string, params func(wire.TaskID) any, lines int, guests ...*guest) {
	c.t.Helper()
	if guests == nil {
		guests = c.all
	}
	var wg sync.WaitGroup
	for _, g := range guests {
		wg.Go(func() {
			if err := g.submit(kind, params, lines); err != nil {
				c.t.Errorf("guest %d: %v", g.id, err)
			}
		})
	}
	wg.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

func (g *guest) submit(kind string, params func(wire.TaskID) any, lines int) error {
	id := g.newErrand(lines)
	g.mu.Lock()
	client := g.client
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), homeWithin)
	defer cancel()
	_, err := client.SubmitAs(ctx, id, kind, params(id))
	return err
}

func (g *guest) newErrand(lines int) wire.TaskID {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := wire.NewTaskID()
	g.errand[id] = &errand{lines: lines, at: wire.Position{Task: id}, ended: make(chan struct{})}
	return id
}

// got is the application.
func (g *guest) got(t *wsclient.Task, e wsclient.Event) {
	if !e.Durable {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.errand[t.ID()]
	if r == nil {
		g.complainLocked("got event %d of task %s, which it never asked for", e.Seq, t.ID())
		return
	}
	var whose struct {
		Client socketmeta.ClientID `json:"client_id"`
	}
	if err := json.Unmarshal(e.Body, &whose); e.Type != wire.EventGap && (err != nil || whose.Client != g.client.Meta().Client) {
		g.complainLocked("event %d of task %s is for client %v (%v)", e.Seq, t.ID(), whose.Client, err)
	}
	if r.events == 0 || e.Attempt != r.at.Attempt || e.Run != r.at.Run {
		if r.events > 0 && !e.Reset || e.Attempt < r.at.Attempt || e.Attempt == r.at.Attempt && e.Run < r.at.Run {
			g.complainLocked("task %s went from run %d %s to %d %s", t.ID(), r.at.Attempt, r.at.Run, e.Attempt, e.Run)
		}
		r.at.Next, r.line = 1, 0
		r.runs++
	}
	if r.over() {
		g.complainLocked("task %s went on after its end, with event %d", t.ID(), e.Seq)
	}
	if e.Prev != r.at.Next-1 && !(e.Prev == 0 && r.at.Next == 1) {
		g.complainLocked("task %s: event %d comes after %d, and %d came before it", t.ID(), e.Seq, e.Prev, r.at.Next-1)
	}
	r.events++
	r.at = e.Position()
	now := time.Now()
	if !g.heard.IsZero() {
		g.pause = max(g.pause, now.Sub(g.heard))
	}
	g.heard = now
	switch e.Type {
	case wire.EventLog:
		var l wire.Log
		if err := json.Unmarshal(e.Body, &l); err != nil || l.FirstLine != r.line+1 {
			g.complainLocked("task %s: line %d comes after %d (%v)", t.ID(), l.FirstLine, r.line, err)
		}
		r.line += int64(len(l.Lines))
	case wire.EventGap:
		var gap wire.Gap
		if err := json.Unmarshal(e.Body, &gap); err != nil {
			g.complainLocked("task %s: a gap that cannot be read: %v", t.ID(), err)
		}
		r.gaps = append(r.gaps, gap)
	case wire.EventError:
		var f wire.Failure
		if err := json.Unmarshal(e.Body, &f); err == nil && f.Code == g.mayFail {
			r.failed = true
			break
		}
		g.complainLocked("task %s failed: %s", t.ID(), e.Body)
	}
	if e.Last && !r.over() {
		close(r.ended)
	}
}

func (r *errand) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

func (g *guest) complain(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.complainLocked(format, args...)
}

func (g *guest) complainLocked(format string, args ...any) {
	g.wrong = append(g.wrong, fmt.Sprintf(format, args...))
}

// errands returns what is known of all tasks of a guest.
func (g *guest) errands() []*errand {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*errand, 0, len(g.errand))
	for _, r := range g.errand {
		all = append(all, r)
	}
	return all
}

// flows waits until every open task of the guests, all unless some are named, has so many durable
// events more than now.
func (c *crowd) flows(more int, guests ...*guest) {
	c.t.Helper()
	c.flowsFrom(c.counts(), more, guests...)
}

// counts is how many durable events came of each task.
func (c *crowd) counts() map[*errand]int {
	have := map[*errand]int{}
	for _, g := range c.all {
		for _, r := range g.errands() {
			have[r], _ = g.has(r)
		}
	}
	return have
}

// flowsFrom is flows for so many more than then.
func (c *crowd) flowsFrom(then map[*errand]int, more int, guests ...*guest) {
	c.t.Helper()
	if guests == nil {
		guests = c.all
	}
	await(c.t, homeWithin, func() error {
		for _, g := range guests {
			for _, r := range g.errands() {
				if have, over := g.has(r); have < then[r]+more && !over {
					return fmt.Errorf("%v should have %d events", g.describe(r), then[r]+more)
				}
			}
		}
		return nil
	})
}

// describe says where a guest stands in a task.
func (g *guest) describe(r *errand) string {
	have, _ := g.has(r)
	g.mu.Lock()
	defer g.mu.Unlock()
	meta := g.client.Meta()
	return fmt.Sprintf("guest %d (client %v on %s, epoch %d, %+v): task %s of %d lines is at line %d, %d events, %+v",
		g.id, meta.Client, meta.Server, meta.Epoch, g.client.Stats(), r.at.Task, r.lines, r.line, have, r.at)
}

// tasks are those of all guests.
func (c *crowd) tasks() (all []wire.TaskID) {
	for _, g := range c.all {
		g.mu.Lock()
		all = slices.AppendSeq(all, maps.Keys(g.errand))
		g.mu.Unlock()
	}
	return all
}

// has returns how many durable events of a task came, and whether it has ended.
func (g *guest) has(r *errand) (events int, over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return r.events, r.over()
}

// forgetArrivals empties arrivals.
func (c *crowd) forgetArrivals() {
	for len(c.arrivals) > 0 {
		<-c.arrivals
	}
}

// pause is the longest time between two durable events of one guest, since it was asked for last.
func (c *crowd) pause() (longest time.Duration) {
	for _, g := range c.all {
		g.mu.Lock()
		longest = max(longest, g.pause)
		g.pause = 0
		g.mu.Unlock()
	}
	return longest
}

// without returns those of all that are not among some.
func without(all, some []*guest) (rest []*guest) {
	for _, g := range all {
		if !slices.Contains(some, g) {
			rest = append(rest, g)
		}
	}
	return rest
}

// ended waits until every task of the guests has ended.
func (c *crowd) ended(guests ...*guest) {
	c.t.Helper()
	late := time.After(homeWithin)
	for _, g := range guests {
		for _, r := range g.errands() {
			select {
			case <-r.ended:
			case <-late:
				c.t.Errorf("%v has not ended", g.describe(r))
				late = time.After(0)
			}
		}
	}
}

// goHome waits until every task has ended and every queue of the cluster is empty, has the guests
// leave, and checks that each application has got all of it.
func (c *crowd) goHome(site *cluster) {
	c.t.Helper()
	c.goHomeBut(site, 0)
}

// goHomeBut is goHome where so many events were given up.
func (c *crowd) goHomeBut(site *cluster, dead int) {
	c.t.Helper()
	c.ended(c.all...)
	if !c.t.Failed() {
		site.isQuietBut(dead) // before they leave: a task that two runners did may have events for them still
	}
	c.disperse()
	for _, g := range c.all {
		for _, r := range g.errands() {
			if r.over() && !r.failed && r.line != int64(r.lines) {
				c.t.Errorf("guest %d: %d lines of task %s, want %d", g.id, r.line, r.at.Task, r.lines)
			}
			if len(r.gaps) > 0 {
				c.t.Errorf("guest %d: task %s has gaps: %+v", g.id, r.at.Task, r.gaps)
			}
		}
		if len(g.wrong) > 0 {
			c.t.Errorf("guest %d: %s", g.id, strings.Join(g.wrong, "; "))
		}
	}
}
