package mailbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sockets records what is sent to each connection.
type sockets struct {
	mu     sync.Mutex
	sent   map[engine.ConnRef][]string // guarded by mu: "type" or "type code"
	frames map[engine.ConnRef][][]byte // guarded by mu
}

func (s *sockets) Send(c engine.ConnRef, f *engine.Frame) error {
	var m struct {
		Type, Code string
		Seq        int64
	}
	if err := json.Unmarshal(f.Payload(), &m); err != nil {
		return err
	}
	what := m.Type
	switch {
	case m.Code != "":
		what += " " + m.Code
	case m.Seq != 0:
		what += fmt.Sprint(" ", m.Seq)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[c] = append(s.sent[c], what)
	if s.frames == nil {
		s.frames = map[engine.ConnRef][][]byte{}
	}
	s.frames[c] = append(s.frames[c], f.Payload())
	return nil
}

func (s *sockets) SendBatch(c engine.ConnRef, fs []*engine.Frame) (int, error) {
	return sendEach(s, c, fs)
}

// sendEach is what SendBatch is for a socket of a test.
func sendEach(s session.Socket, c engine.ConnRef, fs []*engine.Frame) (taken int, err error) {
	for i, f := range fs {
		if err := s.Send(c, f); err != nil {
			return i, err
		}
	}
	return len(fs), nil
}

func (s *sockets) CloseConn(c engine.ConnRef, code engine.StatusCode, _ string, _ *engine.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[c] = append(s.sent[c], fmt.Sprint("close ", int(code)))
}

// since returns what was sent to c after the first n.
func (s *sockets) since(c engine.ConnRef, n int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent[c][n:])
}

// bench is a mailbox on a broker in memory, with clients that are only connections.
type bench struct {
	*Mailbox
	t       *testing.T
	broker  *memory.Broker
	sockets *sockets
	client  socketmeta.ClientID
}

// inBubble runs a test of a mailbox whose one client is attached as connection 1.
func inBubble(t *testing.T, o Options, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		s := &sockets{sent: map[engine.ConnRef][]string{}}
		o.Server, o.Broker = "i1-w1", memory.New(memory.Options{})
		o.Sessions = session.New(session.Options{Socket: s, Server: o.Server})
		o.Renew = func(socketmeta.ClientID, socketmeta.Epoch, string) *engine.Frame {
			return engine.NewText(wire.EncodeServer(&wire.Pong{ID: "renewed"}))
		}
		b := &bench{Mailbox: New(o), t: t, broker: o.Broker.(*memory.Broker), sockets: s, client: socketmeta.NewClientID()}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		b.attach(1)
		test(b)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

// attach welcomes the client on conn and attaches it.
func (b *bench) attach(conn engine.ConnRef, positions ...wire.Position) {
	b.t.Helper()
	claim := session.Claim{Client: b.client, IssuedAt: time.Now(), Positions: positions}
	w := b.o.Sessions.Welcome(claim, time.Now())
	if err := b.sockets.Send(conn, engine.NewText(wire.EncodeServer(&wire.Pong{}))); err != nil {
		b.t.Fatal(err)
	}
	if !b.Attach(conn, w.Epoch, claim) {
		b.t.Fatalf("connection %d was not attached", conn)
	}
	synctest.Wait()
}

// publish publishes the durable events from..to of a task for the client.
func (b *bench) publish(from, to int64) {
	b.t.Helper()
	link, err := b.broker.Join(b.t.Context(), broker.Runner("r1"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer link.Close(context.Background())
	for seq := from; seq <= to; seq++ {
		e := wire.Event{Client: b.client, Task: "t", Attempt: 1, Run: run, Seq: seq, Prev: seq - 1, Type: wire.EventStep, Durable: true, Home: "i1-w1"}
		m := broker.Message{Type: string(e.Type), Correlation: "t", Headers: e.Headers(), Body: []byte("{}")}
		if _, err := link.Publish(b.t.Context(), broker.ToMailbox("i1-w1"), m); err != nil {
			b.t.Fatal(err)
		}
	}
	synctest.Wait()
}

const run wire.RunID = "01900000-0000-7000-8000-000000000001"

func at(next int64) wire.Position {
	return wire.Position{Task: "t", Attempt: 1, Run: run, Next: next}
}

// settle waits until the broker has heard what is done with.
func settle() {
	time.Sleep(settleWithin)
	synctest.Wait()
}

func (b *bench) left() int {
	settle()
	ready, unsettled := b.broker.Depth(broker.MailboxQueue("i1-w1"))
	return ready + unsettled
}

func (b *bench) submit(task wire.TaskID) {
	b.Submit(b.o.Sessions.Find(1), &wire.Submit{ID: "q", Task: task, Kind: "k"})
	synctest.Wait()
}

func TestAnEventLeavesTheBrokerOnlyAfterTheAcknowledgement(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.publish(1, 3)
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"event 1", "event 2", "event 3"}) || b.left() != 3 {
			t.Fatalf("sent %v with %d left in the broker, want three events and all of them left", got, b.left())
		}
		b.Ack(b.o.Sessions.Find(1), []wire.Position{at(3)})
		synctest.Wait()
		if b.left() != 1 {
			t.Errorf("%d left in the broker, want 1", b.left())
		}
	})
}

