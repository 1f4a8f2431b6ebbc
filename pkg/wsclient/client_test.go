package wsclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestABuildComesHome(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		if h := p.welcome("one"); h.Token != "" || h.Tasks != nil {
			t.Errorf("the first hello is %+v, want nothing in it", h)
		}
		task := p.submit(c)
		go p.events(step(1, 0), progress(2, 1), step(3, 1), result(4, 3, `{"ok":true}`))
		if got := numbers(t, task, 3); got != "1 2 3" && got != "1 3 4" {
			t.Errorf("the application got %s", got)
		}
		value, err := task.Wait(t.Context())
		if string(value) != `{"ok":true}` || err != nil {
			t.Errorf("Wait = %s, %v", value, err)
		}
		want := wire.Position{Task: "t", Attempt: 1, Run: runA, Next: 5}
		if got := p.acked(5); got != want {
			t.Errorf("acknowledged %+v, want %+v", got, want)
		}
		if m := c.Meta(); m.Client != testClient || m.Server != "i1-w1" {
			t.Errorf("Meta = %+v", m)
		}
		if len(c.Tasks()) != 0 {
			t.Errorf("%d tasks are open, want none", len(c.Tasks()))
		}
		if err := c.stop(); err != nil {
			t.Errorf("Run = %v, want nil after ctx ended", err)
		}
		for range p.in {
		}
		if p.code != ws.StatusGoingAway {
			t.Errorf("the client left with %d, want 1001", p.code)
		}
	})
}

func TestResumeAfterCut(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		p.events(step(1, 0), step(2, 1), step(3, 2), step(5, 4))
		if got := numbers(t, task, 2); got != "1 2" {
			t.Fatalf("the application got %s", got)
		}
		if !c.Cut() {
			t.Fatal("there was nothing to cut")
		}
		p = s.next()
		h := p.welcome("two", wire.TaskStatus{Task: "t", State: wire.TaskRunning})
		want := wire.Position{Task: "t", Attempt: 1, Run: runA, Next: 3}
		if h.Token != "one" || !slices.Equal(h.Tasks, []wire.Position{want}) {
			t.Errorf("hello %+v, want the token and %+v: 3 was not taken", h, want)
		}
		p.events(step(3, 2), step(4, 3), step(5, 4), result(6, 5, "7"))
		if got := numbers(t, task, 9); got != "3 4 5 6" {
			t.Errorf("the application got %s after the cut", got)
		}
		want1 := Stats{Sockets: 2, Events: 6, Duplicates: 1, Reordered: 1, Acks: c.Stats().Acks}
		if got := c.Stats(); got != want1 {
			t.Errorf("Stats = %+v, want %+v", got, want1)
		}
	})
}

func TestAcknowledgesAtOnceThenByTimeOrNumber(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		for i := range int64(36) {
			p.events(step(i+1, i))
		}
		start := time.Now()
		ack := func(next int64, after time.Duration) {
			t.Helper()
			if a := receive[*wire.Ack](p); a.Tasks[0].Next != next || time.Since(start) != after {
				t.Errorf("acknowledged %+v after %v, want next %d after %v", a.Tasks, time.Since(start), next, after)
			}
		}
		numbers(t, task, 1)
		ack(2, 0)
		time.Sleep(60 * time.Millisecond)
		numbers(t, task, 1)
		p.silent()
		ack(3, 100*time.Millisecond) // since the one before, not since the event
		numbers(t, task, 31)
		p.silent()
		numbers(t, task, 1)
		ack(35, 100*time.Millisecond)
		numbers(t, task, 1)
		p.silent()
		ack(36, 200*time.Millisecond) // since the one that 32 events made
		p.silent()
		time.Sleep(100 * time.Millisecond)
		p.silent() // nothing is owed
		numbers(t, task, 1)
		ack(37, 300*time.Millisecond)
	})
}

