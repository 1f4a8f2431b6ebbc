//go:build long

package main

import (
	"testing"
	"time"
)

func TestABuildGoesOnUnderALongMemoryAlarm(t *testing.T) { memoryAlarm(t, 35*time.Second) }

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
