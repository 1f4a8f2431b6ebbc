package taskrunner

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// logbook is what a runner has of the runs that it had, on disk: of each one a page (how it went), its
// log, and an index into that. It outlives the process, for its retention. Nothing is synced: what the
// kernel had not written when the machine lost its power is missing.
//
// It is safe for concurrent use. A nil logbook keeps nothing and has nothing.
type logbook struct {
	dir    string
	runner string
	limits logLimits
	log    *zap.Logger

	mu    sync.Mutex
	runs  map[key][]*entry // of each task, in the order of their begins
	ended []*entry         // those that have ended, the earliest ended first
	bytes int64            // of the logs of those
}

// logLimits are what a logbook keeps. A run that goes on is never removed.
type logLimits struct {
	run   int64         // bytes of one log; further output is dropped, and counted
	bytes int64         // of all logs; then the runs that ended first go
	age   time.Duration // of a run that has ended
	runs  int           // that have ended
}

// page is how one run went, as it lies on disk.
type page struct {
	Client socketmeta.ClientID `json:"client_id"`
	wire.RunInfo
}

// entry is one run.
type entry struct {
	page page     // guarded by logbook.mu; of a run that goes on, its log's numbers are in live
	live *logFile // guarded by logbook.mu; nil once the run has ended
}

const (
	pageSuffix  = ".json"
	newSuffix   = pageSuffix + ".new" // a page that is being written
	logSuffix   = ".log"
	indexSuffix = ".idx"
)

// maxFound is how many bytes of an error's text a query gets. Escapes in JSON make up to six of each, and all
// else of a run has less than 1,000: so wire.MaxRuns runs are less than wire.MaxControl.
const maxFound = 256

// openLogbook reads the pages in dir, which need not exist. Runs that had not ended belong to a process
// that is gone, or that shares dir: they count as given up.
func openLogbook(dir, runner string, limits logLimits, log *zap.Logger) (*logbook, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b := &logbook{dir: dir, runner: runner, limits: limits, log: log, runs: map[key][]*entry{}}
	names, err := filepath.Glob(filepath.Join(dir, "*"+pageSuffix))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		e, err := b.restore(name)
		if err != nil {
			log.Warn("the page of a run cannot be read, its log is lost", zap.String("file", name), zap.Error(err))
			continue
		}
		k := keyOfPage(&e.page)
		b.runs[k] = append(b.runs[k], e)
		b.ended = append(b.ended, e)
		b.bytes += e.page.LogBytes
	}
	slices.SortFunc(b.ended, func(x, y *entry) int { return x.page.Ended.Compare(y.page.Ended.Time) })
	for _, runs := range b.runs {
		slices.SortFunc(runs, func(x, y *entry) int { return x.page.Started.Compare(y.page.Started.Time) })
	}
	b.tidy(time.Now())
	return b, nil
}

func keyOfPage(p *page) key { return key{p.Client.String(), p.Task} }

func (b *logbook) restore(name string) (*entry, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	e := new(entry)
	if err := json.Unmarshal(raw, &e.page); err != nil {
		return nil, err
	}
	run := strings.TrimSuffix(filepath.Base(name), pageSuffix)
	if string(e.page.Run) != run || e.page.Client.IsZero() {
		return nil, fmt.Errorf("it is of the run %.80q", e.page.Run)
	}
	e.page.Runner = b.runner // who has the log is asked for it, and had another name if it was renamed
	if e.page.Ended == nil {
		size, lines, err := countLines(b.path(e.page.Run, logSuffix), b.path(e.page.Run, indexSuffix))
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		e.page.Status, e.page.Ended = wire.RunGivenUp, &wire.Time{Time: info.ModTime()}
		e.page.LogBytes, e.page.LastLine = size, lines
	}
	return e, nil
}

func (b *logbook) path(run wire.RunID, suffix string) string {
	return filepath.Join(b.dir, string(run)+suffix)
}

// begin opens the page and the log of a run: its page is on disk. After an error it has none; a nil logbook gives none.
func (b *logbook) begin(t *wire.Task, attempt int, run wire.RunID, now time.Time) (*openRun, error) {
	if b == nil {
		return nil, nil
	}
	e := &entry{page: page{t.Client, wire.RunInfo{
		Task: t.Task, Kind: t.Kind, Status: wire.RunRunning, Attempt: attempt, Run: run, Runner: b.runner,
		Submitted: t.Submitted, Started: wire.Time{Time: now},
	}}}
	if err := b.write(&e.page); err != nil {
		return nil, err
	}
	f := &logFile{path: b.path(run, logSuffix), indexPath: b.path(run, indexSuffix), limit: b.limits.run}
	b.mu.Lock()
	defer b.mu.Unlock()
	e.live = f
	k := keyOfPage(&e.page)
	b.runs[k] = append(b.runs[k], e)
	return &openRun{logFile: f, book: b, entry: e}, nil
}

// write replaces the page of a run on disk.
func (b *logbook) write(p *page) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.path(p.Run, newSuffix), raw, 0o600); err != nil {
		return err
	}
	return os.Rename(b.path(p.Run, newSuffix), b.path(p.Run, pageSuffix))
}