func TestALostLinkSendsAgainWhatWasNotAcknowledgedAndNothingElse(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.publish(1, 3)
		b.Ack(b.o.Sessions.Find(1), []wire.Position{at(2)})
		b.broker.CutLinks() // perhaps before the acknowledgement was settled
		time.Sleep(10 * time.Second)
		if got := b.sockets.since(1, 4); !slices.Equal(got, []string{"event 2", "event 3"}) {
			t.Errorf("after the link was lost: %v, want 2 and 3 again", got)
		}
		b.Ack(b.o.Sessions.Find(1), []wire.Position{at(4)})
		synctest.Wait()
		if b.left() != 0 {
			t.Errorf("%d left in the broker", b.left())
		}
	})
}

func TestAtTheCapOfBytesDeliveriesStopAndGoOnAtThreeQuarters(t *testing.T) {
	inBubble(t, Options{MaxHeld: 30, MaxHeldBytes: 40}, func(b *bench) { // 20 bodies of two bytes
		b.publish(1, 50)
		if err := b.Ready(); err == nil || b.held(t) < 20 || b.held(t) > 30 {
			t.Errorf("ready: %v with %d held; want it unready with 20 to 30", err, b.held(t))
		}
		for next := int64(5); next <= 51; next += 5 {
			b.Ack(b.o.Sessions.Find(1), []wire.Position{at(next)})
			settle()
		}
		b.Ack(b.o.Sessions.Find(1), []wire.Position{at(51)})
		settle()
		if err := b.Ready(); err != nil || b.left() != 0 {
			t.Errorf("ready: %v with %d left; want it ready with none", err, b.left())
		}
	})
}

// held returns how many events the broker has delivered and not got settled.
func (b *bench) held(t *testing.T) int {
	t.Helper()
	_, unsettled := b.broker.Depth(broker.MailboxQueue("i1-w1"))
	return unsettled
}

func TestProgressForAStrangerMakesNoSession(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		for range 100 {
			e := wire.Event{Client: socketmeta.NewClientID(), Task: "t", Attempt: 1, Run: run, Seq: 1, Type: wire.EventProgress}
			b.o.Sessions.Deliver(&e, session.Ref{}, false, time.Now())
		}
		if known, _ := b.o.Sessions.Count(); known != 1 {
			t.Errorf("%d sessions, want the one client's", known)
		}
	})
}

func TestASubmitIsAnsweredByWhatTheBrokerSays(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		link, err := b.broker.Join(t.Context(), broker.Runner("r1"))
		if err != nil {
			t.Fatal(err)
		}
		defer link.Close(context.Background())
		b.submit("unoffered")
		if _, err := link.OpenTasks(t.Context(), []string{"k"}, 1); err != nil {
			t.Fatal(err)
		}
		for _, fate := range []memory.Fate{memory.Deliver, memory.Refuse, memory.Lose, memory.Mislead} {
			b.broker.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Fate: fate} })
			b.submit(wire.TaskID(fmt.Sprint("t", fate)))
		}
		time.Sleep(15 * time.Second) // for those that no other link brings an answer to
		want := []string{"error unknown_kind", "accepted", "error overloaded", "error unavailable", "error unavailable"}
		if got := b.sockets.since(1, 1); !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
	})
}

