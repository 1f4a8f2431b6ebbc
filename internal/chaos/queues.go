package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// holdsEvents reports whether events or tasks may lie in a queue, by its name.
func holdsEvents(queue string) bool {
	for _, prefix := range []string{"mailbox.", "hold.", "tasks.", "dead."} {
		if strings.HasPrefix(queue, prefix) {
			return true
		}
	}
	return queue == broker.QueueParked
}

// holdsDead reports whether a queue is for what was given up: it does not run empty by itself.
func holdsDead(queue string) bool {
	return queue == broker.QueueDeadEvents || queue == broker.QueueDeadTasks
}

// backlog lists the queues of events and tasks that are not empty, those of the dead left out.
func (s *site) backlog(ctx context.Context) (lines []string, err error) {
	queues, err := s.nodes[0].ListQueues(ctx)
	for _, q := range queues {
		if holdsEvents(q.Name) && !holdsDead(q.Name) && q.Ready+q.Unacked > 0 {
			lines = append(lines, fmt.Sprintf("%s: %d ready, %d unacknowledged", q.Name, q.Ready, q.Unacked))
		}
	}
	return lines, err
}

// found is one event that lies in a queue.
type found struct {
	run    RunKey
	seq    int64
	queue  string
	reason string // among the dead
}

// search reads what lies in the queues of events, and leaves it there. Nobody else may be taking
// from them. lines say for each queue that is not empty how much there is.
func (s *site) search(ctx context.Context) (events []found, lines []string, err error) {
	queues, err := s.nodes[0].ListQueues(ctx)
	if err != nil {
		return nil, nil, err
	}
	conn, err := amqp091.Dial(s.nodes[0].URL())
	if err != nil {
		return nil, nil, fmt.Errorf("look into the queues: %w", err)
	}
	defer conn.Close() // puts back what was taken
	for _, q := range queues {
		if !holdsEvents(q.Name) {
			continue
		}
		ch, err := conn.Channel()
		if err != nil {
			return nil, nil, fmt.Errorf("look into %s: %w", q.Name, err)
		}
		count, reasons := 0, map[string]int{}
		for {
			m, ok, err := ch.Get(q.Name, false)
			if err != nil {
				return nil, nil, fmt.Errorf("look into %s: %w", q.Name, err)
			}
			if !ok {
				break
			}
			count++
			reason, _ := m.Headers["reason"].(string)
			if holdsDead(q.Name) {
				reasons[reason]++
			}
			if e, err := wire.DecodeEvent(m.Type, m.CorrelationId, m.Headers, m.Body); err == nil {
				events = append(events, found{RunKey{e.Task, e.Attempt, e.Run}, e.Seq, q.Name, reason})
			}
		}
		switch {
		case count > 0 && holdsDead(q.Name):
			lines = append(lines, fmt.Sprintf("%s: %d (by reason: %v)", q.Name, count, reasons))
		case count > 0:
			lines = append(lines, fmt.Sprintf("%s: %d", q.Name, count))
		}
		if err := ch.Close(); err != nil && !errors.Is(err, amqp091.ErrClosed) {
			return nil, nil, fmt.Errorf("look into %s: %w", q.Name, err)
		}
	}
	return events, lines, nil
}
