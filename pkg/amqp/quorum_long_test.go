//go:build long

package amqp

import (
	"testing"

	"github.com/wscluster/wscluster/pkg/broker/brokertest"
)

func TestContractOnQuorumMailboxes(t *testing.T) {
	brokertest.Run(t, brokertest.Suite{Connect: harness(Options{MailboxType: Quorum})})
}
