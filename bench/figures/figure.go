package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/wscluster/wscluster/bench/report"
)

// figure is one thing that is measured. Each has a file of its own, and a line in figures.
type figure struct {
	name    string
	unit    string // of value and baseline
	floor   floor
	measure func(context.Context, *lab) ([]sample, error) // one sample a round; it ends soon after its context
}

// figures in the order in which they are measured.
var figures = []figure{
	cloneToFirstLogLine, idleMemory, idleGoroutines, unicastP50, unicastRelay, eventsSingle, eventsRelay, eventsBatched, eventsBesideHeld, connectRate,
	adoption, handBack, killGap, rollingLost, rollingPeak, brokerKills,
	acceptedP99, firstLineP99, trivialTask, logThroughput, logMemory, logBrokerMemory, queuedTasks, taskList,
	broadcastLast, broadcast100, broadcast1k, broadcast10k, slowSubscriber, slowMemory,
	handshakeGorilla, handshakeCoder, handshakeBare, broadcastCPU, broadcastCPU16, halfFrames,
	liveClients,
}

// sample is what one round measured. The baseline is what it is compared with, taken side by side
// in the same round where it moves with the machine; 0 means that there is none.
type sample struct{ value, baseline float64 }

func (s sample) ratio() float64 { return s.value / s.baseline }

// median is the sample in the middle by ratio, or by value where there is no baseline; of an even
// number the lower of the two.
func median(rounds []sample) sample {
	sorted := slices.SortedFunc(slices.Values(rounds), func(a, b sample) int {
		if a.baseline == 0 || b.baseline == 0 {
			return cmp.Compare(a.value, b.value)
		}
		return cmp.Compare(a.ratio(), b.ratio())
	})
	return sorted[(len(sorted)-1)/2]
}

// floor is what closes an issue, as in "value<=60" or "ratio>=0.3".
type floor struct {
	ofRatio bool // else of the value
	atLeast bool // else at most
	limit   float64
}

func (f floor) holds(s sample) bool {
	got := s.value
	if f.ofRatio {
		if s.baseline == 0 {
			return false
		}
		got = s.ratio()
	}
	if f.atLeast {
		return got >= f.limit
	}
	return got <= f.limit
}

func (f floor) String() string {
	what, how := "value", "<="
	if f.ofRatio {
		what = "ratio"
	}
	if f.atLeast {
		how = ">="
	}
	return what + how + strconv.FormatFloat(f.limit, 'f', -1, 64)
}

// columns head the lines.
const columns = "name value unit baseline ratio floor ok|short"

// line is the figure's line for s, under columns. Where there is no baseline, it and the ratio
// are a dash.
func (f *figure) line(s sample) (line string, ok bool) {
	baseline, ratio, verdict := "-", "-", "short"
	if s.baseline != 0 {
		baseline, ratio = report.Number(s.baseline), strconv.FormatFloat(s.ratio(), 'f', 2, 64)
	}
	if ok = f.floor.holds(s); ok {
		verdict = "ok"
	}
	return fmt.Sprint(f.name, " ", report.Number(s.value), " ", f.unit, " ", baseline, " ", ratio, " ", f.floor, " ", verdict), ok
}
