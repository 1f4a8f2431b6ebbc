package mailbox

import (
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// RabbitMQ's consumer_timeout closes the channel of a consumer that holds a delivery for too long:
// that must be more than the refresh time and one sweep, and may be less than the resume window.
func TestFault24NoDeliveryStaysUnacknowledgedForLongerThanTheRefreshTimeAndOneSweep(t *testing.T) {
	const refresh, sweep = 30 * time.Second, 2 * time.Second
	o := session.Options{Window: 10 * time.Minute, RefreshAfter: refresh, AckTimeout: 2 * time.Minute, MaxWaiting: 10}
	inTown(t, memory.Limits{}, o, Options{SweepEvery: sweep}, twoWorkers, func(w *town) {
		away, mute, here := w.settler("i1-w1"), w.settler("i1-w1"), w.settler("i1-w1")
		away.leave()
		mute.mute = true
		for range 30 {
			w.publish(away, "i1-w1", 3) // some of it waits in the overflow
			w.publish(mute, "i1-w1", 3)
			w.publish(here, "i1-w1", 3)
			w.pass(6 * time.Second)
		}
		w.pass(refresh + sweep) // what is held now is settled too
		if codes := mute.codes(); !slices.Equal(codes, []int{wire.CloseSlow}) {
			t.Errorf("the client that acknowledges nothing was closed with %v", codes)
		}
		mute.mute = false
		w.attach(mute, "i1-w1")
		w.attach(away, "i1-w2")
		w.pass(10 * time.Second)
		if oldest := time.Duration(w.ages.Load()); oldest > refresh+sweep || oldest < refresh {
			t.Errorf("a delivery was held for %v, want at most %v", oldest, refresh+sweep)
		}
		if a, m, h := away.has("t"), mute.has("t"), here.has("t"); a != 90 || m != 90 || h != 90 {
			t.Errorf("the applications have %d, %d and %d of 90 events", a, m, h)
		}
		w.settled()
	})
}

// The janitor unbinds the mailbox of a worker that is gone, waits, and deletes it. Meanwhile somebody
// publishes without a pause, and the worker comes back: at every moment of that.
func TestFault26TheJanitorLosesNothingToABusyPublisherAndAReturningOwner(t *testing.T) {
	const window = 10 * time.Second
	for returns := time.Duration(0); returns < 3*time.Second; returns += 100 * time.Millisecond {
		inTown(t, memory.Limits{}, session.Options{Window: window}, Options{}, twoWorkers, func(w *town) {
			p := w.settler("i1-w1")
			w.attach(p, "i1-w2")
			w.kill("i1-w1")
			retires := func() bool { return w.stageOf("i1-w2", "i1-w1") == unbinding || w.stageOf("i1-w2", "i1-w1") == unbound }
			for waited := 0; !retires(); waited++ {
				if waited > 100 {
					t.Fatal("the mailbox is not retired")
				}
				w.pass(500 * time.Millisecond)
			}
			began := time.Now()
			for back := false; time.Since(began) < 4*time.Second; w.pass(20 * time.Millisecond) {
				w.publish(p, "i1-w1", 1)
				if !back && time.Since(began) >= returns {
					w.start("i1-w1")
					back = true
				}
			}
			w.pass(5 * time.Second)
			if err := w.workers["i1-w1"].Ready(); err != nil {
				t.Errorf("back after %v, and not ready 5 s later: %v", returns, err)
			}
			if n, want := p.has("t"), int(p.tasks["t"].published); n != want {
				t.Errorf("back after %v: the application has %d of %d events", returns, n, want)
			}
			w.settled()
		})
	}
}

// stageOf is how far a worker is in retiring a mailbox.
func (w *town) stageOf(id, box socketmeta.ServerID) (at stage) {
	done := make(chan struct{})
	if !w.workers[id].request(func(s *service) {
		if o := s.core.owned[box]; o != nil {
			at = o.retire
		}
		close(done)
	}) {
		return inUse
	}
	<-done
	return at
}

func TestFault31AClientThatNeverAcknowledgesIsClosedAndDisturbsNobody(t *testing.T) {
	o := session.Options{Window: 10 * time.Minute, MaxSent: 20, MaxWaiting: 50}
	inTown(t, memory.Limits{}, o, Options{}, oneWorker, func(w *town) {
		mute, other := w.settler("i1-w1"), w.settler("i1-w1")
		mute.mute = true
		for range 59 {
			w.publish(mute, "i1-w1", 3)
			w.publish(other, "i1-w1", 3)
			w.pass(time.Second)
			if n := int64(other.has("t")); n != other.tasks["t"].published {
				t.Fatalf("the other client has %d of %d events", n, other.tasks["t"].published)
			}
		}
		if codes := mute.codes(); len(codes) != 0 || mute.tasks["t"].frames != 20 {
			t.Errorf("within a minute: closed with %v, %d frames sent; want none and a send window of 20", codes, mute.tasks["t"].frames)
		}
		w.pass(5 * time.Second)
		if codes := mute.codes(); !slices.Equal(codes, []int{wire.CloseSlow}) {
			t.Errorf("after a minute: closed with %v, want 4208", codes)
		}
		if codes := other.codes(); len(codes) != 0 {
			t.Errorf("the other client was closed with %v", codes)
		}
		mute.mute = false
		w.attach(mute, "i1-w1")
		w.pass(10 * time.Second)
		if n := mute.has("t"); n != 3*59 || len(w.broker.Messages(broker.QueueDeadEvents)) != 0 {
			t.Errorf("back, it has %d of %d events", n, 3*59)
		}
		w.settled()
	})
}
