package wsclient

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestAnEventIsHadWhenTheNextOneIsAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
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
		c, p := s.open(Options{OnEvent: func(task *Task, e Event) {
			time.Sleep(time.Second)
			got = append(got, fmt.Sprint(task.ID(), e.Seq))
		}})
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
		c, p := s.open(Options{})
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

func TestDroppedEventsAreFetchedOnceThereIsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
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