func TestASubmitThatTheBrokerDoesNotAnswerIsRefusedInTimeAndMayBeRepeated(t *testing.T) {
	inBubble(t, Options{SubmitWithin: 5 * time.Second}, func(b *bench) {
		link, err := b.broker.Join(t.Context(), broker.Runner("r1"))
		if err != nil {
			t.Fatal(err)
		}
		defer link.Close(context.Background())
		if _, err := link.OpenTasks(t.Context(), []string{"k"}, 10); err != nil {
			t.Fatal(err)
		}
		b.broker.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Fate: memory.Swallow} })
		b.submit("t1")
		b.submit("t1") // while it is on its way: no second answer
		time.Sleep(5 * time.Second)
		synctest.Wait()
		b.broker.OnPublish(nil)
		b.broker.CutLinks()
		time.Sleep(10 * time.Second)
		b.submit("t1")
		b.submit("t1") // accepted before: the same answer, and no second task
		want := []string{"error unavailable", "accepted", "accepted"}
		if got := b.sockets.since(1, 1); !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		if ready, unsettled := b.broker.Depth(broker.TasksQueue("k", wire.Normal)); ready+unsettled != 1 {
			t.Errorf("%d tasks, want 1", ready+unsettled)
		}
	})
}

func TestASubmitOfHighPriorityGoesToItsOwnQueue(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		link, err := b.broker.Join(t.Context(), broker.Runner("r1"))
		if err != nil {
			t.Fatal(err)
		}
		defer link.Close(context.Background())
		tasks, err := link.OpenTasks(t.Context(), []string{"k"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // the first is taken, the others wait
			b.submit(wire.TaskID(fmt.Sprint("normal", i)))
		}
		<-tasks.Deliveries()
		s := b.o.Sessions.Find(1)
		for _, p := range []wire.Priority{wire.High, wire.High, wire.Normal, ""} {
			b.Submit(s, &wire.Submit{ID: "q", Task: "t", Kind: "k", Priority: p})
			synctest.Wait()
		}
		b.Submit(s, &wire.Submit{ID: "q", Task: "u", Kind: "k", Priority: wire.Normal})
		synctest.Wait()
		b.Submit(s, &wire.Submit{ID: "q", Task: "u", Kind: "k"}) // the same
		synctest.Wait()
		want := []string{"accepted", "accepted", "accepted", "accepted", "accepted", "error conflict", "error conflict", "accepted", "accepted"}
		if got := b.sockets.since(1, 1); !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		high := b.broker.Messages(broker.TasksQueue("k", wire.High))
		if len(high) != 1 {
			t.Fatalf("%d tasks of high priority, want 1", len(high))
		}
		if task, err := wire.DecodeTask(high[0].Body); err != nil || task.Priority != wire.High || task.Task != "t" {
			t.Errorf("the task is %+v, %v", task, err)
		}
	})
}

// The client came from another worker, and its session knows of the task by the client's word alone.
func TestACancelOfACertainKindSaysWhatARunnerNeedsToEndTheTask(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		link, err := b.broker.Join(t.Context(), broker.Runner("r1"))
		if err != nil {
			t.Fatal(err)
		}
		defer link.Close(context.Background())
		ledger, err := link.OpenLedger(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		b.attach(2, wire.Position{Task: "t"}, wire.Position{Task: "u"})
		s := b.o.Sessions.Find(2)
		for _, m := range []wire.Cancel{{ID: "q", Task: "t", Kind: "k"}, {ID: "q", Task: "u"}, {ID: "q", Task: "nobodys", Kind: "k"}} {
			b.Cancel(s, &m)
			synctest.Wait()
		}
		if got, want := b.sockets.since(2, 1), []string{"canceling", "canceling", "error unknown_task"}; !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		for _, id := range []wire.TaskID{"t", "u"} {
			m, err := ledger.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r, err := wire.DecodeLedger(m.Body)
			if err != nil || r.Op != wire.LedgerCancel || r.Task != id || r.Client != b.client.String() {
				t.Fatalf("the record is %+v, %v", r, err)
			}
			if id == "u" {
				if r.Body != nil {
					t.Errorf("of a kind that was not named: %s", r.Body)
				}
				continue
			}
			task, err := wire.DecodeTask(r.Body)
			want := socketmeta.Meta{Client: b.client, Server: "i1-w1", Epoch: task.Epoch}
			if err != nil || task.Meta != want || task.Epoch == 0 || task.Kind != "k" || !task.Submitted.Equal(time.Now()) {
				t.Errorf("the task is %+v, %v", task, err)
			}
		}
	})
}

func TestSubmitsBeyondTheBoundAreRefused(t *testing.T) {
	inBubble(t, Options{MaxSubmits: 2}, func(b *bench) {
		b.broker.Block(true)
		for i := range 5 {
			b.submit(wire.TaskID(fmt.Sprint("t", i)))
		}
		// One is being published, two wait, the others have no room.
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"error overloaded", "error overloaded"}) {
			t.Errorf("answers %v, want two refusals", got)
		}
		b.broker.Block(false)
		synctest.Wait()
	})
}

