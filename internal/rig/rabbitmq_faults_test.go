package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRabbitMQRaisesAlarmsListsQueuesAndFreezes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	r, err := StartRabbitMQ(ctx, RabbitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })

	alarms := func() string {
		out, err := r.Eval(ctx, `io:format("~w", [[R || {{resource_limit, R, _}, _} <- rabbit_alarm:get_alarms()]])`)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, step := range []struct {
		set  func(context.Context, bool) error
		on   bool
		want string
	}{
		{r.MemoryAlarm, true, "[memory]"}, {r.MemoryAlarm, false, "[]"},
		{r.DiskAlarm, true, "[disk]"}, {r.DiskAlarm, true, "[disk]"}, {r.DiskAlarm, false, "[]"},
	} {
		began := time.Now()
		if err := step.set(ctx, step.on); err != nil || alarms() != step.want {
			t.Errorf("got %v and %s, want %s", err, alarms(), step.want)
		}
		t.Logf("%s after %v", step.want, time.Since(began))
	}

	declare(t, r, "c", "classic", 2)
	declare(t, r, "q", "quorum", 3)
	declare(t, r, "s", "stream", 0)
	// A consumer that lives until the queue is deleted.
	take := `Eval = self(), {ok, Q} = ` + lookup("q") + `, spawn(fun() ->
		{ok, _, _, _} = rabbit_amqqueue:basic_get(Q, false, self(), <<"rig">>, rabbit_queue_type:init()),
		Eval ! took, timer:sleep(infinity) end), receive took -> ok after 9000 -> error(late) end`
	if _, err := r.Eval(ctx, take); err != nil {
		t.Fatal(err)
	}
	want := []Queue{{"c", 2, 0}, {"q", 2, 1}}
	began := time.Now()
	err = poll(ctx, func() error { // what is published is counted once the queue has taken it
		got, err := r.ListQueues(ctx)
		slices.SortFunc(got, func(a, b Queue) int { return cmp.Compare(a.Name, b.Name) })
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("got %v, want %v", got, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("the queues were listed after %v", time.Since(began))
	if q, err := r.QueueDepth(ctx, "q"); err != nil || q != want[1] {
		t.Errorf("got %v, %v, want %v", q, err, want[1])
	}
	for _, name := range []string{"s", "none"} {
		if q, err := r.QueueDepth(ctx, name); err == nil || !strings.Contains(err.Error(), "queue "+name) {
			t.Errorf("%s: got %v, %v, want an error that names it", name, q, err)
		}
	}
	for _, q := range want {
		if err := r.DeleteQueue(ctx, q.Name); err != nil {
			t.Error(err)
		}
		if err := r.DeleteQueue(ctx, q.Name); err == nil {
			t.Errorf("%s was deleted twice", q.Name)
		}
	}
	if got, err := r.ListQueues(ctx); len(got) != 0 || err != nil {
		t.Errorf("got %v, %v, want nothing left", got, err)
	}

	if err := r.Freeze(); err != nil {
		t.Fatal(err)
	}
	frozen, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	if _, err := r.ListQueues(frozen); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen node answered: %v", err)
	}
	if err := r.Thaw(); err != nil {
		t.Fatal(err)
	}
	err = poll(ctx, func() error { // a node that wakes may hang up on the first who asks
		_, err := r.ListQueues(ctx)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	r.Kill()
	if err := r.Freeze(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("freeze the dead: %v", err)
	}
}

// declare makes a durable queue on r, with n messages in it.
func declare(t *testing.T, r *RabbitMQ, name, kind string, n int) {
	t.Helper()
	_, err := r.Eval(t.Context(), fmt.Sprintf(`Name = rabbit_misc:r(<<"/">>, queue, <<%q>>),
		{new, _} = rabbit_amqqueue:declare(Name, true, false, [{<<"x-queue-type">>, longstr, <<%q>>}], none, <<"rig">>),
		[ok = rabbit_basic:publish(rabbit_misc:r(<<"/">>, exchange, <<>>), <<%q>>, [], <<"x">>) || _ <- lists:seq(1, %d)]`, name, kind, name, n))
	if err != nil {
		t.Fatal(err)
	}
}
