package amqp

import (
	"errors"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

// Fault 18 of docs/FAULTS.md: what is published while there is no mailbox is parked, and the mailbox is
// made again, and bound, by the worker whose it is.
func TestFault18AMailboxDeletedByHandIsMadeAgainAndWhatWasParkedIsDelivered(t *testing.T) {
	onBothTypes(t, func(t *testing.T, b *Broker) {
		s := server()
		l, runner := join(t, b, broker.Worker(s)), join(t, b, broker.Runner(string(s)))
		m := own(t, l, s, 10)
		store(t, runner, broker.ToMailbox(s), "before")
		if err := m.Ack(expect(t, m, "before")[0]); err != nil {
			t.Fatal(err)
		}
		deleteQueue(t, l, broker.MailboxQueue(s))
		if _, more := <-m.Deliveries(); more {
			t.Error("a delivery from a mailbox that is gone")
		}
		store(t, runner, broker.ToMailbox(s), "meanwhile 1", "meanwhile 2")
		m = own(t, l, s, 10)
		store(t, runner, broker.ToMailbox(s), "after")
		expect(t, m, "after")

		parked := adopt(t, l, broker.ParkedServer, 1000)
		want := []string{"meanwhile 1", "meanwhile 2"}
		for len(want) > 0 {
			select {
			case d, ok := <-parked.Deliveries():
				if !ok {
					t.Fatal(parked.Err())
				}
				if d.ID == want[0] { // other tests have left some there too
					want = want[1:]
				}
				if err := parked.Ack(d.Tag); err != nil {
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatalf("%q did not come out of the parked mailbox", want)
			}
		}
		if err := errors.Join(parked.Close(bounded(t)), m.Close(bounded(t))); err != nil {
			t.Error(err)
		}
	})
}
