package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// TestARunnerInAnotherLanguageBringsItsTasksHome runs the examples as they are shown, as the broker's user
// runner, against the whole cluster: with numbers, and as the source design has it, with nothing but
// the client's ID in the body.
func TestARunnerInAnotherLanguageBringsItsTasksHome(t *testing.T) {
	if _, err := os.Stat(filepath.Join(root, "examples/node/node_modules")); err != nil {
		t.Fatalf("%v: make npm installs what the runner in Node needs", err)
	}
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
				progress := 0
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for e := range task.Events(ctx) {
					var u wire.Update
					if err := json.Unmarshal(e.Body, &u); err != nil {
						t.Error(err)
					}
					switch e.Type {
					case wire.EventStep:
						steps = append(steps, u.CurrentStep)
					case wire.EventProgress:
						progress++
					}
					if plain == "" {
						keepsToItsSchema(t, "event/"+string(e.Type), e.Body)
					} else {
						keepsToItsSchema(t, "broker/plain", e.Body)
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
				if !slices.Equal(steps, want) || (progress > 0) != (plain == "") {
					t.Errorf("told of steps %v and %d times of progress, want steps %v", steps, progress, want)
				}
				c.isEmpty(broker.TasksQueue("count", wire.Normal)) // it has acknowledged the task: else that would come again
			})
		}
	}
	c.isQuietBut(0)
}

// TestTheRunnerOfTheGuideBringsItsTasksHome runs examples/go as it is shown.
func TestTheRunnerOfTheGuideBringsItsTasksHome(t *testing.T) {
	c := town(t)
	program := filepath.Join(t.TempDir(), "squares")
	build := exec.Command("go", "build", "-o", program, "./examples/go")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p, err := rig.Start(rig.Program{Path: program, Env: append(os.Environ(), "AMQP_URL="+c.Rabbit.URLFor("runner"))})
	c.must(err)
	defer p.Kill()
	cl, _ := client(t, c.Workers[0].Addr)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var task *wsclient.Task
	await(t, 20*time.Second, func() (err error) {
		task, err = cl.Submit(ctx, "squares", map[string]int{"upto": 4})
		return err
	})
	var types []wire.EventType
	for e := range task.Events(ctx) {
		keepsToItsSchema(t, "event/"+string(e.Type), e.Body)
		if e.Durable {
			types = append(types, e.Type)
		}
	}
	want := []wire.EventType{wire.EventStarted, wire.EventStep, wire.EventStep, wire.EventStep, wire.EventStep, wire.EventResult} // its lines are copies
	if result, err := task.Wait(ctx); err != nil || string(result) != `{"sum":14}` || !slices.Equal(types, want) {
		t.Errorf("got %s, %v after %v, want %v", result, err, types, want)
	}
}

// keepsToItsSchema checks a body by a file of docs/schemas.
func keepsToItsSchema(t *testing.T, name string, body []byte) {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join(root, "docs/schemas", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = s.Validate(v)
	}
	if err != nil {
		t.Errorf("%s: %s: %v", name, body, err)
	}
}
