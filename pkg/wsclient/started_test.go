package wsclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/wscluster/wscluster/pkg/wire"
)

// started is a client that runs until the test ends, and the ways to end it.
type started struct {
	*Client
	stop func() error // ends Run and returns what it returned
}

func (s *server) start(o Options) started {
	s.t.Helper()
	o.URL, o.Dial = "ws://example.test/v1/ws", s.dial
	c, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	var result error
	stopped := false
	stop := func() error {
		if cancel(); !stopped {
			result, stopped = <-done, true
		}
		return result
	}
	s.t.Cleanup(func() { _ = stop() })
	return started{c, stop}
}

// open starts a client and welcomes its first connection, with the token "one".
func (s *server) open(o Options) (started, *peer) {
	s.t.Helper()
	c := s.start(o)
	p := s.next()
	p.welcome("one")
	return c, p
}

// submit has c submit a task "t", and p accept it.
func (p *peer) submit(c started) *Task {
	p.t.Helper()
	got := make(chan *Task, 1)
	go func() {
		task, err := c.SubmitAs(p.t.Context(), "t", "count", map[string]int{"n": 3})
		if err != nil {
			p.t.Errorf("submit: %v", err)
		}
		got <- task
	}()
	p.accept()
	return <-got
}

// codeOf returns the code of a refusal or failure, and "" for an error that has none.
func codeOf(err error) wire.Code {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return ""
}

func result(seq, prev int64, value string) wire.Event {
	e := event(1, runA, seq, prev, wire.EventResult)
	e.Body = fmt.Appendf(nil, `{"value":%s,"last_line":0,"timestamp":"2026-01-02T03:04:05.000Z"}`, value)
	return e
}

// numbers takes up to n events of t, as numbers.
func numbers(t *testing.T, task *Task, n int) string {
	var got []string
	for e := range task.Events(t.Context()) {
		got = append(got, fmt.Sprint(e.Seq))
		if len(got) == n {
			break
		}
	}
	return strings.Join(got, " ")
}

func bubble(t *testing.T, f func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newServer(t)) })
}
