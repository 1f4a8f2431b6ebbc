package amqp

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// taker takes tasks of several kinds into a number of slots that they share. Quorum queues know
// no prefetch over several consumers, and a task held beyond the slots would wait for hours while
// another runner is idle. So as long as there are tasks they are fetched one by one (basic.get),
// those of high priority first, and of each priority from each kind in turn; that costs a question
// for each empty queue before the one that has something. Only when all are empty do consumers wait on all of them, each
// with a prefetch of one, until something comes. If then tasks of several kinds come at the same
// moment and exceed the slots, the rest goes back: that is the only time that an attempt is
// counted which nobody saw.
type taker struct {
	*consumer
	turns  []turn // high priority first
	slots  int
	pauses chan pause    // unbuffered: taken by run
	freed  chan struct{} // cap 1: a slot was freed

	count int // run's own: of AMQP consumers so far; a tag is never used again

	mu   sync.Mutex
	held map[uint64]bool // guarded by mu: the tags in the slots
}

// turn is the queues of one priority.
type turn struct {
	queues []string
	next   int // run's own: the queue to ask first
}

// pause asks run to pause or to go on.
type pause struct {
	on   bool
	done chan<- struct{} // closed once it is so
}

var _ broker.Consumer = (*taker)(nil)

// OpenTasks looks at ctx before it begins. Each of its steps is bounded by the call timeout.
func (l *link) OpenTasks(ctx context.Context, kinds []string, slots int) (_ broker.Consumer, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open tasks: %w", l.failed(err))
		}
	}()
	if len(kinds) == 0 || slots < 1 || slots > maxPrefetch {
		return nil, fmt.Errorf("%d kinds and %d slots: there must be at least one kind, and 1 to %d slots", len(kinds), slots, maxPrefetch)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t := newTaker(slots)
	kinds = slices.Compact(slices.Sorted(slices.Values(kinds)))
	for _, p := range []wire.Priority{wire.High, wire.Normal} {
		var queues []string
		for _, kind := range kinds {
			queue := broker.TasksQueue(kind, p)
			if _, err := l.ensureQueue(queue, new(bool), taskArgs(), broker.ExchangeTasks, broker.ToTasks(kind, p).Key); err != nil {
				return nil, err
			}
			queues = append(queues, queue)
		}
		t.turns = append(t.turns, turn{queues: queues})
	}
	if err := t.open(l, "tasks"); err != nil {
		return nil, err
	}
	if err := t.start(t.run, func() {}); err != nil {
		return nil, err
	}
	return t, nil
}

func newTaker(slots int) *taker {
	return &taker{slots: slots, pauses: make(chan pause), freed: make(chan struct{}, 1), held: make(map[uint64]bool)}
}

// open opens the taker's channel. Nothing runs on it before start.
func (t *taker) open(l *link, what string) (err error) {
	t.consumer, err = l.openConsumer(what, t.slots, func(ch *amqp091.Channel) error { return ch.Qos(1, 0, false) })
	return err
}

