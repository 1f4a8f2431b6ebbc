package main

import (
	"strings"
	"testing"
	"time"
)

func TestAHeartbeatIsASecondToTenMinutes(t *testing.T) {
	for beat, ok := range map[time.Duration]bool{0: false, time.Second - 1: false, time.Second: true, 10 * time.Minute: true, 10*time.Minute + 1: false} {
		s := defaults()
		s.Heartbeat = beat
		if err := s.Validate(); ok == strings.Contains(err.Error(), "heartbeat") { // the keys are missing, too
			t.Errorf("%v: %v", beat, err)
		}
	}
}
