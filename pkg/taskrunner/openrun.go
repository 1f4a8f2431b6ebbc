package taskrunner

import (
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// openRun is a run of this process in its logbook: the log that it writes, and its page.
//
// The page is changed before the event that says the same leaves. So it may have an end that nobody was told: of a
// runner that was killed in between. Then the ledger has the task run again, and of the runs of a task the latest
// says how it stands (wire.RunInfo); an end that a later run followed was none.
type openRun struct {
	*logFile
	book  *logbook
	entry *entry
}

var _ keeper = (*openRun)(nil)

// step notes where the run is; only queries see it, the page on disk does not.
func (r *openRun) step(current, total uint32) {
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.entry.page.CurrentStep, r.entry.page.TotalSteps = current, total
}

// end closes the log and writes down how the run ended; fault is nil unless it failed. It may be called again: the
// last word counts. What cannot be written is in memory all the same, and in the runner's own log.
func (r *openRun) end(status wire.RunStatus, fault *wire.Error, now time.Time) {
	b, e := r.book, r.entry
	var failed error
	b.mu.Lock()
	if e.live != nil {
		failed = e.live.close()
		e.page.LogBytes, e.page.LastLine, e.page.LogDropped = e.live.numbers()
		e.live = nil
		e.page.Ended = &wire.Time{Time: now}
		b.ended = append(b.ended, e)
		b.bytes += e.page.LogBytes
	}
	e.page.Status, e.page.Error = status, fault
	written := e.page
	b.mu.Unlock()
	if failed != nil {
		b.log.Warn("some of a log could not be written", zap.String("run_id", string(written.Run)), zap.Int64("dropped_bytes", written.LogDropped), zap.Error(failed))
	}
	if err := b.write(&written); err != nil {
		b.log.Warn("how a run ended cannot be written down", zap.String("run_id", string(written.Run)), zap.Error(err))
	}
}