// Waiting looks at ctx before it begins.
func (l *link) Waiting(ctx context.Context, kind string, p wire.Priority) (n int, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	queues := []string{broker.TasksQueue(kind, wire.High)}
	if p != wire.High {
		queues = append(queues, broker.TasksQueue(kind, wire.Normal))
	}
	err = l.consuming.try(func(ch *amqp091.Channel) error {
		for _, queue := range queues {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			if err != nil {
				return err
			}
			n += q.Messages
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("count the tasks of kind %s: %w", kind, err)
	}
	return n, nil
}

// run takes tasks while there are free slots. All calls on the channel that wait are made here.
func (t *taker) run() {
	var paused bool
	set := func(p pause) {
		paused = p.on
		close(p.done)
	}
	for {
		var err error
		took := false
		if !paused && t.free() > 0 {
			if took, err = t.fetch(); err == nil && !took {
				err = t.wait(set)
				took = true
			}
		}
		if err != nil { // the channel or the connection is gone
			t.link.end(fmt.Errorf("take tasks: %w", err))
			<-t.stop
			return
		}
		if took { // look for other business only
			select {
			case <-t.stop:
				return
			case p := <-t.pauses:
				set(p)
			default:
			}
			continue
		}
		select {
		case <-t.stop:
			return
		case p := <-t.pauses:
			set(p)
		case <-t.freed:
		}
	}
}

// fetch takes one task, of the kind whose turn it is among those of the highest priority; false if
// there is none at all.
func (t *taker) fetch() (bool, error) {
	for i := range t.turns {
		c := &t.turns[i]
		for range c.queues {
			queue := c.queues[c.next]
			c.next = (c.next + 1) % len(c.queues)
			var d amqp091.Delivery
			var ok bool
			err := t.link.consuming.watched(func() (err error) {
				d, ok, err = t.ch.Get(queue, false)
				return err
			})
			if err != nil {
				return false, err
			}
			if ok {
				t.take(d)
				return true, nil
			}
		}
	}
	return false, nil
}

// wait waits on all queues until a task comes and takes it, or until there is other business.
func (t *taker) wait(set func(pause)) error {
	arrivals := make(chan arrival, len(t.turns)*len(t.turns[0].queues)) // the prefetch is one each
	var arriving sync.WaitGroup
	stop := func(err error) error {
		t.closeChannel() // ends the arrivals too
		arriving.Wait()
		return err
	}
	var tags []string
	for i, c := range t.turns {
		for _, queue := range c.queues {
			t.count++
			tag := strconv.Itoa(t.count)
			err := t.link.consuming.watched(func() error {
				in, err := t.ch.Consume(queue, tag, false, false, false, false, nil)
				if err == nil {
					arriving.Go(func() {
						for d := range in {
							arrivals <- arrival{d, i}
						}
					})
				}
				return err
			})
			if err != nil {
				return stop(err)
			}
			tags = append(tags, tag)
		}
	}
	var other pause
	var came []arrival
	select {
	case a := <-arrivals:
		came = append(came, a)
	case other = <-t.pauses:
	case <-t.stop:
	}
	for _, tag := range tags {
		if err := t.link.consuming.watched(func() error { return t.ch.Cancel(tag, false) }); err != nil {
			return stop(err)
		}
	}
	arriving.Wait()
	close(arrivals)
	// Given out only now: a task that is requeued while its consumer is being cancelled may be sent
	// there again, come too late and go back, which counts as an attempt.
	for a := range arrivals {
		came = append(came, a)
	}
	slices.SortStableFunc(came, func(a, b arrival) int { return cmp.Compare(a.turn, b.turn) })
	for _, a := range came {
		if t.free() > 0 {
			t.take(a.Delivery)
		} else if err := t.ch.Nack(a.DeliveryTag, false, true); err != nil {
			return err
		}
	}
	if other.done != nil {
		set(other)
	}
	return nil
}

// arrival is a delivery from a queue of that turn.
type arrival struct {
	amqp091.Delivery
	turn int
}

// take puts a task into a free slot.
func (t *taker) take(d amqp091.Delivery) {
	n := attempt(d)
	task := decode(d)
	task.Attempt = n
	t.mu.Lock()
	t.held[d.DeliveryTag] = true
	t.mu.Unlock()
	t.out <- task // it has room for every slot
}

// attempt counts the deliveries of a task, this one included; 0 if the broker did not count.
func attempt(d amqp091.Delivery) int {
	n, counted := value(d.Headers[headerDeliveryCount]).(int64)
	if !counted && d.Redelivered {
		return 0
	}
	return int(n) + 1
}

func (t *taker) free() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.slots - len(t.held)
}

func (t *taker) Ack(tags ...uint64) error {
	for _, tag := range tags {
		if err := t.empty(tag, func() error { return t.ch.Ack(tag, false) }); err != nil {
			return err
		}
	}
	return nil
}

func (t *taker) Requeue(tag uint64) error {
	return t.empty(tag, func() error { return t.ch.Nack(tag, false, true) })
}

// empty settles the task in a slot and frees it.
func (t *taker) empty(tag uint64, answer func() error) error {
	t.mu.Lock()
	held := t.held[tag]
	delete(t.held, tag)
	t.mu.Unlock()
	err := t.settle(func() error {
		if !held {
			return nil // it would be an exception, which ends the link
		}
		return answer()
	})
	switch {
	case err != nil:
		return err
	case !held:
		return fmt.Errorf("tasks: tag %d is not held, or was settled before", tag)
	}
	select {
	case t.freed <- struct{}{}:
	default:
	}
	return nil
}

func (t *taker) Pause(ctx context.Context) error  { return t.pause(ctx, true) }
func (t *taker) Resume(ctx context.Context) error { return t.pause(ctx, false) }

func (t *taker) pause(ctx context.Context, on bool) error {
	done := make(chan struct{})
	select {
	case t.pauses <- pause{on, done}:
	case <-t.stop:
		return t.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-t.stop:
		return t.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
