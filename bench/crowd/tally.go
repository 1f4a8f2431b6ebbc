package crowd

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Tally is what became of the messages of one batch.
type Tally struct {
	Faults
	Got   int64                   // messages that came, each counted once
	First int64                   // when the first of them came, by Now
	Last  int64                   // when the last of them came, by Now
	Ages  *hdrhistogram.Histogram // from the publish until it came, in ns
}

func newTally() Tally { return Tally{Ages: newHistogram()} }

// newHistogram takes 1 us to 1 min, and lets nothing be off by more than 1 %.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 2)
}

// record adds an age; what is out of range counts as its end.
func record(h *hdrhistogram.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns, int64(time.Microsecond)), int64(time.Minute))) // it is in range
}

// Add adds what other clients got of the same batch.
func (t *Tally) Add(o Tally) {
	t.Faults.Add(o.Faults)
	t.Got += o.Got
	if t.First == 0 || o.First != 0 && o.First < t.First {
		t.First = o.First
	}
	t.Last = max(t.Last, o.Last)
	t.Ages.Merge(o.Ages)
}

// Quantile is the age that q % of the messages did not exceed, in ms.
func (t *Tally) Quantile(q float64) float64 { return float64(t.Ages.ValueAtQuantile(q)) / 1e6 }
