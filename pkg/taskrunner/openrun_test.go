package taskrunner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// readPage reads the page of a run from a runner's spool.
func readPage(dir string, run any) string {
	raw, err := os.ReadFile(filepath.Join(dir, "runs", fmt.Sprint(run)+pageSuffix))
	var p page
	if err = errors.Join(err, json.Unmarshal(raw, &p)); err != nil {
		return err.Error()
	}
	if p.Error != nil {
		return fmt.Sprintf("%s %s", p.Status, p.Error.Code)
	}
	return string(p.Status)
}

func TestThePageOfARunIsOnDiskBeforeItsFirstAndItsLastEventLeave(t *testing.T) {
	inWorld(t, func(w *world) {
		dir := w.TempDir()
		var mu sync.Mutex
		pages := map[string][]string{}
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To.Exchange == broker.ExchangeUtils {
				mu.Lock()
				defer mu.Unlock()
				pages[p.Message.Correlation] = append(pages[p.Message.Correlation], p.Message.Type+": "+readPage(dir, p.Message.Headers["run_id"]))
			}
			return memory.Verdict{}
		})
		ends := func(result any, err error) HandlerFunc {
			return func(context.Context, *Task) (any, error) { time.Sleep(time.Millisecond); return result, err }
		}
		defer w.run(&Runner{SpoolDir: dir, LogBytes: 1 << 20, Kinds: map[string]Kind{
			"good":   {Handler: ends(nil, nil)},
			"bad":    {Handler: ends(nil, errors.New("no"))},
			"huge":   {Handler: ends(make([]byte, wire.MaxEvent), nil)},
			"strict": {Handler: ends(nil, nil), Schema: json.RawMessage(`{"required": ["ref"]}`)},
		}})()
		for kind, want := range map[string][]string{
			"good":   {"started: running", "result: succeeded"},
			"bad":    {"started: running", "error: failed failed"},
			"huge":   {"started: running", "error: failed output_limit"},
			"strict": {"error: failed bad_params"},
		} {
			w.submit(wire.TaskID(kind), kind, nil)
			pass(time.Second)
			mu.Lock()
			if !slices.Equal(pages[kind], want) {
				t.Errorf("%s: each event, and the page as it leaves: %q, want %q", kind, pages[kind], want)
			}
			mu.Unlock()
		}
	})
}

// ahead is a keeper that notes what it is told, and how many events were in the outbox by then.
type ahead struct {
	shelf
	out  *outbox
	said []string
}

func (a *ahead) step(current, total uint32) {
	a.said = append(a.said, fmt.Sprintf("%d/%d after %d", current, total, a.out.len()))
}

func (a *ahead) end(status wire.RunStatus, fault *wire.Error, _ time.Time) {
	a.said = append(a.said, fmt.Sprintf("%s %v after %d", status, fault != nil, a.out.len()))
}

func TestAStepIsOnThePageBeforeItIsAnEvent(t *testing.T) {
	s := newStory()
	kept := &ahead{out: &s.out}
	s.kept = kept
	must(t, s.started(2, epoch))
	must(t, s.begin("a", epoch))
	must(t, s.begin("b", epoch))
	must(t, s.end(nil, refusal(wire.CodeFailed, "no"), epoch))
	// The outbox has: started, a running, a succeeded, b running, b failed, error.
	if want := []string{"0/2 after 0", "1/2 after 1", "2/2 after 3", "failed true after 5"}; !slices.Equal(kept.said, want) {
		t.Errorf("the page was told %q, want %q", kept.said, want)
	}
}

func TestAnEndOnThePageThatNobodyWasToldIsNotTheTasksEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		var open atomic.Bool
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if w.has(p, wire.EventResult) && !open.Load() {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		stopped, killed := w.TempDir(), w.TempDir()
		stop := w.run(&Runner{SpoolDir: stopped, LogBytes: 1 << 20, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(returnNil)}}})
		defer func() { stop() }()
		w.submit("t1", "k", nil)
		pass(time.Second)
		must(t, os.CopyFS(filepath.Join(killed, "runs"), os.DirFS(filepath.Join(stopped, "runs")))) // as SIGKILL would leave it now
		first := newBook(t, filepath.Join(killed, "runs"), roomy).findRuns(&wire.FindRuns{Client: w.client, Limit: 1}).Runs
		if len(first) != 1 || first[0].Status != wire.RunSucceeded {
			t.Fatalf("before its event is stored the page says %+v", first)
		}
		stop()
		if got := readPage(stopped, first[0].Run); got != string(wire.RunGivenUp) {
			t.Errorf("a runner that stops before the event is stored leaves the page %q", got)
		}

		open.Store(true)
		stop = w.run(&Runner{SpoolDir: killed, LogBytes: 1 << 20, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) { return nil, errors.New("no") })}}})
		pass(time.Minute)
		stop()
		w.want("t1", "started", "error failed no")
		w.wantQueues(none)
		runs := newBook(t, filepath.Join(killed, "runs"), roomy).findRuns(&wire.FindRuns{Client: w.client, Limit: 1}).Runs
		if len(runs) != 1 || runs[0].Attempt != 2 || runs[0].Status != wire.RunFailed {
			t.Errorf("after it was taken over the task stands as %+v", runs)
		}
	})
}
