package chaos

import (
	"context"
	"fmt"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/internal/rig"
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
	defer conn.Close()
	for _, q := range queues {
		if !holdsEvents(q.Name) || q.Ready+q.Unacked == 0 {
			continue
		}
		messages, err := look(ctx, conn, q)
		if err != nil {
			return nil, nil, fmt.Errorf("look into %s: %w", q.Name, err)
		}
		line := fmt.Sprintf("%s: %d", q.Name, q.Ready+q.Unacked)
		reasons, tasks := map[string]int{}, map[string]int{}
		for _, m := range messages {
			reason, _ := m.Headers["reason"].(string)
			reasons[reason]++
			all, _ := wire.DecodeEvents(m.Type, m.CorrelationId, m.Headers, m.Body) // what cannot be read is only counted
			for _, e := range all {
				events = append(events, found{RunKey{e.Task, e.Attempt, e.Run}, e.Seq, q.Name, reason})
				tasks[fmt.Sprintf("%s/%d", e.Task, e.Attempt)]++
			}
		}
		if holdsDead(q.Name) {
			line += fmt.Sprintf(", by reason: %v", reasons)
		}
		line += fmt.Sprintf(", by task and attempt: %v", tasks)
		lines = append(lines, line)
	}
	return events, lines, nil
}

// look reads the messages of one queue, as its consumer: a queue with a single active consumer
// gives them to nobody else. They go back to it. After a while it returns what it has.
func look(ctx context.Context, conn *amqp091.Connection, q rig.Queue) (messages []amqp091.Delivery, err error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	defer ch.Close()
	const most = 65_535 // AMQP counts it in 16 bits
	if err := ch.Qos(most, 0, false); err != nil {
		return nil, err
	}
	deliveries, err := ch.Consume(q.Name, "", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	for len(messages) < min(q.Ready+q.Unacked, most) {
		select {
		case m, ok := <-deliveries:
			if !ok {
				return messages, nil
			}
			messages = append(messages, m)
		case <-ctx.Done():
			return messages, nil
		}
	}
	return messages, nil
}

const lookWithin = 10 * time.Second