// TestEventsOfOneTurnShareAnAcknowledgement has the application take 20 events before the writer looks.
func TestEventsOfOneTurnShareAnAcknowledgement(t *testing.T) {
	c, err := New(Options{URL: "ws://example.test/"})
	if err != nil {
		t.Fatal(err)
	}
	c.in.begin(wire.Position{Task: "t"})
	c.in.begin(wire.Position{Task: "u"})
	for i := range int64(10) {
		for _, id := range []wire.TaskID{"t", "u"} {
			e := step(i+1, i)
			e.Task = id
			c.in.put(&e)
			c.in.take(id)
			c.in.took(id)
		}
	}
	var turn turn
	c.acknowledge(new(socket), time.Now(), &turn)
	if len(turn.messages) != 1 {
		t.Fatalf("%d messages, want one: %+v", len(turn.messages), turn.messages)
	}
	for _, p := range turn.messages[0].(*wire.Ack).Tasks {
		if p.Next != 11 {
			t.Errorf("acknowledged %+v, want next 11 of both tasks", p)
		}
	}
}

func TestAnEventIsHadWhenTheNextOneIsAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		p.events(step(1, 0), step(2, 1))
		func() {
			defer func() { _ = recover() }()
			for range task.Events(t.Context()) {
				time.Sleep(10 * time.Second)
				panic("the application fails")
			}
		}()
		p.silent()
		if got := c.State().Tasks[0].Next; got != 0 {
			t.Errorf("next is %d, want 0: the application was not done", got)
		}
		if got := numbers(t, task, 2); got != "1 2" {
			t.Errorf("the application got %s, want the first one again", got)
		}
	})
}

func TestEventsByCallback(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var got []string
		c := s.start(Options{OnEvent: func(task *Task, e Event) {
			time.Sleep(time.Second)
			got = append(got, fmt.Sprint(task.ID(), e.Seq))
		}})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		go p.events(step(2, 1), step(1, 0), result(3, 2, "1"))
		time.Sleep(time.Second / 2) // in the middle of the first one
		if value, err := task.Wait(t.Context()); string(value) != "1" || err != nil {
			t.Errorf("Wait = %s, %v", value, err)
		}
		if want := "[t1 t2 t3]"; fmt.Sprint(got) != want {
			t.Errorf("the application got %v, want %s", got, want)
		}
		for next := int64(2); next <= 4; next++ { // a second apart
			if a := receive[*wire.Ack](p); a.Tasks[0].Next != next {
				t.Errorf("acknowledged %+v, want next %d", a.Tasks, next)
			}
		}
	})
}

func TestWaitTakesWhatNobodyElseTakes(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		var seen []int64
		looping := make(chan struct{})
		go func() {
			for e := range task.Events(t.Context()) {
				seen = append(seen, e.Seq)
				if e.Seq == 1 {
					close(looping)
				}
				if e.Seq == 2 {
					return
				}
			}
		}()
		p.events(step(1, 0))
		<-looping
		go func() {
			synctest.Wait()
			p.events(step(2, 1), step(3, 2), result(4, 3, "0"))
		}()
		if _, err := task.Wait(t.Context()); err != nil {
			t.Errorf("Wait = %v", err)
		}
		if !slices.Equal(seen, []int64{1, 2}) {
			t.Errorf("the loop saw %v, want what came while it ran", seen)
		}
	})
}

func TestFailureIsAnErrorWithItsCode(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		failed := event(1, runA, 1, 0, wire.EventError)
		failed.Body = json.RawMessage(`{"code":"failed","message":"step 2: exit status 1","retryable":true,"last_line":3,"timestamp":"2026-01-02T03:04:05.000Z"}`)
		p.events(failed)
		_, err := task.Wait(t.Context())
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeFailed || e.Message != "step 2: exit status 1" {
			t.Errorf("Wait = %v, want the failure", err)
		}
	})
}

func TestSubmitIsSentAgainUntilItIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		submitted := make(chan error, 1)
		go func() {
			_, err := c.SubmitAs(t.Context(), "t", "count", nil)
			submitted <- err
		}()
		p := s.next()
		p.welcome("one")
		first := receive[*wire.Submit](p)
		p.conn.Close()
		p = s.next()
		if h := p.welcome("two"); h.Tasks != nil {
			t.Errorf("hello speaks of %+v, which the server may not have", h.Tasks)
		}
		if again := p.accept(); again.ID != first.ID || again.Task != "t" {
			t.Errorf("submitted %+v, then %+v", first, again)
		}
		if err := <-submitted; err != nil {
			t.Errorf("Submit = %v", err)
		}
		p.conn.Close()
		p = s.next()
		if h := p.welcome("three"); len(h.Tasks) != 1 || h.Tasks[0] != (wire.Position{Task: "t"}) {
			t.Errorf("hello speaks of %+v, want the task, of which nothing has come", h.Tasks)
		}
		p.silent()
	})
}

func TestAnEventStandsForALostAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		go func() {
			receive[*wire.Submit](p)
			p.events(step(1, 0))
		}()
		if _, err := c.SubmitAs(t.Context(), "t", "count", nil); err != nil {
			t.Errorf("Submit = %v", err)
		}
	})
}

func TestRefusedSubmitIsAnErrorAndForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		go func() {
			m := receive[*wire.Submit](p)
			p.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeUnknownKind, "no such kind")})
			p.accept()
		}()
		_, err := c.SubmitAs(t.Context(), "t", "count", nil)
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeUnknownKind {
			t.Errorf("Submit = %v, want unknown_kind", err)
		}
		if len(c.Tasks()) != 0 {
			t.Error("a refused task is open")
		}
		if _, err := c.SubmitAs(t.Context(), "t", "count", nil); err != nil {
			t.Errorf("Submit under the same ID = %v", err)
		}
	})
}

func TestATaskWhoseEventsWereAcknowledgedUnseenIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		ctx, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		if _, err := c.SubmitAs(ctx, "t", "count", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Submit = %v, want the deadline", err)
		}
		receive[*wire.Submit](p)
		p.events(step(1, 0)) // it runs all the same
		if a := receive[*wire.Ack](p); a.Tasks[0].Next != 2 {
			t.Fatalf("acknowledged %+v, want the event by name", a.Tasks)
		}
		ctx, giveUp = context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		_, err := c.SubmitAs(ctx, "t", "count", nil)
		if !errors.Is(err, ErrTaskOver) || !strings.Contains(err.Error(), "new ID") {
			t.Errorf("Submit = %v, want ErrTaskOver, and what to do: event 1 will not come again", err)
		}
		p.silent()
		stranger := progress(2, 1)
		stranger.Task = "u"
		p.events(stranger)
		synctest.Wait() // it was nobody's; else it would stand for the answer to the submit
		go p.accept()
		if _, err := c.SubmitAs(t.Context(), "u", "count", nil); err != nil {
			t.Errorf("Submit of a task of which nothing was acknowledged = %v", err)
		}
	})
}

func TestARunThatWasReplacedDoesNotFillTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		p.events(event(2, runB, 2, 1, wire.EventStep), step(1, 0), step(2, 1))
		want := wire.Position{Task: "t", Attempt: 2, Run: runB, Next: 1}
		if a := receive[*wire.Ack](p); !slices.Equal(a.Tasks, []wire.Position{want}) {
			t.Errorf("acknowledged %+v, want %+v", a.Tasks, want)
		}
		p.events(event(2, runB, 1, 0, wire.EventStep))
		if got := numbers(t, task, 2); got != "1 2" {
			t.Errorf("the application got %s", got)
		}
	})
}

func TestTwoSubmitsOfOneIDAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		errs := map[string]chan error{"count": make(chan error, 1), "other": make(chan error, 1)}
		for _, kind := range []string{"count", "other"} {
			go func() {
				_, err := c.SubmitAs(t.Context(), "t", kind, nil)
				errs[kind] <- err
			}()
			synctest.Wait()
		}
		for range errs {
			if m := receive[*wire.Submit](p); m.Kind == "other" {
				p.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeConflict, "other contents")})
			} else {
				defer p.send(&wire.Accepted{ID: m.ID, Task: m.Task})
			}
		}
		if err := <-errs["other"]; err == nil {
			t.Error("the refused one is not refused")
		}
		if n := len(c.Tasks()); n != 1 {
			t.Errorf("%d tasks are open, want the one that still waits", n)
		}
	})
}

func TestAcknowledgesWhenItLeaves(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		p.events(step(1, 0), step(2, 1))
		numbers(t, task, 1)
		p.acked(2)
		numbers(t, task, 1)
		p.silent()
		_ = c.stop()
		p.acked(3)
	})
}

func TestASecondSubmitOfOneIDHasItsOwnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		go func() {
			m := receive[*wire.Submit](p)
			p.events(step(1, 0)) // is no answer
			p.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeConflict, "other contents")})
			p.events(result(2, 1, "1"))
		}()
		_, err := c.SubmitAs(t.Context(), "t", "other", nil)
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeConflict {
			t.Errorf("Submit = %v, want conflict", err)
		}
		if _, err := task.Wait(t.Context()); err != nil {
			t.Errorf("Wait = %v: the open task has nothing to do with the refusal", err)
		}
		if _, err := c.SubmitAs(t.Context(), "t", "count", nil); !errors.Is(err, ErrTaskOver) {
			t.Errorf("Submit of a task that is over = %v", err)
		}
	})
}

func TestSubmitRefusesHereWhatTheServerWouldRefuse(t *testing.T) {
	c, err := New(Options{URL: "ws://example.test/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id, kind string
		params   any
		want     string
	}{
		{"-t", "count", nil, "task ID"},
		{"t", "Count", nil, "kind"},
		{"t", "count", make(chan int), "params"},
		{"t", "count", map[string]string{"p": strings.Repeat("x", wire.MaxClientFrame)}, "frame_too_large"},
	} {
		if _, err := c.SubmitAs(t.Context(), wire.TaskID(test.id), test.kind, test.params); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("SubmitAs(%s, %s) = %v, want it to speak of %s", test.id, test.kind, err, test.want)
		}
	}
	if _, err := c.SubmitRequest(t.Context(), Request{ID: "t", Kind: "count", Priority: "urgent"}); err == nil || !strings.Contains(err.Error(), "priority") {
		t.Errorf("a priority that is none: %v", err)
	}
	if len(c.Tasks()) != 0 {
		t.Error("a refused task is open")
	}
}

func TestSubmitEndsWithItsContextAndWithRun(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Submit(ctx, "count", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Submit = %v, want the deadline", err)
		}
		receive[*wire.Submit](p)
		if n := len(c.Tasks()); n != 0 {
			t.Errorf("%d tasks are open", n)
		}
		task := p.submit(c)
		errs := make(chan error, 2)
		go func() {
			_, err := c.Submit(t.Context(), "count", nil)
			errs <- err
		}()
		go func() {
			_, err := task.Wait(t.Context())
			errs <- err
		}()
		receive[*wire.Submit](p)
		_ = c.stop()
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrStopped) {
				t.Errorf("after the end of Run: %v, want ErrStopped", err)
			}
		}
	})
}

func TestWhatTheServerNoLongerHasIsToldToTheWaiting(t *testing.T) {
	for state, want := range map[wire.TaskState]error{wire.TaskUnknown: ErrTaskUnknown, wire.TaskFinished: ErrTaskFinished} {
		bubble(t, func(t *testing.T, s *server) {
			c := s.start(Options{})
			p := s.next()
			p.welcome("one")
			task := p.submit(c)
			c.Cut()
			s.next().welcome("two", wire.TaskStatus{Task: "t", State: state})
			if _, err := task.Wait(t.Context()); !errors.Is(err, want) {
				t.Errorf("Wait = %v, want %v", err, want)
			}
		})
	}
}

