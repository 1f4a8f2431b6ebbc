package amqp

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// numbered publishes messages whose IDs are first, first+1 and so on, n of them.
func numbered(t *testing.T, l *link, s socketmeta.ServerID, first, n int) {
	t.Helper()
	var last broker.Receipt
	for i := first; i < first+n; i++ {
		last = publish(t, l, broker.ToMailbox(s), broker.Message{ID: strconv.Itoa(i)})
	}
	if o := outcome(t, last); o != broker.Stored {
		t.Fatalf("the last of %d: %v, want stored", n, o)
	}
}

// expectNumbered takes n deliveries of such messages, in order and with rising tags.
func expectNumbered(t *testing.T, m broker.Mailbox, first, n int) (tags []uint64) {
	t.Helper()
	var ids []string
	for i := first; i < first+n; i++ {
		ids = append(ids, strconv.Itoa(i))
	}
	tags = expect(t, m, ids...)
	for i := range tags[1:] {
		if tags[i+1] <= tags[i] {
			t.Fatalf("tag %d after %d", tags[i+1], tags[i])
		}
	}
	return tags
}

// kept is enough for a lane to be left.
const kept = keptMost + 44

// keeping is a mailbox that keeps what came by its first lane, the messages 0 to kept, and is in its second.
func keeping(t *testing.T, prefetch int) (l *link, m *mailbox, tags []uint64) {
	t.Helper()
	s := server()
	l = join(t, open(t, Options{}), broker.Worker(s))
	m = own(t, l, s, prefetch).(*mailbox)
	numbered(t, l, s, 0, kept)
	tags = expectNumbered(t, m, 0, kept)
	awaitLanes(t, m, 2)
	return l, m, tags
}

// awaitLanes waits until m has so many lanes, and its deliveries come by the last.
func awaitLanes(t *testing.T, m *mailbox, want int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		m.calls.Lock()
		m.acks.Lock()
		n, inUse := len(m.lanes), m.lanes[len(m.lanes)-1] == m.lane
		m.acks.Unlock()
		m.calls.Unlock()
		if n == want && inUse {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the mailbox has %d lanes, want %d", n, want)
		}
	}
}

// awaitLimit waits until the present lane has so much of the prefetch.
func awaitLimit(t *testing.T, m *mailbox, want int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		m.calls.Lock()
		got := m.lane.limit
		m.calls.Unlock()
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the lane has %d of the prefetch, want %d", got, want)
		}
	}
}

