// Package brokertest is the contract of package broker as tests: whatever implements broker.Broker
// runs them and passes.
//
//	func TestContract(t *testing.T) {
//		brokertest.Run(t, func(t *testing.T) brokertest.Harness { ... })
//	}
package brokertest

import (
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// Harness reaches the broker under test.
type Harness struct {
	// Broker returns a way to the broker as a process of its own would have it. All of one
	// harness reach the same broker. They may be used until the test ends.
	Broker func() broker.Broker

	// Cut ends the transport below a link that Broker's brokers made, as a fault of the network
	// or the broker would. It need not wait for the link to notice.
	Cut func(t *testing.T, l broker.Link)

	// Restart restarts the broker, and returns when it can be joined again. Its durable queues
	// and messages survive.
	Restart func(t *testing.T)

	// Limited names a server whose mailbox, once it is open, takes at most so many messages (1 to
	// 1,000) while nobody reads them, in the broker of Broker. Each call names another.
	Limited func() (s socketmeta.ServerID, messages int)

	// Quiet is how long a test waits before it believes that nothing more arrives; 0 means 50 ms.
	Quiet time.Duration
}

// Option changes how Run runs the tests.
type Option func(*runner)

// Within runs the body of each test through wrap: synctest.Test, for a broker that lives in one
// process. The Harness is made within it too.
func Within(wrap func(*testing.T, func(*testing.T))) Option {
	return func(r *runner) { r.wrap = wrap }
}

type runner struct {
	wrap func(*testing.T, func(*testing.T))
}

// Run tests the contract, one subtest for each promise, in turn. connect is called once for each.
// Names of identities, mailboxes and kinds are unique to each run of each test.
func Run(t *testing.T, connect func(t *testing.T) Harness, options ...Option) {
	r := runner{wrap: func(t *testing.T, body func(*testing.T)) { body(t) }}
	for _, o := range options {
		o(&r)
	}
	for _, promise := range promises {
		t.Run(promise.name, func(t *testing.T) {
			r.wrap(t, func(t *testing.T) { promise.test(newCase(t, connect(t))) })
		})
	}
}

var promises = []struct {
	name string
	test func(*testCase)
}{}
