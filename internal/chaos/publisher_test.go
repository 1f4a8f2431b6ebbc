package chaos

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestAPublisherThatIsCutOffStoresAllInOrder runs one task on a real RabbitMQ, which loses the
// publisher's connections up to four times meanwhile, and has no mailbox at first: everything is returned.
// The task is stored twice.
func TestAPublisherThatIsCutOffStoresAllInOrder(t *testing.T) {
	for _, batch := range []bool{false, true} {
		t.Run(fmt.Sprintf("batches %t", batch), func(t *testing.T) { cutPublisher(t, batch) })
	}
}

func cutPublisher(t *testing.T, batch bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	rabbit, err := rig.StartRabbitMQ(ctx, rig.RabbitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rabbit.Stop(); err != nil {
			t.Error(err)
		}
	}()
	conn, err := amqp091.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	const events = 300
	task := wire.Task{Task: "t1", Kind: TaskKind, Params: []byte(`{"events": 300, "bytes": 10}`)}
	task.Client, task.Server = socketmeta.NewClientID(), "i1-w1"

	u, err := url.Parse(rabbit.URLFor("runner"))
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := rig.StartProxy(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Stop()
	u.Host = proxy.Addr
	path := filepath.Join(t.TempDir(), "journal")
	journal, err := CreateJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	var log strings.Builder // read after the end
	go func() {
		p := Publisher{URLs: []string{u.String()}, Journal: journal, Rate: 200, Slots: 10, Batch: batch, Log: &log}
		ended <- p.Run(running)
	}()

	submit(ctx, t, ch, &task)
	awaitDepth(ctx, t, rabbit, broker.TasksQueue(TaskKind, wire.Normal), func(q rig.Queue) bool { return q.Unacked == 1 })
	submit(ctx, t, ch, &task) // by a worker that did not hear the broker's answer
	awaitDepth(ctx, t, rabbit, broker.TasksQueue(TaskKind, wire.Normal), func(q rig.Queue) bool { return q.Unacked == 2 })
	mailbox := broker.MailboxQueue(task.Server)
	if _, err := ch.QueueDeclare(mailbox, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(mailbox, string(task.Server), broker.ExchangeUtils, false, nil); err != nil {
		t.Fatal(err)
	}
	each := 40
	if batch {
		each = 15 // messages, of two events and more
	}
	for n := range 4 {
		awaitDepth(ctx, t, rabbit, mailbox, func(q rig.Queue) bool { return q.Ready >= (n+1)*each })
		proxy.Cut()
		if err := proxy.Heal(); err != nil {
			t.Fatal(err)
		}
	}
	awaitDepth(ctx, t, rabbit, broker.TasksQueue(TaskKind, wire.Normal), func(q rig.Queue) bool { return q.Ready+q.Unacked == 0 }) // it is settled
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := journal.Close(); err != nil {
		t.Error(err)
	}
	if log.Len() == 0 { // a cut may find it without a connection, but not every one
		t.Error("the publisher speaks of no lost connection")
	}

	l := NewLedger() // reads the mailbox as a client would that gets all, and drops what it has
	l.Add(Entry{Op: OpMet, Who: "c1", Client: task.Client.String()})
	l.Add(Entry{Op: OpAsked, Who: "c1", Run: RunKey{Task: task.Task}, Text: TaskKind})
	var had int64
	batches := 0
	for {
		m, ok, err := ch.Get(mailbox, true)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		together, err := wire.DecodeEvents(m.Type, m.CorrelationId, m.Headers, m.Body)
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == wire.BatchType {
			batches++
		}
		durable := slices.ContainsFunc(together, func(e wire.Event) bool { return e.Durable })
		for _, e := range together {
			if durable != (m.DeliveryMode == amqp091.Persistent) || e.Client != task.Client {
				t.Errorf("event %d: durable %t, delivery mode %d, client %s", e.Seq, e.Durable, m.DeliveryMode, e.Client)
			}
			if e.Durable && e.Seq > had {
				had = e.Seq
				l.Add(Entry{Op: OpGot, Time: time.Now(), Who: "c1", Run: RunKey{e.Task, e.Attempt, e.Run}, Seq: e.Seq, Prev: e.Prev, Last: e.Last})
			}
		}
	}
	if batch != (batches > 0) {
		t.Errorf("%d batches came", batches)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := l.Read(file); err != nil {
		t.Fatal(err)
	}
	r := l.Report()
	if err := r.Check(); err != nil {
		t.Error(err)
	}
	if want := events - events/6 + 1; r.Confirmed != want || r.Attempted != want || r.Delivered != want {
		t.Errorf("%d attempted, %d confirmed, %d delivered, want %d durable ones of %d", r.Attempted, r.Confirmed, r.Delivered, want, events)
	}
}

// TestAPublisherKnowsItsOwnTasks: a task that comes again is the same run if nobody else can have
// had it meanwhile, and another run with its attempt otherwise.
func TestAPublisherKnowsItsOwnTasks(t *testing.T) {
	task := wire.Task{Task: "t1", Kind: TaskKind, Params: []byte(`{"events": 3, "bytes": 1}`)}
	task.Client, task.Server = socketmeta.NewClientID(), "i1-w1"
	body, err := wire.EncodeTask(&task)
	if err != nil {
		t.Fatal(err)
	}
	p := Publisher{tasks: map[wire.TaskID]*telling{}, recent: map[wire.TaskID]*telling{}}
	acks := &acknowledged{}
	take := func(tag uint64, count int64) {
		t.Helper()
		p.life++
		d := amqp091.Delivery{Acknowledger: acks, DeliveryTag: tag, Body: body, Headers: amqp091.Table{"x-delivery-count": count}}
		if err := p.take(d); err != nil {
			t.Fatal(err)
		}
	}
	check := func(attempt int, tag uint64, acknowledged int) {
		t.Helper()
		if r := p.tasks["t1"]; len(p.turn) != 1 || r != p.turn[0] || r.key.Attempt != attempt || !slices.Equal(r.holds, []hold{{tag, p.life}}) || acks.count != acknowledged {
			t.Errorf("%d runs, the task's %+v, %d acknowledged; want attempt %d, tag %d, %d acknowledged", len(p.turn), r, acks.count, attempt, tag, acknowledged)
		}
	}
	take(7, 0)
	check(1, 7, 0)
	take(1, 1) // after a lost connection
	check(1, 1, 0)
	take(2, 3) // somebody else had it
	check(4, 2, 0)
	p.turn[0].ended = 1
	if err := p.settle(nil, 0); err != nil || len(p.turn) != 1 {
		t.Errorf("settled before the journal is on disk: %v", err)
	}
	p.life++ // its delivery belongs to an earlier connection: it comes again
	if err := p.settle(nil, 1); err != nil || len(p.turn) != 0 {
		t.Errorf("not settled: %v", err)
	}
	take(3, 4)
	if len(p.turn) != 0 || acks.count != 1 {
		t.Errorf("%d runs and %d acknowledged, want a task that has ended to be acknowledged", len(p.turn), acks.count)
	}
	take(4, 6) // somebody else had it, and did not end
	check(7, 4, 1)

	copied := func(message string, count int64) {
		t.Helper()
		d := amqp091.Delivery{Acknowledger: acks, DeliveryTag: 9, MessageId: message, Body: body, Headers: amqp091.Table{"x-delivery-count": count}}
		if err := p.take(d); err != nil {
			t.Fatal(err)
		}
	}
	if copied("b", 6); p.turn[0].key.Attempt != 7 || len(p.turn[0].holds) != 2 {
		t.Errorf("another copy, which nobody can have run in a higher attempt: %+v", p.turn[0])
	}
	if copied("c", 7); p.turn[0].key.Attempt != 8 || len(p.turn[0].holds) != 3 || len(p.turn) != 1 {
		t.Errorf("another copy, whose run may be the one that the client follows: %+v", p.turn[0])
	}
}

type acknowledged struct{ count int }

func (a *acknowledged) Ack(uint64, bool) error        { a.count++; return nil }
func (a *acknowledged) Nack(uint64, bool, bool) error { panic("never") }
func (a *acknowledged) Reject(uint64, bool) error     { panic("never") }

// submit publishes the task once the publisher has made its queue.
func submit(ctx context.Context, t *testing.T, ch *amqp091.Channel, task *wire.Task) {
	t.Helper()
	body, err := wire.EncodeTask(task)
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	returns := ch.NotifyReturn(make(chan amqp091.Return, 1))
	for {
		confirm, err := ch.PublishWithDeferredConfirm(broker.ExchangeTasks, task.Kind, true, false, amqp091.Publishing{Body: body, DeliveryMode: amqp091.Persistent})
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
			t.Fatalf("the task was not stored: %v", err)
		}
		select {
		case <-returns: // nobody offers the kind yet
			wait(ctx, 50*time.Millisecond)
		default:
			return
		}
	}
}

// awaitDepth waits until a queue holds what is wanted.
func awaitDepth(ctx context.Context, t *testing.T, r *rig.RabbitMQ, queue string, enough func(rig.Queue) bool) {
	t.Helper()
	for {
		q, err := r.QueueDepth(ctx, queue)
		if err == nil && enough(q) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s holds %+v, %v", queue, q, err)
		}
		wait(ctx, 20*time.Millisecond)
	}
}
