package wsclient

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestResumeAfterCut(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
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

func TestWhatTheServerNoLongerHasIsToldToTheWaiting(t *testing.T) {
	for state, want := range map[wire.TaskState]error{wire.TaskUnknown: ErrTaskUnknown, wire.TaskFinished: ErrTaskFinished} {
		bubble(t, func(t *testing.T, s *server) {
			c, p := s.open(Options{})
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
		c, p := s.open(Options{})
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
