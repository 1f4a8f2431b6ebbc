package amqp

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/brokertest"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// rabbit is the private node that all tests of this package share.
var rabbit *rig.RabbitMQ

// limit is how many messages a mailbox whose server is called limited... takes.
const limit = 20

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := withRabbit(m.Run)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withRabbit(run func() int) (code int, err error) {
	ctx := context.Background()
	if rabbit, err = rig.StartRabbitMQ(ctx, rig.RabbitOptions{}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rabbit.Stop()) }()
	policy := fmt.Sprintf(`rabbit_policy:set(<<"/">>, <<"limited">>, <<"^mailbox\\.limited">>,
		[{<<"max-length">>, %d}, {<<"overflow">>, <<"reject-publish">>}], 9, <<"queues">>, <<"test">>)`, limit)
	if _, err = rabbit.Eval(ctx, "ok = "+policy); err != nil {
		return 0, err
	}
	return run(), nil
}

// open returns a way to the shared node.
func open(t testing.TB, o Options) *Broker {
	t.Helper()
	if o.URLs == nil {
		o.URLs = []string{rabbit.URL()}
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// drain returns when what was written has been sent.
func (s *socket) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.sending {
		s.moved.Wait()
	}
}

var limited atomic.Int64

func harness(o Options) func(t *testing.T) brokertest.Harness {
	return func(t *testing.T) brokertest.Harness {
		return brokertest.Harness{
			Broker: func() broker.Broker { return open(t, o) },
			Cut: func(t *testing.T, l broker.Link) {
				for _, c := range []*conn{l.(*link).publishing, l.(*link).consuming} {
					c.socket.drain() // the contract counts on what was settled before
				}
				l.(*link).publishing.cut()
				l.(*link).consuming.cut()
			},
			Restart: func(t *testing.T) {
				if err := rabbit.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := rabbit.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
			Limited: func() (socketmeta.ServerID, int) {
				return socketmeta.ServerID(fmt.Sprintf("limited%d-w1", limited.Add(1))), limit
			},
			Quiet: 100 * time.Millisecond,
		}
	}
}

func TestContract(t *testing.T) {
	brokertest.Run(t, brokertest.Suite{Connect: harness(Options{})})
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// bounded is a context for calls that must return: it turns a hang into a failure.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

var names atomic.Int64

// server returns a server ID that no other test uses.
func server() socketmeta.ServerID {
	return socketmeta.ServerID(fmt.Sprintf("amqp%d-w1", names.Add(1)))
}

// join joins as id and closes the link when the test ends.
func join(t testing.TB, b *Broker, id broker.Identity) *link {
	t.Helper()
	l, err := b.Join(bounded(t), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(bounded(t)) })
	return l.(*link)
}

func own(t testing.TB, l *link, s socketmeta.ServerID, prefetch int) broker.Mailbox {
	t.Helper()
	m, err := l.OpenMailbox(bounded(t), s, prefetch)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func publish(t testing.TB, l *link, to broker.Address, m broker.Message) broker.Receipt {
	t.Helper()
	r, err := l.Publish(bounded(t), to, m)
	if err != nil {
		t.Fatalf("publish %s: %v", m.ID, err)
	}
	return r
}

func outcome(t testing.TB, r broker.Receipt) broker.Outcome {
	t.Helper()
	o, err := broker.Await(bounded(t), r)
	if err != nil {
		t.Errorf("no answer to a publish: %v", err)
	}
	return o
}

// store publishes small messages with these IDs and sees them stored.
func store(t testing.TB, l *link, to broker.Address, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if o := outcome(t, publish(t, l, to, broker.Message{ID: id})); o != broker.Stored {
			t.Fatalf("publish %s: %v, want stored", id, o)
		}
	}
}

// expect takes deliveries with these IDs, in this order, and returns their tags.
func expect(t testing.TB, k broker.Consumer, ids ...string) (tags []uint64) {
	t.Helper()
	for _, id := range ids {
		select {
		case d, ok := <-k.Deliveries():
			if !ok || d.ID != id {
				t.Fatalf("got delivery %q (%v, %v), want %q", d.ID, ok, k.Err(), id)
			}
			tags = append(tags, d.Tag)
		case <-time.After(patience):
			t.Fatalf("delivery %q did not come", id)
		}
	}
	return tags
}

// ended waits for the end of a link.
func ended(t testing.TB, l *link) error {
	t.Helper()
	select {
	case <-l.Done():
		return l.Err()
	case <-time.After(patience):
		t.Error("the link did not end")
		return errors.New("not ended")
	}
}

func eval(t testing.TB, expressions string) string {
	t.Helper()
	out, err := rabbit.Eval(bounded(t), expressions)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
