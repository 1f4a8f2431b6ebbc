//go:build long

package main

import (
	"testing"
	"time"
)

func TestABuildGoesOnUnderALongMemoryAlarm(t *testing.T) {
	s := newSite(t)
	s.begin()
	s.eval("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})")
	over := func() { s.eval("rabbit_alarm:clear_alarm({resource_limit, memory, node()})") }
	defer over()
	s.outage(35 * time.Second)
	if n := s.tasks(); n != "1" {
		t.Errorf("%s tasks in the queue while the final event waits, want 1", n)
	}
	over()
	s.end()
}

func TestABuildGoesOnWhileTheBrokerIsStopped(t *testing.T) {
	s := newSite(t)
	s.begin()
	if err := rabbit.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	rabbit.Kill()
	s.outage(30 * time.Second)
	if err := rabbit.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.end()
}
