package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TaskKind is the kind of the tasks that publishers take.
const TaskKind = "chaos"

// Params are the parameters of a task of TaskKind: how many events it has, every sixth of which is
// transient, and how many bytes each of them carries.
type Params struct {
	Events int64 `json:"events"`
	Bytes  int   `json:"bytes"`
}

// Publisher takes tasks of TaskKind and publishes their events. It stands for task runners by
// others: it follows docs/PROTOCOL.md section 9 and shares no code with pkg/taskrunner. What it
// hands to the broker and what is confirmed it notes in its journal before it acts upon it.
type Publisher struct {
	URLs    []string // of the broker's nodes, tried in turn
	Journal *Journal
	Rate    int       // events a second over all tasks, at most
	Slots   int       // tasks at once
	Batch   bool      // what goes to one worker in one tick shares messages
	Log     io.Writer // gets a line about each lost connection

	tasks  map[wire.TaskID]*telling
	turn   []*telling               // the same, in the order of their turns
	recent map[wire.TaskID]*telling // runs that have ended here, for their next delivery
	life   int                      // counts the connections
}

// telling is one run of a task under way.
type telling struct {
	task   *wire.Task
	params Params
	key    RunKey
	flow   *flow
	prev   []int64 // by seq: the durable event before
	after  time.Time
	tries  map[string]int // by message: the attempt of its last delivery
	holds  []hold         // its deliveries: a task whose submit was not answered is stored twice
	ended  int64          // all is stored: the length of the journal then; 0 before
}

// hold is one delivery that is to be settled, and the life that its tag belongs to.
type hold struct {
	tag  uint64
	life int
}

const (
	tick         = 10 * time.Millisecond
	runWindow    = 64   // events of a run under way
	flightWindow = 2048 // publishes without an answer
	againAfter   = 200 * time.Millisecond
	answerWithin = 30 * time.Second
	rememberRuns = 10_000 // finished tasks whose redelivery is not run again
)

