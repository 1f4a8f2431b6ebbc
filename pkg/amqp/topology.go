package amqp

import (
	"errors"
	"fmt"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/broker"
)

// exchanges are declared in this order: an alternate exchange comes before who names it.
var exchanges = []struct {
	name, kind string
	internal   bool
	args       amqp091.Table
}{
	{broker.ExchangeUnrouted, amqp091.ExchangeFanout, true, nil},
	{broker.ExchangeUtils, amqp091.ExchangeDirect, false, amqp091.Table{"alternate-exchange": broker.ExchangeUnrouted}},
	{broker.ExchangeControl, amqp091.ExchangeDirect, false, nil},
	{broker.ExchangeAnnounce, amqp091.ExchangeFanout, false, nil},
	{broker.ExchangeTasks, amqp091.ExchangeDirect, false, nil},
	{broker.ExchangeLedger, amqp091.ExchangeFanout, false, nil},
	{broker.ExchangeHold, amqp091.ExchangeDirect, false, nil},
	{broker.ExchangeDead, amqp091.ExchangeDirect, false, nil},
	{broker.ExchangeChannels, amqp091.ExchangeTopic, false, nil},
	{broker.ExchangeNamed, amqp091.ExchangeDirect, true, nil},
}

// declareTopology makes sure that what all processes share exists. Who may not create things
// finds them made: the exchanges and what binds two of them by deploy/rabbitmq, the queues by a worker.
func (l *link) declareTopology() error {
	restricted := false
	for _, e := range exchanges {
		declare := func(ch *amqp091.Channel) error {
			return ch.ExchangeDeclare(e.name, e.kind, true, false, e.internal, false, e.args)
		}
		exists := func(ch *amqp091.Channel) error {
			return ch.ExchangeDeclarePassive(e.name, e.kind, true, false, e.internal, false, nil)
		}
		_, err := l.ensure("exchange "+e.name, &restricted, declare, exists)
		if restricted && isCode(err, amqp091.NotFound) {
			return fmt.Errorf("exchange %s does not exist, and this user may not create it: import deploy/rabbitmq/definitions.json (%w)", e.name, err)
		} else if err != nil {
			return err
		}
	}

	if !restricted {
		err := l.consuming.try(func(ch *amqp091.Channel) error {
			return ch.ExchangeBind(broker.ExchangeNamed, "#", broker.ExchangeChannels, false, nil)
		})
		if err != nil {
			return fmt.Errorf("bind exchange %s to exchange %s: %w", broker.ExchangeNamed, broker.ExchangeChannels, err)
		}
	}

	restricted = false
	own := amqp091.Table{"x-queue-type": l.o.MailboxType}
	for _, q := range []struct {
		name, exchange, key string
		args                amqp091.Table
	}{
		{broker.QueueParked, broker.ExchangeUnrouted, "", l.mailboxArgs()},
		{broker.QueueDeadEvents, broker.ExchangeDead, broker.ToDeadEvents().Key, own},
		{broker.QueueDeadTasks, broker.ExchangeDead, broker.ToDeadTasks().Key, own},
		{broker.QueueKeptTasks, broker.ExchangeDead, broker.ToKeptTasks().Key, own},
	} {
		_, err := l.ensureQueue(q.name, &restricted, q.args, q.exchange, q.key)
		if restricted && isCode(err, amqp091.NotFound) {
			// Nothing is lost by it: what would go there is Returned to its publisher.
			l.log.Warn("a shared queue does not exist yet, and this user may not create it: a worker will", zap.String("queue", q.name))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// mailboxArgs are the arguments of a mailbox queue and of its overflow. What the queue dead-letters
// says so by key. A single active consumer keeps the order of a quorum queue: the next one gets
// nothing before the queue has back what the last one held.
func (l *link) mailboxArgs() amqp091.Table {
	args := amqp091.Table{
		"x-queue-type":              l.o.MailboxType,
		"x-dead-letter-exchange":    broker.ExchangeDead,
		"x-dead-letter-routing-key": broker.ToDeadEvents().Key,
	}
	if l.o.MailboxType == Quorum {
		args["x-single-active-consumer"] = true
	}
	return args
}

// taskArgs are the arguments of a task queue.
func taskArgs() amqp091.Table {
	return amqp091.Table{
		"x-queue-type":              amqp091.QueueTypeQuorum,
		"x-dead-letter-exchange":    broker.ExchangeDead,
		"x-dead-letter-routing-key": broker.ToDeadTasks().Key,
	}
}

// ensureQueue makes sure that a durable queue exists and is bound, and reports whether it is as
// declared here. See ensure.
func (l *link) ensureQueue(name string, restricted *bool, args amqp091.Table, exchange, key string) (asDeclared bool, err error) {
	asDeclared, err = l.declareQueue(name, restricted, args)
	if err != nil || *restricted {
		return false, err
	}
	return asDeclared, l.bind(name, exchange, key)
}

// declareQueue makes sure that a durable queue exists. See ensure.
func (l *link) declareQueue(name string, restricted *bool, args amqp091.Table) (asDeclared bool, err error) {
	declare := func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, args)
		return err
	}
	exists := func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	}
	return l.ensure("queue "+name, restricted, declare, exists)
}

func (l *link) bind(queue, exchange, key string) error {
	err := l.consuming.try(func(ch *amqp091.Channel) error { return ch.QueueBind(queue, key, exchange, false, nil) })
	if err != nil {
		return fmt.Errorf("bind queue %s to exchange %s: %w", queue, exchange, err)
	}
	return nil
}

// unbind does nothing if there is no such binding.
func (l *link) unbind(queue, exchange, key string) error {
	err := l.consuming.try(func(ch *amqp091.Channel) error { return ch.QueueUnbind(queue, key, exchange, nil) })
	if err != nil {
		return fmt.Errorf("unbind queue %s from exchange %s: %w", queue, exchange, err)
	}
	return nil
}

// ensure declares something. If it exists with other arguments it is used as it is: deleting it
// would delete messages. If this user may not declare, restricted is set, and it must exist.
func (l *link) ensure(what string, restricted *bool, declare, exists func(*amqp091.Channel) error) (asDeclared bool, err error) {
	if !*restricted {
		err = l.consuming.try(declare)
		if err == nil {
			return true, nil
		}
		*restricted = isCode(err, amqp091.AccessRefused)
	}
	drifted := isCode(err, amqp091.PreconditionFailed)
	if drifted {
		l.log.Warn("declared before with other arguments: used as it is", zap.String("what", what), zap.Error(err))
	}
	if *restricted || drifted {
		err = l.consuming.try(exists)
	}
	if err != nil {
		return false, fmt.Errorf("declare %s: %w", what, err)
	}
	return false, nil
}

// isCode reports whether err is the broker's exception with this reply code.
func isCode(err error, code int) bool {
	e, ok := errors.AsType[*amqp091.Error](err)
	return ok && e.Code == code
}
