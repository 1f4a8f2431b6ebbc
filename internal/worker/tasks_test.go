package worker_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// mute is a runner that announces kinds and answers nothing.
func (b *bubble) mute(name string) (announce func(kinds ...wire.KindOffer)) {
	b.Helper()
	link, err := b.broker.Join(context.Background(), broker.Runner(name))
	if err != nil {
		b.Fatal(err)
	}
	b.ends = append(b.ends, func() { _ = link.Close(context.Background()) })
	return func(kinds ...wire.KindOffer) {
		b.Helper()
		m := &wire.Kinds{Runner: name, Slots: 1, Kinds: kinds}
		if _, err := link.Publish(context.Background(), broker.ToAll(), broker.Message{Type: m.ControlType(), Body: wire.EncodeControl(m)}); err != nil {
			b.Fatal(err)
		}
		synctest.Wait()
	}
}

// runnerIn starts a task runner that keeps its logs in a folder of the test.
func (b *bubble) runnerIn(name, dir string, kinds map[string]taskrunner.Kind) {
	b.Helper()
	r := taskrunner.Runner{Name: name, Broker: b.broker, Kinds: kinds, Slots: 1, Grace: -1, SpoolDir: dir}
	b.background(func(ctx context.Context) { _ = r.Run(ctx) })
	b.pass(time.Second)
}

func TestARunnerThatDoesNotAnswerIsNamedAndTheTasksOfTheOthersAreListed(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		b.runnerIn("r1", b.TempDir(), kinds(echo))
		client, _ := b.client(always(w))
		task, err := client.Submit(b.Context(), "k", nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := b.wait(task); err != nil {
			b.Fatal(err)
		}
		// ask returns how long the answer took, which runners have runs in it, and which it names as missing.
		ask := func(path string) (took time.Duration, runners, missing []string) {
			b.Helper()
			began := time.Now()
			status, _, text := b.do(w, "GET", path, "", "X-Socket-Meta", client.State().Token)
			took = time.Since(began)
			var answer struct {
				Tasks   []wire.RunInfo
				Missing []string `json:"missing_runners"`
				wire.RunInfo
			}
			if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK {
				b.Fatalf("%s: %d %s, %v", path, status, text, err)
			}
			for _, r := range append(answer.Tasks, answer.RunInfo) {
				if r.Task == task.ID() {
					runners = append(runners, r.Runner)
				}
			}
			return took, runners, answer.Missing
		}
		announce := b.mute("mute")
		for _, step := range []struct {
			offers  []wire.KindOffer
			took    time.Duration
			missing []string
		}{
			{nil, 0, nil}, // nobody has heard of it: all that are known have answered
			{[]wire.KindOffer{{Kind: "other"}}, 500 * time.Millisecond, []string{"mute"}},
			{[]wire.KindOffer{}, 0, nil}, // it stops
		} {
			if step.offers != nil {
				announce(step.offers...)
			}
			for _, path := range []string{"/v1/tasks", "/v1/tasks/" + string(task.ID())} {
				took, runners, missing := ask(path)
				if took != step.took || !slices.Equal(runners, []string{"r1"}) || !slices.Equal(missing, step.missing) {
					b.Errorf("%s after it announced %v: after %v runs of %v, missing %v; want %v, [r1], %v", path, step.offers, took, runners, missing, step.took, step.missing)
				}
			}
		}
	})
}