// tidy removes what is beyond the limits.
func (b *logbook) tidy(now time.Time) {
	if b == nil {
		return
	}
	b.mu.Lock()
	n := 0
	for _, e := range b.ended {
		if now.Sub(e.page.Ended.Time) <= b.limits.age && b.bytes <= b.limits.bytes && len(b.ended)-n <= b.limits.runs {
			break
		}
		n++
		b.bytes -= e.page.LogBytes
	}
	gone := slices.Clone(b.ended[:n])
	b.ended = slices.Delete(b.ended, 0, n)
	for _, e := range gone {
		k := keyOfPage(&e.page)
		if b.runs[k] = slices.DeleteFunc(b.runs[k], func(x *entry) bool { return x == e }); len(b.runs[k]) == 0 {
			delete(b.runs, k)
		}
	}
	b.mu.Unlock()
	for _, e := range gone {
		for _, suffix := range []string{logSuffix, indexSuffix, newSuffix, pageSuffix} { // the page last: without it nothing would be found to remove
			if err := os.Remove(b.path(e.page.Run, suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
				b.log.Warn("an old log cannot be removed", zap.Error(err))
			}
		}
	}
}

// find returns a run of a task, the latest for "". b.mu is held.
func (b *logbook) find(k key, run wire.RunID) (found *entry) {
	for _, e := range b.runs[k] {
		if run == "" && (found == nil || found.page.Compare(&e.page.RunInfo) < 0) || run != "" && e.page.Run == run {
			found = e
		}
	}
	return found
}

// findRuns answers a worker that asks for the runs of a client. Of each error's text it has the first maxFound
// bytes, so that the answer always fits into a control message; the page on disk and the client's event have more.
func (b *logbook) findRuns(q *wire.FindRuns) *wire.RunsFound {
	answer := &wire.RunsFound{Ask: q.Ask, Runner: b.runner, Runs: []wire.RunInfo{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	client := q.Client.String()
	for k, runs := range b.runs {
		if k.client != client || q.Task != "" && k.task != q.Task {
			continue
		}
		if q.Task == "" {
			runs = []*entry{b.find(k, "")}
		}
		for _, e := range runs {
			if q.Before.IsZero() || e.page.Submitted.Before(q.Before.Time) {
				answer.Runs = append(answer.Runs, b.info(e))
			}
		}
	}
	slices.SortFunc(answer.Runs, func(x, y wire.RunInfo) int {
		return cmp.Or(y.Submitted.Compare(x.Submitted.Time), cmp.Compare(x.Task, y.Task), y.Compare(&x))
	})
	if answer.More = len(answer.Runs) > q.Limit; answer.More {
		answer.Runs = answer.Runs[:q.Limit]
	}
	for i := range answer.Runs {
		if r := &answer.Runs[i]; r.Error != nil {
			short := *r.Error // the page keeps its own
			short.Message = clipTo(short.Message, maxFound)
			r.Error = &short
		}
	}
	return answer
}

// workflows is how tasks stand: of one task, or of all for "", those that changed last,
// at most limit, the one that changed last at the end.
func (b *logbook) workflows(task wire.TaskID, limit int) []*wire.Workflow {
	if b == nil {
		return nil
	}
	var all []*wire.Workflow
	b.mu.Lock()
	for k := range b.runs {
		if task == "" || k.task == task {
			info := b.info(b.find(k, ""))
			all = append(all, workflowOf(&info))
		}
	}
	b.mu.Unlock()
	slices.SortFunc(all, func(x, y *wire.Workflow) int { return x.Timestamp.Compare(y.Timestamp.Time) })
	return all[max(0, len(all)-limit):]
}

// info is what e's page would say now. b.mu is held.
func (b *logbook) info(e *entry) wire.RunInfo {
	info := e.page.RunInfo
	if e.live != nil {
		info.LogBytes, info.LastLine, info.LogDropped = e.live.numbers()
	}
	return info
}

// readLog answers a worker that asks for a piece of a log.
func (b *logbook) readLog(q *wire.ReadLog) *wire.LogChunk {
	answer := &wire.LogChunk{Ask: q.Ask, Runner: b.runner, Missing: true, Data: []byte{}}
	b.mu.Lock()
	e := b.find(key{q.Client.String(), q.Task}, q.Run)
	if e == nil {
		b.mu.Unlock()
		return answer
	}
	info := b.info(e)
	ended := e.live == nil
	b.mu.Unlock()
	l := savedLog{path: b.path(info.Run, logSuffix), index: b.path(info.Run, indexSuffix), size: info.LogBytes, lines: info.LastLine}
	offset, data, err := l.read(q.Line, q.Offset, q.Max)
	if err != nil {
		b.log.Warn("a log cannot be read", zap.String("run_id", string(info.Run)), zap.Error(err))
		return answer
	}
	return &wire.LogChunk{
		Ask: q.Ask, Runner: b.runner, Attempt: info.Attempt, Run: info.Run, Line: q.Line, Offset: offset, Data: data,
		Lines: info.LastLine, Size: info.LogBytes, Ended: ended,
	}
}
