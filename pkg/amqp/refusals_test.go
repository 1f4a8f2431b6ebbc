package amqp

import (
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

func TestAQueueThatRefusesEverythingIsTriedOverANewLinkOnceInTenMinutes(t *testing.T) {
	a, b := broker.ToMailbox("i1-w1"), broker.ToMailbox("i1-w2")
	began := time.Now()
	var r refusals
	for _, step := range []struct {
		at      time.Duration
		to      broker.Address
		outcome broker.Outcome
		stuck   bool
	}{
		{0, a, broker.Refused, false},
		{1900 * time.Millisecond, a, broker.Refused, false},
		{2 * time.Second, b, broker.Refused, false},
		{3 * time.Second, a, broker.Stored, false}, // it was full, and is not any more
		{3 * time.Second, a, broker.Refused, false},
		{4 * time.Second, b, broker.Refused, true},
		{5 * time.Second, b, broker.Refused, false},
		{5 * time.Second, a, broker.Refused, true},
		{time.Minute, a, broker.Refused, false},
		{11 * time.Minute, a, broker.Refused, true},
	} {
		if got := r.judged(step.to, step.outcome, began.Add(step.at)); got != step.stuck {
			t.Errorf("at %v %v to %v: stuck is %v", step.at, step.outcome, step.to, got)
		}
	}
	r.joined()
	if r.judged(a, broker.Refused, began.Add(time.Hour)) {
		t.Error("a new link has to be refused for itself")
	}
}
