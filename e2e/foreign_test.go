package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// TestARunnerInAnotherLanguageBringsItsTasksHome runs the examples as they are shown, as the broker's user
// runner, against the whole cluster: with numbers, and as the source design has it, with nothing but
// the client's ID in the body.
func TestARunnerInAnotherLanguageBringsItsTasksHome(t *testing.T) {
	c := town(t)
	cl, _ := client(t, c.Workers[0].Addr)
	for _, example := range []struct{ name, program, script string }{
		{"python", "/usr/bin/python3", "examples/python/runner.py"}, {"node", "node", "examples/node/runner.mjs"},
	} {
		for _, plain := range []string{"", "1"} {
			name := example.name
			if plain != "" {
				name += " plain"
			}
			t.Run(name, func(t *testing.T) {
				p, err := rig.Start(rig.Program{
					Path: example.program, Args: []string{filepath.Join(root, example.script)},
					Env: append(os.Environ(), "AMQP_URL="+c.Rabbit.URLFor("runner"), "PLAIN="+plain),
				})
				c.must(err)
				defer p.Kill()
				var task *wsclient.Task
				await(t, 20*time.Second, func() (err error) { // the kind is known once a runner has offered it
					task, err = cl.Submit(t.Context(), "count", map[string]int{"to": 5})
					return err
				})
				var steps []uint32
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for e := range task.Events(ctx) {
					var u wire.Update
					if err := json.Unmarshal(e.Body, &u); err != nil {
						t.Error(err)
					}
					if e.Type == wire.EventStep {
						steps = append(steps, u.CurrentStep)
					}
				}
				result, err := task.Wait(ctx)
				if want := `{"counted":5}`; err != nil || string(bytes.ReplaceAll(result, []byte(" "), nil)) != want {
					t.Errorf("got %s, %v, want %s", result, err, want)
				}
				want := []uint32{1, 2, 3, 4, 5}
				if plain != "" {
					want = nil
				}
				if !slices.Equal(steps, want) {
					t.Errorf("told of steps %v, want %v", steps, want)
				}
				c.isEmpty("tasks.count") // it has acknowledged the task: else that would come again
			})
		}
	}
	c.isQuietBut(0)
}
