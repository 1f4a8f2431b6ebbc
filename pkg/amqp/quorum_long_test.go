//go:build long

package amqp

import (
	"path"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker/brokertest"
)

// reordered are the promises that a quorum queue does not keep, by RabbitMQ's nature: it gives back
// to the end of what was given back before. So if what comes again is taken only in part, and comes
// again once more, that part comes last. A mailbox whose owners have all the same prefetch never
// sees it; an overflow that is taken in small parts by owners who die may. Clients put events in
// order by their numbers.
var reordered = map[string]bool{
	"AdopterGetsWhatWasUnsettledInOrder": true, // with a prefetch smaller than what was unsettled
	"UnsettledHeldComeAgainInOrder":      true,
}

func TestContractOnQuorumMailboxes(t *testing.T) {
	connect := harness(Options{MailboxType: Quorum})
	brokertest.Run(t, brokertest.Suite{Connect: func(t *testing.T) brokertest.Harness {
		if reordered[path.Base(t.Name())] {
			t.Skip("a quorum queue keeps this order only when its owners take as much as came back")
		}
		return connect(t)
	}})
}
