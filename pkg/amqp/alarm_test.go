package amqp

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

func TestMemoryAlarmStopsPublishingOnly(t *testing.T) {
	const soon = 500 * time.Millisecond
	s := server()
	l := join(t, open(t, Options{ConfirmTimeout: soon}), broker.Worker(s)) // it does not count under an alarm
	m := own(t, l, s, 1)
	store(t, l, broker.ToMailbox(s), "1", "2", "3")
	if l.Blocked() {
		t.Error("blocked before the alarm")
	}

	over := raiseAlarm(t)
	pending := publishUntilBlocked(t, l, broker.ToMailbox(s))
	ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
	defer cancel()
	if _, err := l.Publish(ctx, broker.ToMailbox(s), broker.Message{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("publish under an alarm: got %v, want the context's error", err)
	}
	for _, id := range []string{"1", "2", "3"} { // meanwhile consuming goes on, and settling too
		if err := m.Ack(expect(t, m, id)[0]); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := l.Publish(bounded(t), broker.ToMailbox(s), broker.Message{ID: "waited"})
		waiting <- err
	}()

	over()
	if err := <-waiting; err != nil {
		t.Errorf("publish when the alarm is over: %v", err)
	}
	for _, r := range pending {
		if o := outcome(t, r); o != broker.Stored {
			t.Errorf("a publish during the alarm: %v once it is over, want stored", o)
		}
	}
	if l.Blocked() {
		t.Error("still blocked")
	}
	for range pending {
		if err := m.Ack(expect(t, m, "pending")[0]); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, m, "waited")
}

// Else all who wait would write into a socket that nobody reads, until it is full and the link ends.
func TestPublishThatWaitsForItsTurnSeesTheAlarm(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	m := own(t, l, s, 10)
	l.publisher.turn <- struct{}{}
	published := make(chan error)
	go func() {
		_, err := l.Publish(bounded(t), broker.ToMailbox(s), broker.Message{ID: "late"})
		published <- err
	}()
	for len(l.publisher.window) == 0 { // it has passed the window, and soon waits for the turn
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond)
	l.publisher.alarm.set(true)
	<-l.publisher.turn
	select {
	case err := <-published:
		t.Errorf("published under an alarm: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	l.publisher.alarm.set(false)
	if err := <-published; err != nil {
		t.Error(err)
	}
	expect(t, m, "late")
}

func TestCloseUnderAnAlarmIsBounded(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Worker(server()))
	raiseAlarm(t)
	pending := publishUntilBlocked(t, l, broker.ToAll())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: got %v, want the context's error", err)
	}
	if o := outcome(t, pending[len(pending)-1]); o != broker.Unknown {
		t.Errorf("%v, want unknown", o)
	}
}

// raiseAlarm tells the broker that it is short of memory, until clear is called or the test ends.
func raiseAlarm(t *testing.T) (clear func()) {
	t.Helper()
	eval(t, "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})")
	clear = func() { eval(t, "rabbit_alarm:clear_alarm({resource_limit, memory, node()})") }
	t.Cleanup(clear)
	return clear
}

// publishUntilBlocked publishes "pending" under an alarm, of which the broker tells only who
// publishes. It sees that the last one is not answered.
func publishUntilBlocked(t *testing.T, l *link, to broker.Address) (pending []broker.Receipt) {
	t.Helper()
	if err := rabbit.Node().Freeze(); err != nil { // all are on their way before it sees the first
		t.Fatal(err)
	}
	defer rabbit.Node().Thaw() // also if the test ends here: others need the node
	for range 10 {
		pending = append(pending, publish(t, l, to, broker.Message{ID: "pending", Body: make([]byte, 20<<10)}))
	}
	if err := rabbit.Node().Thaw(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(patience); !l.Blocked(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the broker did not say that it is blocked; the link: %v", l.Err())
		}
	}
	if o := pending[len(pending)-1].Outcome(); o != broker.Pending {
		t.Errorf("a publish under an alarm: %v, want pending", o)
	}
	return pending
}
