package build

import (
	"context"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/taskrunner"
)

// CountdownKind is a kind that builds nothing: it counts lines down, one an interval, with a
// progress each. It is a first task to look at, and a long one for tests, that needs no program
// and no repository.
const CountdownKind = "countdown"

// countdownSchema is what of its parameters a schema can say.
const countdownSchema = `{
	"title": "count lines down", "type": "object", "additionalProperties": false,
	"properties": {
		"lines": {"type": "integer", "minimum": 0, "maximum": 1000000, "description": "how many; 0 means 10"},
		"interval_ms": {"type": "integer", "minimum": 0, "maximum": 60000, "description": "between two; 0 means 1000"},
		"seconds": {"type": "integer", "minimum": 0, "maximum": 86400, "description": "how long it is to take, instead of lines"},
		"steps": {"type": "integer", "minimum": 0, "maximum": 100, "description": "0 means 3"}
	}
}`

// countdownParams are its parameters. Zero or missing means the default.
type countdownParams struct {
	Lines      int `json:"lines"`       // 1 to 1,000,000; default 10
	IntervalMS int `json:"interval_ms"` // 1 to 60,000; default 1,000
	Seconds    int `json:"seconds"`     // how long it is to take, instead of lines; at most 86,400
	Steps      int `json:"steps"`       // 1 to 100, at most one for each line; default 3
}

func (p *countdownParams) check() error {
	for _, f := range []struct {
		name  string
		value *int
		most  int
	}{{"lines", &p.Lines, 1_000_000}, {"interval_ms", &p.IntervalMS, 60_000}, {"seconds", &p.Seconds, 86_400}, {"steps", &p.Steps, 100}} {
		if *f.value < 0 || *f.value > f.most {
			return badParams("%s: %d must be between 1 and %d", f.name, *f.value, f.most)
		}
	}
	if p.IntervalMS == 0 {
		p.IntervalMS = 1000
	}
	switch {
	case p.Seconds != 0 && p.Lines != 0:
		return badParams("seconds: it was given together with lines; give one of the two")
	case p.Seconds != 0:
		p.Lines = max(1, p.Seconds*1000/p.IntervalMS)
	case p.Lines == 0:
		p.Lines = 10
	}
	if p.Steps == 0 {
		p.Steps = 3
	}
	p.Steps = min(p.Steps, p.Lines)
	return nil
}

// countdown returns how many lines it has written.
func countdown(ctx context.Context, t *taskrunner.Task) (any, error) {
	var p countdownParams
	if err := t.Params(&p); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	t.Steps(uint32(p.Steps))
	tick := time.NewTicker(time.Duration(p.IntervalMS) * time.Millisecond)
	defer tick.Stop()
	step := 0
	for i := range p.Lines {
		if i*p.Steps/p.Lines == step { // the first line of a step
			step++
			t.Step(fmt.Sprintf("step %d", step))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if _, err := fmt.Fprintf(t.Log(), "%d\n", p.Lines-i); err != nil {
			return nil, err
		}
		t.Progress(uint32(i+1), uint32(p.Lines), fmt.Sprintf("%d to go", p.Lines-i-1))
	}
	return struct {
		Lines int `json:"lines"`
	}{p.Lines}, nil
}
