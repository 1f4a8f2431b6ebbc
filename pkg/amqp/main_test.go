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
	policy := fmt.Sprintf(`{"max-length": %d, "overflow": "reject-publish"}`, limit)
	if _, err = rabbit.Ctl(ctx, "set_policy", "--priority", "9", "--apply-to", "queues", "limited", `^mailbox\.limited`, policy); err != nil {
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

var limited atomic.Int64

func harness(o Options) func(t *testing.T) brokertest.Harness {
	return func(t *testing.T) brokertest.Harness {
		return brokertest.Harness{
			Broker: func() broker.Broker { return open(t, o) },
			Cut: func(t *testing.T, l broker.Link) {
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
