package memory_test

import (
	"fmt"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
)

// A simulator drives the broker's rules without goroutines: a worker dies with an event in its
// hands, and another adopts its mailbox.
func ExampleStore() {
	s := memory.NewStore(memory.Limits{})
	gives := func(who string) func(broker.Delivery) {
		return func(d broker.Delivery) { fmt.Println(who, "gets", d.ID, d.Tag, d.Redelivered) }
	}
	controls := func(who string) func(broker.Message) {
		return func(m broker.Message) { fmt.Println(who, "is told", m.ID) }
	}

	first, _ := s.Join(broker.Worker("i1-w1"), controls("i1-w1"))
	owned, _ := s.Own(first, "i1-w1", 100, gives("i1-w1"))
	fmt.Println(s.Publish(broker.ToMailbox("i1-w1"), broker.Message{ID: "e1"}))

	second, _ := s.Join(broker.Worker("i1-w2"), controls("i1-w2"))
	_, err := s.Adopt(second, "i1-w1", 100, gives("i1-w2"))
	fmt.Println(err)
	s.Leave(first)
	adopted, _ := s.Adopt(second, "i1-w1", 100, gives("i1-w2"))
	s.Publish(broker.ToControl(broker.Worker("i1-w1")), broker.Message{ID: "hand it back"})
	fmt.Println(owned.Settle(1, false), adopted.Settle(1, false), len(s.Messages("mailbox.i1-w1")))
	// Output:
	// i1-w1 gets e1 1 false
	// stored
	// adopt the mailbox of i1-w1: another process owns this mailbox
	// i1-w2 gets e1 1 true
	// i1-w2 is told hand it back
	// false true 0
}