func TestASubmitThatMissedItsLinkIsAnsweredWhileTheBrokerIsAway(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.broker.Down(true)
		synctest.Wait()
		// It was taken while the mailbox was ready, and the link ended before it was published.
		s := b.o.Sessions.Find(1)
		s.Submit(&wire.Submit{ID: "q", Task: "t", Kind: "k"}, nil)
		b.submits <- submission{session: s, task: wire.Task{Task: "t", Kind: "k"}, by: time.Now().Add(10 * time.Second)}
		time.Sleep(5 * time.Second)
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"error unavailable"}) {
			t.Errorf("answers %v, want one refusal", got)
		}
	})
}

func TestASubmitWhoseLinkTookTheAnswerWithItIsPublishedAgain(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		link, err := b.broker.Join(b.t.Context(), broker.Runner("r1"))
		if err != nil {
			b.t.Fatal(err)
		}
		if _, err := link.OpenTasks(b.t.Context(), []string{"k"}, 1); err != nil {
			b.t.Fatal(err)
		}
		b.broker.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To == broker.ToTasks("k", wire.Normal) {
				return memory.Verdict{Fate: memory.Hang}
			}
			return memory.Verdict{}
		})
		b.submit("t1")
		b.broker.OnPublish(nil)
		b.broker.Cut(broker.Worker("i1-w1"))
		time.Sleep(5 * time.Second)
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"accepted"}) {
			b.t.Errorf("answers %v, want it accepted", got)
		}
		b.broker.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Fate: memory.Swallow} })
		b.submit("t2")
		b.broker.Down(true)
		time.Sleep(15 * time.Second)
		if got := b.sockets.since(1, 2); !slices.Equal(got, []string{"error unavailable"}) {
			b.t.Errorf("answers %v, want a refusal once the time is over", got)
		}
		if err := link.Close(b.t.Context()); err != nil {
			b.t.Error(err)
		}
	})
}

func TestClientsAreToldOnceWhenTheBrokerIsAwayForLong(t *testing.T) {
	inBubble(t, Options{BrokerGrace: 30 * time.Second}, func(b *bench) {
		b.broker.Down(true)
		time.Sleep(29 * time.Second)
		if got := b.sockets.since(1, 1); len(got) != 0 {
			t.Errorf("within the grace: %v", got)
		}
		time.Sleep(time.Minute)
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"error unavailable"}) {
			t.Errorf("after the grace: %v, want one word", got)
		}
		b.broker.Down(false)
		time.Sleep(10 * time.Second)
		if err := b.Ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestAClientThatAcknowledgesNothingIsClosed(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		time.Sleep(2 * time.Minute) // nothing to acknowledge: no reason to close
		b.publish(1, 1)
		time.Sleep(59 * time.Second)
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"event 1"}) {
			t.Fatalf("within a minute: %v", got)
		}
		time.Sleep(5 * time.Second)
		if got := b.sockets.since(1, 2); len(got) == 0 || got[0] != "close 4208" {
			t.Errorf("after a minute: %v, want close 4208", got)
		}
	})
}

func TestATokenIsRenewedEveryHalfWindow(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		time.Sleep(10*time.Minute + 10*time.Second)
		if got := b.sockets.since(1, 1); len(got) != 2 {
			t.Errorf("in a window of 10 min: %v, want two renewals", got)
		}
	})
}

func TestWhatNobodyComesForIsGivenUpAfterTheWindowAndNamedByAGap(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.Detach(1)
		b.publish(1, 3)
		time.Sleep(9 * time.Minute)
		if b.left() != 3 || len(b.broker.Messages(broker.QueueDeadEvents)) != 0 {
			t.Fatalf("within the window: %d left and %d dead, want 3 and none", b.left(), len(b.broker.Messages(broker.QueueDeadEvents)))
		}
		time.Sleep(2 * time.Minute)
		dead := b.broker.Messages(broker.QueueDeadEvents)
		if len(dead) != 3 || dead[0].Headers["reason"] != "expired" || b.left() != 1 {
			t.Fatalf("after the window: %d dead (%v), %d left; want 3 expired and their gap left", len(dead), dead, b.left())
		}
		b.attach(2, at(1))
		if got := b.sockets.since(2, 1); !slices.Equal(got, []string{"event 3"}) {
			t.Errorf("the client was sent %v, want the gap in the place of event 3", got)
		}
		b.Ack(b.o.Sessions.Find(2), []wire.Position{at(4)})
		b.Detach(2)
		time.Sleep(25 * time.Minute)
		if known, _ := b.o.Sessions.Count(); known != 0 || b.left() != 0 {
			t.Errorf("%d known with %d left, want nothing", known, b.left())
		}
	})
}
