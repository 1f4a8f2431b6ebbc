package mailbox

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	simSeeds  = flag.Uint64("sim.seeds", 0, "how many schedules to simulate; 0 means as many as run in -sim.for")
	simFrom   = flag.Uint64("sim.from", 1, "the first seed")
	simFor    = flag.Duration("sim.for", 5*time.Second, "how long to simulate")
	simShrink = flag.Duration("sim.shrink", 20*time.Second, "how long to look for the least schedule that fails in one way")
	simTell   = flag.Bool("sim.tell", false, "tell all that happens in the schedules of testdata, or of the only seed")
	simSteps  = flag.Int("sim.steps", 1000, "steps before a schedule heals, at most")
)

// simulate runs the schedule of one seed.
func simulate(seed uint64) *world {
	w := newWorld(rand.New(rand.NewPCG(seed, 1)))
	if *simTell && *simSeeds == 1 {
		w.tell = func(line string) { fmt.Println(line) }
	}
	w.chaos(1 + w.rng.IntN(*simSteps))
	if w.err == "" {
		w.heal()
	}
	return w
}

type failure struct {
	seed  uint64
	steps int
}

// TestTheRulesHoldUnderEverySchedule simulates as many schedules as fit. What fails is shrunk, and
// printed so that it can become a file in testdata/schedules.
func TestTheRulesHoldUnderEverySchedule(t *testing.T) {
	var (
		next, steps, schedules atomic.Uint64
		wg                     sync.WaitGroup
		mu                     sync.Mutex
		seen                   = map[string]int{}
		failed                 = map[string][]failure{} // by what went wrong
	)
	next.Store(*simFrom)
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				seed := next.Add(1) - 1
				if *simSeeds > 0 && seed >= *simFrom+*simSeeds || *simSeeds == 0 && time.Since(began) > *simFor {
					return
				}
				w := simulate(seed)
				schedules.Add(1)
				steps.Add(uint64(len(w.log)))
				mu.Lock()
				for what, n := range w.seen {
					seen[what] += n
				}
				if w.err != "" {
					failed[sort(w.err)] = append(failed[sort(w.err)], failure{seed, len(w.log)})
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	t.Logf("%d schedules, %d steps in %.1f s: %.0f schedules/s, %.0f steps/s", schedules.Load(), steps.Load(), took.Seconds(),
		float64(schedules.Load())/took.Seconds(), float64(steps.Load())/took.Seconds())
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%9d  %s", seen[what], what)
	}
	for _, what := range slices.Sorted(maps.Keys(failed)) {
		shortest := slices.MinFunc(failed[what], func(a, b failure) int { return cmp.Or(a.steps-b.steps, cmp.Compare(a.seed, b.seed)) })
		w, least := shrink(simulate(shortest.seed))
		t.Errorf("%d seeds fail, one is %d: %s\nThe least schedule that does the same:\n%s", len(failed[what]), shortest.seed, w.err, print(least))
	}
}

// TestASeedGivesOneSchedule guards what makes a failure worth having: that it comes again.
func TestASeedGivesOneSchedule(t *testing.T) {
	for seed := range uint64(20) {
		a, b := simulate(seed), simulate(seed)
		if !slices.Equal(a.log, b.log) || !maps.Equal(a.seen, b.seen) {
			t.Fatalf("seed %d took %d steps and then %d others", seed, len(a.log), len(b.log))
		}
	}
}

// TestSchedulesThatOnceFailed replays what the simulator has found.
func TestSchedulesThatOnceFailed(t *testing.T) {
	files, err := filepath.Glob("testdata/schedules/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := parseSteps(string(text))
			if err != nil {
				t.Fatal(err)
			}
			var tell func(string)
			if *simTell {
				tell = func(line string) { t.Log(line) }
			}
			if w := replay(steps, tell); w.err != "" {
				t.Error(w.err)
			}
		})
	}
}

func print(steps []step) string {
	const most = 1000 // more is of no use to anybody
	var b strings.Builder
	for i, s := range steps {
		if i == most {
			fmt.Fprintf(&b, "# and %d more", len(steps)-most)
			break
		}
		fmt.Fprintln(&b, s)
	}
	return b.String()
}
