// Package wsclient is the Go client of a wscluster: for Go programs, tools and tests. It does the
// same as the TypeScript client in client/: it keeps one session over any number of sockets, and
// gives each durable event of each task to the application exactly once and in order.
//
//	c, err := wsclient.New(wsclient.Options{URL: "ws://127.0.0.1:8080/v1/ws"})
//	go c.Run(ctx)
//	task, err := c.Submit(ctx, "go-build", params)
//	for e := range task.Events(ctx) { ... } // or nothing at all, and only
//	value, err := task.Wait(ctx)
//
// Client.Subscribe is for channels, whose posts come at most once, and Options.OnRequest for what backends ask of
// this client.
//
// Events that the cluster gave up, because the client was away for too long or too many waited for
// it, come as one event of type gap in their place of the order.
//
// An event is acknowledged only after the application is done with it. What the application has
// not yet taken is bounded: 1,024 events and 4 MiB over all tasks. A durable event beyond that is
// dropped, never acknowledged, and comes again: as soon as the application has taken all that it
// can, the client resumes on a new socket.
//
// A client costs two goroutines while it is connected, one while it is not, and some 20 KiB; so a
// process can hold thousands.
package wsclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/wire"
)

// What a client holds for its application, at most.
const (
	maxHeldEvents = 1024
	maxHeldBytes  = 4 << 20
)

// ErrStopped is what waiting calls return once Run has returned because its ctx ended.
var ErrStopped = errors.New("the client is not running any more")

// Client is one session with a cluster. Make one with New; its methods are safe for concurrent use.
type Client struct {
	o    Options
	url  *url.URL
	jar  http.CookieJar // nil without cookies
	wake chan struct{}  // cap 1: the writer has something to look at
	done chan struct{}  // closed when Run returns; err may be read then
	err  error

	mu    sync.Mutex
	in    *inbox
	tasks map[wire.TaskID]*Task // that are not over
	asks  []*ask                // submits without an answer, oldest first
	asked uint64                // numbers them, and what is asked of channels
	subs  map[wire.Channel]*Subscription
	meta  wire.SocketMeta // the last one, or what State tells of it
	sock  *socket         // nil while there is none
	stats Stats

	questions map[string]*question // by ID: of channels, without an answer
	answers   answers              // to requests of backends
	replies   []*wire.Reply        // to be written

	running  context.Context // Run's, for the handlers of requests; set before there is a socket
	handlers sync.WaitGroup
}

// Stats counts since New.
type Stats struct {
	Sockets    int // that were welcomed; all but the first are reconnects
	Events     int // given to the application, and it was done with them; without gaps
	Gaps       int // given to the application: events that it will never have
	Duplicates int // durable events that came although the application had them, or was about to
	Reordered  int // durable events that came too early and had to wait
	Resets     int // runs of tasks that took the place of another
	Dropped    int // durable events for which there was no room
	Unknown    int // events of tasks that are not open, and of which the application had nothing
	Acks       int // ack frames sent
}

// Phase is where the connection is.
type Phase string

// The phases.
const (
	Connecting Phase = "connecting"
	Open       Phase = "open"    // the socket_meta is here
	Waiting    Phase = "waiting" // for the next retry
	Closed     Phase = "closed"  // Run returns
)

// Status is one change of the connection.
type Status struct {
	Phase Phase
	Retry int           // retries in a row, this one counted; 0 for the first socket
	Delay time.Duration // Waiting: until the retry
	Err   error         // Waiting, Closed: how the last socket ended
}

// New returns a client that does nothing before Run. The error names all that is wrong with o.
func New(o Options) (*Client, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("wsclient: %w", err)
	}
	c := &Client{
		o: o.withDefaults(), url: u,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		in: newInbox(maxHeldEvents, maxHeldBytes), tasks: map[wire.TaskID]*Task{},
		subs: map[wire.Channel]*Subscription{}, questions: map[string]*question{},
		answers: answers{byKey: map[string]*answer{}},
	}
	c.in.logs = o.Logs
	if o.Affinity == AffinityCookie {
		c.jar = o.Jar
		if c.jar == nil {
			c.jar, _ = cookiejar.New(nil) // it never fails
		}
	}
	c.restore(o.State)
	return c, nil
}

// Run connects and keeps connected. It blocks until ctx ends, and then acknowledges what the
// application has, says goodbye and returns nil; or until the server tells the client not to come
// back (a CloseError with 1008 or 4000-4099) or MaxRetries have failed, and then says so. It waits for
// the functions that Options.OnRequest is in, whose ctx ends. Call it once.
func (c *Client) Run(ctx context.Context) error {
	var stop context.CancelFunc
	c.running, stop = context.WithCancel(ctx)
	err := c.keep(ctx)
	stop()
	c.handlers.Wait()
	c.err = err
	if err == nil {
		c.err = ErrStopped
	}
	close(c.done)
	c.status(Status{Phase: Closed, Err: err})
	return err
}

func (c *Client) keep(ctx context.Context) error {
	for retry := 0; ; {
		c.status(Status{Phase: Connecting, Retry: retry})
		opened, err := c.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case stops(err):
			return err
		case !opened.IsZero() && time.Since(opened) >= steady:
			retry = 0
		}
		if retry++; c.o.MaxRetries > 0 && retry > c.o.MaxRetries {
			return fmt.Errorf("gave up after %d retries: %w", c.o.MaxRetries, err)
		}
		wait := delay(&c.o, err, retry, rand.Float64())
		c.o.Log.Info("socket ended", zap.Error(err), zap.Int("retry", retry), zap.Duration("delay", wait))
		c.status(Status{Phase: Waiting, Retry: retry, Delay: wait, Err: err})
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Client) status(s Status) {
	if c.o.OnStatus != nil {
		c.o.OnStatus(s)
	}
}

// Meta returns the last socket_meta; its Client is zero before the first.
func (c *Client) Meta() wire.SocketMeta {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.meta
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Tasks returns the tasks that are not over, those of Options.State too, by ID.
func (c *Client) Tasks() []*Task {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*Task, 0, len(c.tasks))
	for _, t := range c.tasks {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Task) int { return strings.Compare(string(a.id), string(b.id)) })
	return all
}

// Cut closes the connection without a word, as a network does. The client comes back by itself.
// It reports whether there was a connection.
func (c *Client) Cut() bool {
	c.mu.Lock()
	s := c.sock
	c.mu.Unlock()
	if s == nil {
		return false
	}
	s.conn.Close()
	return true
}

// poke has the writer look at what there is to send.
func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}
