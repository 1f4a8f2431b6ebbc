package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/wscluster/wscluster/bench/crowd"
)

// Line is one line of a report: the first is the Run, each other one a round of a scenario.
type Line struct {
	Time  time.Time `json:"time"`
	Run   *Run      `json:"run,omitempty"`
	Round *Round    `json:"round,omitempty"`
}

// Run is how all rounds of a report were measured.
type Run struct {
	Command []string          `json:"command"`
	Machine Machine           `json:"machine"`
	Load    float64           `json:"load"`              // average of a minute, at the beginning
	Skipped map[string]string `json:"skipped,omitempty"` // systems that are not in it, and why
}

// Round is one measurement.
type Round struct {
	Scenario string             `json:"scenario"`
	System   string             `json:"system"`
	Number   int                `json:"number"` // from 1
	Clients  int                `json:"clients"`
	Load     float64            `json:"load"` // average of a minute, at its end
	Values   map[string]float64 `json:"values"`
	Faults   crowd.Faults       `json:"faults"`
	Error    string             `json:"error,omitempty"` // why there are no values
}

// Writer writes lines. Any goroutine may call it.
type Writer struct {
	mu  sync.Mutex
	out io.Writer // guarded by mu
}

// NewWriter writes to out.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// Write writes one line, at the present time.
func (w *Writer) Write(l Line) error {
	l.Time = time.Now().UTC()
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.out.Write(append(b, '\n'))
	return err
}

// maxLine is more than a line has: those of a Run with many servers have some 2 KiB.
const maxLine = 1 << 20

// Read reads what a Writer wrote: the last run, and the rounds behind it.
func Read(in io.Reader) (run Run, rounds []Round, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		var l Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return run, nil, fmt.Errorf("line %d: %w", n, err)
		}
		switch {
		case l.Run != nil:
			run, rounds = *l.Run, nil
		case l.Round != nil:
			rounds = append(rounds, *l.Round)
		}
	}
	return run, rounds, lines.Err()
}
