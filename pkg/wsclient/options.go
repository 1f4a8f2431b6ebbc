package wsclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Options are what a client needs to know. Only URL has no default.
type Options struct {
	URL    string      // ws:// or wss://, as in "ws://127.0.0.1:8080/v1/ws"
	Header http.Header // further headers of the opening handshake, Host and Origin too
	TLS    *tls.Config // for wss://; nil is Go's default

	// Dial reaches the server; nil is a net.Dialer's DialContext. It may choose the source
	// address, or go to a Unix socket whatever the address says.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Auth returns the auth token for one hello; nil where nobody asks for one. It is called
	// before each socket. An error counts as a socket that failed.
	Auth func(ctx context.Context) (string, error)

	// Affinity is how a load balancer finds the client's worker again.
	Affinity Affinity
	Jar      http.CookieJar // for AffinityCookie; nil is a jar of the client's own

	// The n-th retry in a row waits a random time below min(MaxDelay, BaseDelay * 2^n), or what
	// the server asks for if that is longer. 0 means 100 ms and 10 s.
	BaseDelay time.Duration
	MaxDelay  time.Duration

	// MaxRetries is how many retries in a row may fail before Run gives up; 0 means no limit. A
	// socket that was open for 5 s ends a row.
	MaxRetries int

	// What the application is done with is acknowledged at once if the last acknowledgement went out
	// AckDelay ago or more; else when AckDelay has passed since, or when AckEvery events are not
	// acknowledged, whichever is first; and when Run ends. 0 means 32 and 50 ms.
	AckEvery int
	AckDelay time.Duration

	// State is where an earlier client stood; see Client.State. Its open tasks are there again.
	State State

	// OnEvent, if set, is given every event of every task, one at a time; the application is done
	// with the event when it returns. It is called by the goroutine that reads the socket, which
	// answers no ping meanwhile: it must return within a few seconds. If nil, the application
	// takes the events of each task by Task.Events or Task.Wait.
	OnEvent func(*Task, Event)

	// Logs asks for every line of every task's log, from the first on and in order, before the final
	// event: lines that the live copy leaves out are read from the runner; those that no runner has any more are
	// one log event with missing_lines. Without it log events come as they may, as progress does.
	Logs bool

	// OnRequest answers what backends ask of this client: with a value that becomes JSON, or with an error whose text
	// the backend is told. Requests with one Key are one: it is called once for them, and they get the same reply, as long
	// as this Client remembers it, for the last 1,000 keys. Each call has a goroutine of its own, at
	// most 64 at once, in no order; 1,000 more wait for their turn, and what comes beyond that is refused. ctx ends when
	// nobody waits for the reply any more, and with Run. A reply has at most wire.MaxClientFrame bytes with all
	// around it. If nil, every request is answered with an error.
	OnRequest func(context.Context, wire.Request) (any, error)

	// OnMeta is told each socket_meta, by the same goroutine; OnStatus each change of the
	// connection, by Run's. Neither may block for longer than it takes to write a file: the cluster
	// sends nothing to a resumed session before OnMeta has returned, so that a program which keeps
	// its State there cannot lose the token that its events depend on.
	OnMeta   func(wire.SocketMeta)
	OnStatus func(Status)

	// Log may be nil. No token is ever logged.
	Log *zap.Logger

	// Faults are for tests of the server's side.
	Faults Faults
}

// Affinity is how a load balancer finds the client's worker again. Nothing but speed depends on it.
type Affinity int

// The kinds of affinity.
const (
	AffinityCookie Affinity = iota // keep the cookies of the handshake's answer
	AffinityRoute                  // put the last route ticket into the URL: ?route=
	AffinityNone
)

// Faults make a client misbehave on purpose: one that never acknowledges, one that loses its
// welcome. Each function may be nil; it is called before a message is sent or acted upon.
type Faults struct {
	Send    func(wire.ClientMessage) Fate
	Receive func(wire.ServerMessage) Fate
}

// Fate is what becomes of a message.
type Fate int

// The fates.
const (
	Pass Fate = iota
	Lose      // as if it had never been there
	Cut       // lost, and the connection with it
)

func (f *Faults) send(m wire.ClientMessage) Fate {
	if f.Send == nil {
		return Pass
	}
	return f.Send(m)
}

func (f *Faults) receive(m wire.ServerMessage) Fate {
	if f.Receive == nil {
		return Pass
	}
	return f.Receive(m)
}

func (o Options) withDefaults() Options {
	o.BaseDelay = cmp.Or(o.BaseDelay, 100*time.Millisecond)
	o.MaxDelay = cmp.Or(o.MaxDelay, 10*time.Second)
	o.AckEvery = cmp.Or(o.AckEvery, 32)
	o.AckDelay = cmp.Or(o.AckDelay, 50*time.Millisecond)
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

// validate joins all that is wrong with o.
func (o *Options) validate() error {
	var errs []error
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" {
		errs = append(errs, fmt.Errorf("URL %q must be ws://host/path or wss://host/path", o.URL))
	}
	for name, n := range map[string]int64{
		"BaseDelay": int64(o.BaseDelay), "MaxDelay": int64(o.MaxDelay), "MaxRetries": int64(o.MaxRetries),
		"AckEvery": int64(o.AckEvery), "AckDelay": int64(o.AckDelay),
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is negative; 0 takes the default", name))
		}
	}
	for _, t := range o.State.Tasks {
		if _, err := wire.ParseTaskID(string(t.Task)); err != nil {
			errs = append(errs, fmt.Errorf("State.Tasks: %w", err))
		}
		if len(t.Params) > 0 && !json.Valid(t.Params) {
			errs = append(errs, fmt.Errorf("State.Tasks: the params of %s are not JSON", t.Task))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("wsclient: %w", errors.Join(errs...))
	}
	return nil
}
