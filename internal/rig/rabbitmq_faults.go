package rig

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MemoryAlarm raises the node's memory alarm by moving its limit, or puts the limit back. It
// returns once the node says so: publishers are blocked, in all of its cluster.
func (r *RabbitMQ) MemoryAlarm(ctx context.Context, on bool) error {
	set := "ok = vm_memory_monitor:set_vm_memory_high_watermark(element(2, {ok, _} = application:get_env(rabbit, vm_memory_high_watermark)))"
	if on {
		set = "ok = vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1})" // bytes
	}
	return r.alarm(ctx, "memory", set, on)
}

// DiskAlarm is MemoryAlarm for the free space on disk.
func (r *RabbitMQ) DiskAlarm(ctx context.Context, on bool) error {
	set := "ok = rabbit_disk_monitor:set_disk_free_limit(element(2, {ok, _} = application:get_env(rabbit, disk_free_limit)))"
	if on {
		set = "ok = rabbit_disk_monitor:set_disk_free_limit(1 bsl 60)" // bytes
	}
	return r.alarm(ctx, "disk", set, on)
}

// alarm evaluates set and waits until the node's alarm of the resource is on or off.
func (r *RabbitMQ) alarm(ctx context.Context, resource, set string, on bool) error {
	if _, err := r.Eval(ctx, set); err != nil {
		return fmt.Errorf("%s alarm: %w", resource, err)
	}
	want := fmt.Sprintf("%v = lists:keymember({resource_limit, %s, node()}, 1, rabbit_alarm:get_alarms())", on, resource)
	return poll(ctx, func() error {
		_, err := r.Eval(ctx, want)
		return err
	})
}

// Freeze stops the node from running, with all its connections open, until Thaw.
func (r *RabbitMQ) Freeze() error { return r.node.Freeze() }

// Thaw lets a frozen node go on.
func (r *RabbitMQ) Thaw() error { return r.node.Thaw() }

// Queue is what a queue holds.
type Queue struct {
	Name    string
	Ready   int // messages that wait for a consumer
	Unacked int // messages that consumers have and did not settle
}

// ListQueues returns all queues that answer, by no order. It takes some milliseconds and asks the
// queues themselves: RabbitMQ's own listing may be 5 s late with quorum queues. Streams are left
// out, as they do not know who has read them.
func (r *RabbitMQ) ListQueues(ctx context.Context) ([]Queue, error) {
	return r.listQueues(ctx, "rabbit_amqqueue:list()")
}

// QueueDepth returns what one queue holds. It fails if there is none, or if it does not answer.
func (r *RabbitMQ) QueueDepth(ctx context.Context, name string) (Queue, error) {
	queues, err := r.listQueues(ctx, "[element(2, {ok, _} = "+lookup(name)+")]")
	if err != nil {
		return Queue{}, fmt.Errorf("queue %s: %w", name, err)
	}
	if len(queues) == 0 {
		return Queue{}, fmt.Errorf("queue %s does not say what it holds: it is a stream, or its node or leader is gone", name)
	}
	return queues[0], nil
}

// listWithin bounds one try to list queues: under much load one in some thousands gets no answer.
const listWithin = 20 * time.Second

func (r *RabbitMQ) listQueues(ctx context.Context, erlang string) ([]Queue, error) {
	for {
		within, cancel := context.WithTimeout(ctx, listWithin)
		queues, err := r.listQueuesOnce(within, erlang)
		silent := within.Err() != nil
		cancel()
		if err == nil || !silent || ctx.Err() != nil {
			return queues, err
		}
	}
}

func (r *RabbitMQ) listQueuesOnce(ctx context.Context, erlang string) ([]Queue, error) {
	out, err := r.Eval(ctx, `lists:foreach(fun(Q) ->
		Count = fun
			(rabbit_quorum_queue) ->
				{Server, _} = amqqueue:get_pid(Q),
				{ok, {_, Counts}, _} = ra:leader_query({Server, node()}, fun(S) ->
					[rabbit_fifo:query_messages_ready(S), rabbit_fifo:query_messages_checked_out(S)] end, 2000),
				Counts;
			(rabbit_classic_queue) ->
				[N || {_, N} <- rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged])]
		end,
		{resource, _, queue, Name} = amqqueue:get_name(Q),
		case catch Count(amqqueue:get_type(Q)) of
			[Ready, Unacked] when is_integer(Ready), is_integer(Unacked) -> io:format("~ts ~w ~w~n", [Name, Ready, Unacked]);
			_ -> ok
		end end, `+erlang+`)`)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	var queues []Queue
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("list queues: not a queue: %q", line)
		}
		q := Queue{Name: fields[0]}
		if q.Ready, err = strconv.Atoi(fields[1]); err == nil {
			q.Unacked, err = strconv.Atoi(fields[2])
		}
		if err != nil {
			return nil, fmt.Errorf("list queues: %q: %w", line, err)
		}
		queues = append(queues, q)
	}
	return queues, nil
}

// DeleteQueue deletes a queue with all that it holds, whoever uses it. It fails if there is none.
func (r *RabbitMQ) DeleteQueue(ctx context.Context, name string) error {
	if _, err := r.Eval(ctx, "{ok, Q} = "+lookup(name)+`, {ok, _} = rabbit_amqqueue:delete(Q, false, false, <<"rig">>)`); err != nil {
		return fmt.Errorf("delete queue %s: %w", name, err)
	}
	return nil
}

// leader returns the name of the node on which the queue lives. It asks a quorum queue's leader
// itself: what nodes remember of it may be old.
func (r *RabbitMQ) leader(ctx context.Context, queue string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	return r.Eval(ctx, "{ok, Q} = "+lookup(queue)+`, io:format("~s", [case amqqueue:get_pid(Q) of
		{Name, _} -> {ok, _, {_, Leader}} = ra:members({Name, node()}, 2000), Leader;
		Pid -> node(Pid) end])`)
}

const leaderTimeout = 5 * time.Second // for a node that is frozen

// lookup is Erlang that returns {ok, Queue}. %q is how Erlang writes a string, too.
func lookup(name string) string {
	return fmt.Sprintf(`rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<%q>>))`, name)
}