func TestReload(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		go func() {
			_, _ = c.SubmitRequest(t.Context(), Request{ID: "u", Kind: "count", Params: map[string]int{"n": 1}, Priority: wire.High})
		}()
		if m := receive[*wire.Submit](p); m.Priority != wire.High { // not answered
			t.Errorf("submitted %+v, want it with high priority", m)
		}
		p.events(step(1, 0), step(2, 1), step(4, 3))
		numbers(t, task, 1)
		state := c.State()
		_ = c.stop()

		text, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		var restored State
		if err := json.Unmarshal(text, &restored); err != nil {
			t.Fatal(err)
		}
		c = s.start(Options{State: restored})
		p = s.next()
		h := p.welcome("two", wire.TaskStatus{Task: "t", State: wire.TaskRunning})
		want := wire.Position{Task: "t", Attempt: 1, Run: runA, Next: 2}
		if h.Token != "one" || !slices.Equal(h.Tasks, []wire.Position{want}) {
			t.Errorf("hello %+v, want %+v", h, want)
		}
		if m := p.accept(); m.Task != "u" || string(m.Params) != `{"n":1}` || m.Priority != wire.High {
			t.Errorf("submitted %+v, want the one without an answer", m)
		}
		tasks := c.Tasks()
		if len(tasks) != 2 || tasks[0].ID() != "t" || tasks[0].Kind() != "count" {
			t.Fatalf("Tasks = %v", tasks)
		}
		p.events(step(2, 1), step(3, 2), step(4, 3), result(5, 4, "1"))
		if got := numbers(t, tasks[0], 9); got != "2 3 4 5" {
			t.Errorf("the application got %s after the reload", got)
		}
	})
}

func TestDroppedEventsAreFetchedOnceThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		for i := range int64(maxHeldEvents + 5) {
			p.events(step(i+1, i))
		}
		synctest.Wait()
		if got := c.Stats().Dropped; got != 5 {
			t.Errorf("dropped %d, want 5", got)
		}
		go func() {
			for range p.in { // acknowledgements
			}
			p = s.next()
			h := p.welcome("two")
			for i := h.Tasks[0].Next - 1; i < maxHeldEvents+5; i++ {
				p.events(step(i+1, i))
			}
			p.events(result(maxHeldEvents+6, maxHeldEvents+5, "1"))
		}()
		start := time.Now()
		var want int64 = 1
		for e := range task.Events(t.Context()) {
			if e.Seq != want {
				t.Fatalf("the application got %d, want %d", e.Seq, want)
			}
			want++
		}
		if want != maxHeldEvents+7 || time.Since(start) != 0 {
			t.Errorf("the application got %d events after %v, want all at once", want-1, time.Since(start))
		}
	})
}

func TestFaults(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var mute, cut bool
		c := s.start(Options{Faults: Faults{
			Send: func(m wire.ClientMessage) Fate {
				if _, ok := m.(*wire.Ack); ok && mute {
					return Lose
				}
				return Pass
			},
			Receive: func(m wire.ServerMessage) Fate {
				if _, ok := m.(*wire.SocketMeta); ok && cut {
					cut = false
					return Cut
				}
				return Pass
			},
		}})
		p := s.next()
		p.welcome("one")
		task := p.submit(c)
		mute, cut = true, true
		p.events(step(1, 0))
		numbers(t, task, 1)
		time.Sleep(time.Second)
		p.silent()
		c.Cut()
		p = s.next()
		p.greet("lost")
		p = s.next()
		if h := p.welcome("three"); h.Token != "one" || h.Tasks[0].Next != 2 {
			t.Errorf("hello %+v, want the token before the lost welcome", h)
		}
	})
}
