package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// A Return that nobody reads is dropped by the library after 5 s, and one that is read by somebody
// else than the judge of the confirm comes too late: then a lost message looks stored.
func TestReturnsAreNeverMissed(t *testing.T) {
	const window, messages = 300, 2000
	s := server()
	l := join(t, open(t, Options{Window: window}), broker.Worker(s))
	m := own(t, l, s, 65535)
	var receipts []broker.Receipt
	for i := range messages { // every other one has nowhere to go
		to := broker.ToMailbox(s)
		if i%2 == 0 {
			to = broker.ToControl(broker.Runner("nobody"))
		}
		receipts = append(receipts, publish(t, l, to, broker.Message{ID: "same"}))
	}
	for i, r := range receipts {
		want := broker.Stored
		if i%2 == 0 {
			want = broker.Returned
		}
		if o := outcome(t, r); o != want {
			t.Fatalf("publish %d: %v, want %v", i, o, want)
		}
	}
	for range messages / 2 {
		expect(t, m, "same")
	}
}

func TestWindowBoundsUnansweredPublishes(t *testing.T) {
	const window = 10
	s := server()
	l := join(t, open(t, Options{Window: window}), broker.Worker(s))
	own(t, l, s, 10)
	if err := rabbit.Node().Freeze(); err != nil {
		t.Fatal(err)
	}
	defer rabbit.Node().Thaw()
	var receipts []broker.Receipt
	for range window {
		receipts = append(receipts, publish(t, l, broker.ToMailbox(s), broker.Message{}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.Publish(ctx, broker.ToMailbox(s), broker.Message{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more than the window: got %v, want the context's error", err)
	}
	if err := rabbit.Node().Thaw(); err != nil {
		t.Fatal(err)
	}
	for _, r := range receipts {
		if o := outcome(t, r); o != broker.Stored {
			t.Errorf("%v, want stored", o)
		}
	}
	store(t, l, broker.ToMailbox(s), "next")
}

func TestFrozenBrokerHangsNobody(t *testing.T) {
	const soon = time.Second
	b := open(t, Options{ConfirmTimeout: soon, CallTimeout: soon, DialTimeout: soon})
	to := broker.ToMailbox(server())
	var links [5]*link
	for i := range links {
		links[i] = join(t, b, broker.Worker(server()))
	}
	links[1] = join(t, open(t, Options{WriteTimeout: soon, ConfirmTimeout: 2 * patience}), broker.Worker(server()))
	m := own(t, links[2], server(), 10)
	if err := rabbit.Node().Freeze(); err != nil {
		t.Fatal(err)
	}
	defer rabbit.Node().Thaw()
	unanswered, closing := publish(t, links[0], to, broker.Message{}), publish(t, links[4], to, broker.Message{})
	var waiting sync.WaitGroup
	defer waiting.Wait()

	waiting.Go(func() { // a publish that is not answered
		if o := outcome(t, unanswered); o != broker.Unknown {
			t.Errorf("a publish without an answer: %v, want unknown", o)
		}
		if err := ended(t, links[0]); !strings.Contains(err.Error(), "no answer to a publish") {
			t.Errorf("the link ended with %v", err)
		}
	})
	waiting.Go(func() { // more publishes than the kernel buffers
		for {
			if _, err := links[1].Publish(bounded(t), to, broker.Message{Body: make([]byte, broker.MaxMessage)}); err != nil {
				if !errors.Is(err, broker.ErrLinkGone) {
					t.Errorf("publish: got %v, want ErrLinkGone", err)
				}
				break
			}
		}
		if err := ended(t, links[1]); !strings.Contains(err.Error(), "write tcp") {
			t.Errorf("the link ended with %v, want the write's own end", err)
		}
	})
	waiting.Go(func() { // a call on a channel that is open
		if err := m.Pause(bounded(t)); !errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("pause: got %v, want ErrLinkGone", err)
		}
	})
	waiting.Go(func() { // a call on a channel of its own
		if _, err := links[3].OpenTasks(bounded(t), []string{"frozen"}, 1); !errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("open tasks: got %v, want ErrLinkGone", err)
		}
		if err := ended(t, links[3]); !strings.Contains(err.Error(), "no answer to a call") {
			t.Errorf("the link ended with %v", err)
		}
	})
	waiting.Go(func() { // a Close whose time is over before any other
		ctx, cancel := context.WithTimeout(t.Context(), soon/4)
		defer cancel()
		if err := links[4].Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close with a publish unanswered: got %v, want the context's error", err)
		}
		if o := outcome(t, closing); o != broker.Unknown {
			t.Errorf("the publish at the time of Close: %v, want unknown", o)
		}
	})
	waiting.Go(func() {
		if _, err := b.Join(bounded(t), broker.Worker(server())); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("joined a frozen broker: %v", err)
		}
	})
}

func TestUnknownExchangeEndsTheLink(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Worker(server()))
	r := publish(t, l, broker.Address{Exchange: "no such exchange"}, broker.Message{})
	if err := ended(t, l); err == nil || !strings.Contains(err.Error(), "no such exchange") {
		t.Errorf("ended with %v, want the broker's reason", err)
	}
	if o := outcome(t, r); o != broker.Unknown {
		t.Errorf("%v, want unknown", o)
	}
}

func TestWhatIsStoredSurvivesTheBrokersDeath(t *testing.T) {
	const mailboxes = 4
	b := open(t, Options{})
	l := join(t, b, broker.Runner("deaths"))
	owner := join(t, b, broker.Worker(server()))
	var publishers sync.WaitGroup
	var stored [mailboxes][]string
	started := make(chan struct{}, mailboxes)
	servers := make([]broker.Address, mailboxes)
	for i := range servers {
		s := server()
		servers[i] = broker.ToMailbox(s)
		if err := own(t, owner, s, 1).Close(bounded(t)); err != nil { // it exists now
			t.Fatal(err)
		}
	}
	for i, to := range servers {
		publishers.Go(func() {
			var receipts []broker.Receipt
			for n := 0; ; n++ {
				r, err := l.Publish(bounded(t), to, broker.Message{ID: fmt.Sprint(n)})
				if err != nil {
					break
				}
				if receipts = append(receipts, r); n == 500 {
					started <- struct{}{}
				}
			}
			for n, r := range receipts {
				if outcome(t, r) == broker.Stored {
					stored[i] = append(stored[i], fmt.Sprint(n))
				}
			}
		})
	}
	for range mailboxes {
		<-started
	}
	rabbit.Kill()
	publishers.Wait()
	if err := rabbit.Restart(bounded(t)); err != nil {
		t.Fatal(err)
	}
	owner = join(t, b, broker.Worker(server()))
	for i, to := range servers {
		if len(stored[i]) == 0 {
			t.Errorf("mailbox %d: nothing was stored before the kill", i)
		}
		m, err := owner.OpenMailbox(bounded(t), socketmeta.ServerID(to.Key), 65535)
		if err != nil {
			t.Fatal(err)
		}
		store(t, owner, to, "end")
		arrived := map[string]bool{}
		last := -1
		for d := range m.Deliveries() {
			if d.ID == "end" {
				break
			}
			var n int
			fmt.Sscan(d.ID, &n)
			if n <= last {
				t.Fatalf("mailbox %d: %d after %d", i, n, last)
			}
			last = n
			arrived[d.ID] = true
		}
		for _, id := range stored[i] {
			if !arrived[id] {
				t.Fatalf("mailbox %d: %s was stored and is gone", i, id)
			}
		}
		t.Logf("mailbox %d: %d stored, %d arrived", i, len(stored[i]), len(arrived))
	}
}
