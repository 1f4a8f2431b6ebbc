package memory_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/brokertest"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	brokertest.Run(t, brokertest.Suite{Within: synctest.Test, Connect: connect})
}

// TestContractInRealTime runs it with goroutines as the scheduler has them.
func TestContractInRealTime(t *testing.T) {
	brokertest.Run(t, brokertest.Suite{Connect: connect})
}

func connect(t *testing.T) brokertest.Harness {
	b := memory.New(memory.Options{})
	limited := 0
	return brokertest.Harness{
		Broker:  func() broker.Broker { return b },
		Cut:     func(_ *testing.T, l broker.Link) { memory.CutLink(b, l) },
		Quiet:   5 * time.Millisecond, // this broker delivers before Publish returns
		Restart: func(*testing.T) { b.Down(true); b.Down(false) },
		Limited: func() (socketmeta.ServerID, int) {
			limited++
			s := socketmeta.ServerID(fmt.Sprintf("limited-%d", limited))
			memory.LimitQueue(b, broker.MailboxQueue(s), 50)
			return s, 50
		},
	}
}