// Run takes tasks until ctx ends, through any number of lost connections. The error is the journal's.
func (p *Publisher) Run(ctx context.Context) error {
	p.tasks, p.recent = map[wire.TaskID]*telling{}, map[wire.TaskID]*telling{}
	for ctx.Err() == nil {
		p.life++
		err := p.live(ctx)
		if bad, ok := errors.AsType[*journalError](err); ok {
			return bad
		}
		if ctx.Err() == nil {
			fmt.Fprintf(p.Log, "publisher: %v\n", err)
			select {
			case <-time.After(againAfter):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

type journalError struct{ error }

func (e *journalError) Unwrap() error { return e.error }

// connection is one life of the publisher's connections, one for each direction.
type connection struct {
	taking, giving *amqp091.Channel
	tasks          <-chan amqp091.Delivery
	confirms       <-chan amqp091.Confirmation
	returns        <-chan amqp091.Return
	blocked        <-chan amqp091.Blocking
	ends           [2]<-chan *amqp091.Error
	close          func()
}

// live works on one pair of connections until one of them ends.
func (p *Publisher) live(ctx context.Context) error {
	c, err := p.connect()
	if err != nil {
		return err
	}
	defer c.close()
	for _, t := range p.turn {
		t.flow.back(t.flow.round) // no answer to what was under way will come
	}
	l := &flight{publisher: p, connection: c, pending: map[uint64][]published{}, returned: map[uint64]bool{}}

	synced := make(chan int64, 1)
	syncing := make(chan struct{})
	stop := make(chan struct{})
	defer func() { close(stop); <-syncing }()
	go func() {
		defer close(syncing)
		p.sync(stop, synced)
	}()

	clock := time.NewTicker(tick)
	defer clock.Stop()
	blocked, onDisk := false, int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-c.ends[0]:
			return fmt.Errorf("the connection for tasks ended: %v", err)
		case err := <-c.ends[1]:
			return fmt.Errorf("the connection for events ended: %v", err)
		case b := <-c.blocked:
			blocked = b.Active
			l.heard = time.Now()
		case d, ok := <-c.tasks:
			if !ok {
				return errors.New("the broker ended the consumer")
			}
			if err := p.take(d); err != nil {
				return err
			}
		case confirm, ok := <-c.confirms:
			if !ok {
				return errors.New("the channel for events ended")
			}
			l.judge(confirm)
		case length, ok := <-synced:
			if !ok {
				return &journalError{errors.New("the journal could not be put on disk")}
			}
			onDisk = length
		case now := <-clock.C:
			if err := p.settle(c, onDisk); err != nil {
				return err
			}
			if blocked {
				continue
			}
			if len(l.pending) > 0 && now.Sub(l.heard) > answerWithin {
				return fmt.Errorf("no confirm within %v", answerWithin)
			}
			if err := l.publish(now); err != nil {
				return err
			}
		}
	}
}

// sync puts the journal on disk whenever it has grown, and tells how far. It closes synced after a failure.
func (p *Publisher) sync(stop <-chan struct{}, synced chan<- int64) {
	var done int64
	for {
		select {
		case <-stop:
			return
		case <-time.After(5 * tick):
		}
		if p.Journal.Length() == done {
			continue
		}
		var err error
		if done, err = p.Journal.Sync(); err != nil {
			close(synced)
			return
		}
		select {
		case synced <- done:
		case <-stop:
			return
		}
	}
}

// take begins the run of a delivered task, unless it is under way here, or has ended here, and
// nobody else can have had it since: another run's events would carry a higher attempt, and the
// client would drop ours.
func (p *Publisher) take(d amqp091.Delivery) error {
	task, err := wire.DecodeTask(d.Body)
	if err != nil {
		return fmt.Errorf("a task of kind %s: %w", TaskKind, err)
	}
	attempt := 1
	if n, ok := d.Headers["x-delivery-count"].(int64); ok {
		attempt += int(n)
	}
	if t := p.recent[task.Task]; t != nil && t.continues(d.MessageId, attempt) {
		return d.Ack(false)
	}
	holds := []hold{{d.DeliveryTag, p.life}}
	if t := p.tasks[task.Task]; t != nil {
		holds = append(slices.DeleteFunc(t.holds, func(h hold) bool { return h.life != p.life }), holds...)
		if t.continues(d.MessageId, attempt) {
			t.holds = holds
			return nil
		}
		p.turn = slices.DeleteFunc(p.turn, func(have *telling) bool { return have == t })
	}
	t := &telling{task: task, tries: map[string]int{d.MessageId: attempt}, holds: holds}
	if err := json.Unmarshal(task.Params, &t.params); err != nil || t.params.Events < 1 {
		return fmt.Errorf("task %s: params %s", task.Task, task.Params)
	}
	t.key = RunKey{task.Task, attempt, wire.NewRunID()}
	t.flow = newFlow(t.params.Events)
	t.prev = make([]int64, t.params.Events+1)
	last := int64(0)
	for seq := int64(1); seq <= t.params.Events; seq++ {
		t.prev[seq] = last
		if t.durable(seq) {
			last = seq
		}
	}
	p.tasks[task.Task] = t
	p.turn = append(p.turn, t)
	return nil
}

// continues reports whether a delivery is one more for this run, and notes it: nobody else can have had that
// copy of the task since, or whoever had it ran a lower attempt. Else the client may follow another
// run, and drop what this one tells.
func (t *telling) continues(message string, attempt int) bool {
	tries, seen := t.tries[message]
	if attempt > t.key.Attempt && !(seen && attempt <= tries+1) {
		return false
	}
	t.tries[message] = max(tries, attempt)
	return true
}

// settle acknowledges the tasks whose end lies within the part of the journal that is on disk.
func (p *Publisher) settle(c *connection, length int64) error {
	kept := p.turn[:0]
	var err error
	for _, t := range p.turn {
		if t.ended == 0 || t.ended > length || err != nil {
			kept = append(kept, t)
			continue
		}
		delete(p.tasks, t.key.Task)
		if len(p.recent) > rememberRuns {
			clear(p.recent)
		}
		p.recent[t.key.Task] = t
		for _, h := range t.holds {
			if h.life == p.life { // else it comes again, and is recent then
				err = errors.Join(err, c.taking.Ack(h.tag, false))
			}
		}
	}
	clear(p.turn[len(kept):])
	p.turn = kept
	return err
}

func (t *telling) durable(seq int64) bool { return seq%6 != 0 || seq == t.params.Events }

// event makes one event of the run.
func (t *telling) event(seq int64) (*wire.Event, error) {
	e := &wire.Event{
		Client: t.task.Client, Task: t.key.Task, Attempt: t.key.Attempt, Run: t.key.Run, Seq: seq, Prev: t.prev[seq],
		Type: wire.EventLog, Durable: t.durable(seq), Epoch: t.task.Epoch, Home: t.task.Server,
	}
	now := wire.Time{Time: time.Now()}
	var body any
	switch {
	case seq == t.params.Events:
		e.Type, e.Last = wire.EventResult, true
		body = wire.Result{Value: json.RawMessage(`{}`), LastLine: seq, Timestamp: now}
	case !e.Durable:
		e.Type = wire.EventProgress
		body = wire.Update{WorkflowID: t.key.Task, Status: wire.StatusRunning, CurrentStep: uint32(seq), Timestamp: now}
	default:
		body = wire.Log{FirstLine: seq, Lines: []string{strings.Repeat("x", t.params.Bytes)}}
	}
	var err error
	e.Body, err = wire.Body(t.task.Client, body)
	return e, err
}

// flight is what is under way on one connection.
type flight struct {
	publisher *Publisher
	*connection
	pending  map[uint64][]published // by delivery tag: the events of a message
	flying   int                    // events in pending
	returned map[uint64]bool
	heard    time.Time // when the broker answered last, or had nothing to answer
	credit   float64   // events that may be published now
	told     time.Time // when credit was given last
}

type published struct {
	t     *telling
	seq   int64
	round int
}

// publish hands over what the rate and the windows allow, each run in turn.
func (l *flight) publish(now time.Time) error {
	p := l.publisher
	if l.told.IsZero() {
		l.told = now
	}
	l.credit = min(l.credit+now.Sub(l.told).Seconds()*float64(p.Rate), float64(p.Rate)/4+1)
	l.told = now
	if len(l.pending) == 0 {
		l.heard = now
	}
	var batch []published
	for more := true; more; {
		more = false
		for _, t := range p.turn {
			if l.credit < 1 || l.flying+len(batch) >= flightWindow {
				more = false
				break
			}
			if now.Before(t.after) {
				continue
			}
			if seq, round, ok := t.flow.take(runWindow); ok {
				batch = append(batch, published{t, seq, round})
				if t.durable(seq) {
					p.Journal.Attempted(t.task.Client.String(), t.key, seq)
				}
				l.credit--
				more = true
			}
		}
	}
	if n := len(p.turn); n > 0 { // who was first is last next time
		p.turn = append(p.turn[1:], p.turn[0])
	}
	if err := p.Journal.Flush(); err != nil {
		return &journalError{err}
	}
	for _, together := range p.split(batch) {
		if err := l.send(together, now); err != nil {
			return err
		}
	}
	return nil
}

// split is the messages in which events are sent. Those to one worker keep their order.
func (p *Publisher) split(all []published) (messages [][]published) {
	last := map[socketmeta.ServerID]int{} // by worker: the message that is being filled, and
	bytes := map[socketmeta.ServerID]int{}
	for _, b := range all {
		to := b.t.task.Server
		size := 512 + 2*b.t.params.Bytes // more than it takes in a batch
		i, filling := last[to]
		if !p.Batch || !filling || len(messages[i]) == wire.MaxBatch || bytes[to]+size > wire.MaxBatchBytes {
			i, last[to], bytes[to] = len(messages), len(messages), 0
			messages = append(messages, nil)
		}
		messages[i] = append(messages[i], b)
		bytes[to] += size
	}
	return messages
}

// send publishes events to one worker: one as PROTOCOL.md section 9 says, or a batch.
func (l *flight) send(together []published, now time.Time) error {
	var events []*wire.Event
	for _, b := range together {
		e, err := b.t.event(b.seq)
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	tag := l.giving.GetNextPublishSeqNo()
	first := events[0]
	m := amqp091.Publishing{
		MessageId: strconv.FormatUint(tag, 10), CorrelationId: string(first.Task), Type: string(first.Type), AppId: "wsctl-chaos",
		ContentType: "application/json", Timestamp: now, DeliveryMode: amqp091.Transient, Headers: first.Headers(), Body: first.Body,
	}
	if len(events) > 1 {
		m.CorrelationId, m.Headers = "", nil
		m.Type, m.ContentType, m.Body = wire.BatchType, wire.BatchContent, wire.EncodeBatch(events)
	}
	if slices.ContainsFunc(events, func(e *wire.Event) bool { return e.Durable }) {
		m.DeliveryMode = amqp091.Persistent
	}
	l.pending[tag] = together
	l.flying += len(together)
	return l.giving.Publish(broker.ExchangeUtils, string(together[0].t.task.Server), true, false, m)
}

// judge takes the broker's answer to one publish. What the broker returned it said before.
func (l *flight) judge(confirm amqp091.Confirmation) {
	l.heard = time.Now()
	for more := true; more; {
		select {
		case r := <-l.returns:
			if tag, err := strconv.ParseUint(r.MessageId, 10, 64); err == nil {
				l.returned[tag] = true
			}
		default:
			more = false
		}
	}
	together := l.pending[confirm.DeliveryTag]
	delete(l.pending, confirm.DeliveryTag)
	l.flying -= len(together)
	stored := confirm.Ack && !l.returned[confirm.DeliveryTag]
	delete(l.returned, confirm.DeliveryTag)
	for _, b := range together {
		l.answered(b, stored)
	}
}

// answered takes what became of one event.
func (l *flight) answered(b published, stored bool) {
	if !stored {
		b.t.flow.back(b.round)
		b.t.after = time.Now().Add(againAfter)
		return
	}
	if !b.t.flow.keep(b.seq) {
		return
	}
	journal := l.publisher.Journal
	if b.t.durable(b.seq) {
		journal.Confirmed(b.t.task.Client.String(), b.t.key, b.seq)
	}
	if b.t.flow.done() {
		b.t.ended = journal.Length()
	}
}