// awaitUnsettled waits until the broker has so many deliveries of the mailbox of s as unsettled.
func awaitUnsettled(t *testing.T, s socketmeta.ServerID, want int) {
	t.Helper()
	ask := fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)), [{_, N}] = rabbit_amqqueue:info(Q, [messages_unacknowledged]), io:format("~w", [N])`, broker.MailboxQueue(s))
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		got := eval(t, ask)
		if got == strconv.Itoa(want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the broker has %s unsettled deliveries, want %d", got, want)
		}
	}
}

func silent(t *testing.T, m broker.Mailbox) {
	t.Helper()
	select {
	case d := <-m.Deliveries():
		t.Fatalf("%s came beyond the prefetch", d.ID)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestAMailboxThatKeepsMuchGoesOnInAnotherLane(t *testing.T) {
	t.Parallel() // it waits more than it works
	const prefetch = 1000
	l, m, first := keeping(t, prefetch)
	s := m.server

	numbered(t, l, s, kept, prefetch)
	second := expectNumbered(t, m, kept, prefetch-kept)
	silent(t, m) // the lanes have one prefetch together
	if second[0] <= first[kept-1] {
		t.Errorf("tag %d after %d", second[0], first[kept-1])
	}

	if err := m.Ack(first...); err != nil {
		t.Fatal(err)
	}
	third := expectNumbered(t, m, prefetch, kept) // the present lane has what the other one left
	if err := m.Ack(append(second[:100:100], third...)...); err != nil {
		t.Fatal(err)
	}
	awaitUnsettled(t, s, prefetch-kept-100)
	numbered(t, l, s, prefetch+kept, 10)
	fourth := expectNumbered(t, m, prefetch+kept, 10)
	awaitLanes(t, m, 2) // the first again, which holds nothing
	if err := m.Ack(append(second[200:], fourth...)...); err != nil {
		t.Fatal(err)
	}
	awaitUnsettled(t, s, 100)

	numbered(t, l, s, prefetch+kept+10, 10)
	expectNumbered(t, m, prefetch+kept+10, 10)
	if err := m.Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	next := own(t, l, s, prefetch)
	expectNumbered(t, next, kept+100, 100)
	expectNumbered(t, next, prefetch+kept+10, 10)
}

func TestALaneGetsThePrefetchThatAnotherOneNoLongerNeeds(t *testing.T) {
	t.Parallel() // it waits more than it works
	const prefetch = 1000
	_, m, tags := keeping(t, prefetch)
	awaitLimit(t, m, prefetch-kept)
	if err := m.Ack(tags...); err != nil {
		t.Fatal(err)
	}
	awaitLimit(t, m, prefetch)
}

func TestWhatCameByOneLaneIsGivenOutBeforeTheNextOneIsInUse(t *testing.T) {
	t.Parallel() // it waits more than it works
	const unread = 600
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	m := own(t, l, s, 2000).(*mailbox)
	numbered(t, l, s, 0, kept+unread)
	expectNumbered(t, m, 0, kept)
	lanes := func() (channels int, inUse bool) {
		m.calls.Lock()
		defer m.calls.Unlock()
		m.acks.Lock()
		defer m.acks.Unlock()
		return 1 + len(m.beside), m.lanes[len(m.lanes)-1] == m.lane
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, inUse := lanes(); !inUse {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the lane is not changed")
		}
	}
	numbered(t, l, s, kept+unread, 10)
	time.Sleep((keptFor + 2) * lookEvery) // in which it might be changed again
	if n, inUse := lanes(); n != 2 || inUse {
		t.Errorf("%d channels (the last is in use: %v) while the deliveries of the first are not given out, want 2 and false", n, inUse)
	}
	expectNumbered(t, m, kept, unread+10)
	awaitLimit(t, m, 2000-kept-unread) // what was on its way when the lane was changed counts now
}

func TestWhatSeveralLanesKeepComesAgainInOrder(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := server()
	b := open(t, Options{})
	l := join(t, b, broker.Worker(s))
	m := own(t, l, s, 2000).(*mailbox)
	for lane := range 3 {
		numbered(t, l, s, lane*kept, kept)
		expectNumbered(t, m, lane*kept, kept)
		awaitLanes(t, m, lane+2)
	}
	l.consuming.cut()
	_ = ended(t, l)
	other := join(t, b, broker.Worker(server()))
	for {
		next, err := other.AdoptMailbox(bounded(t), s, 2000)
		if errors.Is(err, broker.ErrRefused) { // the broker has not seen the cut yet
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		expectNumbered(t, next, 0, 3*kept)
		return
	}
}

func TestWhatIsSettledOutOfItsOrderIsToldSoon(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	m := own(t, l, s, 10)
	numbered(t, l, s, 0, 5)
	tags := expectNumbered(t, m, 0, 5)
	if err := m.Ack(tags[1], tags[3]); err != nil {
		t.Fatal(err)
	}
	awaitUnsettled(t, s, 3)
	if err := m.Ack(tags[4]); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(bounded(t)); err != nil { // at once: it is told before
		t.Fatal(err)
	}
	next := own(t, l, s, 10)
	expect(t, next, "0", "2")
	silent(t, next)
}

func TestAMailboxHasNoMoreLanesThanItsBound(t *testing.T) {
	m := &mailbox{prefetch: maxPrefetch}
	for range maxLanes {
		m.lane = new(lane)
		m.lane.unacked.came(1)
		m.lanes = append(m.lanes, m.lane)
	}
	if next, err := m.nextLane(); next != nil || err != nil {
		t.Errorf("got %v and %v, want none", next, err)
	}
	m.lanes[5].unacked.settle(1)
	m.lanes[5].unacked.run()
	if next, err := m.nextLane(); next != m.lanes[5] || err != nil {
		t.Errorf("got %v and %v, want the one that holds nothing", next, err)
	}
}
