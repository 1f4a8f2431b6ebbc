package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestAnAMQPClientPublishesToChannels runs examples/python/publish.py as it is shown, as a user with no more than the
// rights that the guide gives.
func TestAnAMQPClientPublishesToChannels(t *testing.T) {
	c := town(t)
	user, err := url.Parse(c.Rabbit.URLFor("prices"))
	c.must(err)
	password, _ := user.User.Password()
	_, err = c.Rabbit.Eval(t.Context(), `rabbit_auth_backend_internal:put_user(#{name => <<"prices">>, password => <<"`+password+`">>, tags => <<"">>}, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"prices">>, <<"/">>, <<"^$">>, <<"^channels$">>, <<"^$">>, <<"test">>),
		rabbit_auth_backend_internal:set_topic_permissions(<<"prices">>, <<"/">>, <<"channels">>, <<"^prices(\\.|$)">>, <<"^$">>, <<"test">>)`)
	c.must(err)
	posts := c.watch("prices", "prices.gold")
	run := exec.CommandContext(t.Context(), "/usr/bin/python3", filepath.Join(root, "examples/python/publish.py"))
	run.Env = append(os.Environ(), "AMQP_URL="+user.String())
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	for range 2 {
		p := next(t, posts)
		post, err := wire.DecodePost(p.Channel, p.Type, p.Headers, p.Body, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s %s", post.Channel, post.Name, post.Key, post.Body))
	}
	want := []string{`prices price gold {"metal": "gold", "eur": 2871.5}`, `prices.gold price gold {"metal": "gold", "eur": 2871.5}`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestARunnerSaysOnChannelsHowItsTasksStand does so over RabbitMQ, with the rights of its user.
func TestARunnerSaysOnChannelsHowItsTasksStand(t *testing.T) {
	c := town(t)
	posts := c.watch("workflows")
	cl, _ := client(t, c.Workers[0].Addr)
	task := submit(t, cl, "countdown", map[string]any{"lines": 4, "interval_ms": 10, "steps": 2})
	_, err := task.Wait(t.Context())
	c.must(err)
	seen := map[string]bool{}
	for !seen["queued"] || !seen["running"] || !seen["succeeded"] {
		p := next(t, posts)
		post, err := wire.DecodePost(p.Channel, p.Type, p.Headers, p.Body, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if post.Key == string(task.ID()) {
			var w wire.Workflow
			c.must(json.Unmarshal(post.Body, &w))
			seen[string(w.Status)] = true
			if w.Status == wire.WorkflowSucceeded && (w.CurrentStep != 2 || w.TotalSteps != 2) {
				t.Errorf("the end is %+v, want both steps", w)
			}
		}
	}
}

// watch gets what is published to the channels, as a worker of its own.
func (c *cluster) watch(channels ...wire.Channel) <-chan broker.Post {
	c.t.Helper()
	rabbit, err := amqp.New(amqp.Options{URLs: []string{c.Rabbit.URLFor("worker")}})
	c.must(err)
	link, err := rabbit.Join(c.t.Context(), broker.Worker("e2e-w9"))
	c.must(err)
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = link.Close(ctx)
	})
	sub, err := link.OpenChannels(c.t.Context(), "e2e-w9")
	c.must(err)
	c.must(sub.Bind(c.t.Context(), channels...))
	return sub.Posts()
}

func next(t *testing.T, posts <-chan broker.Post) broker.Post {
	t.Helper()
	select {
	case p, ok := <-posts:
		if !ok {
			t.Fatal("the link is gone")
		}
		return p
	case <-time.After(20 * time.Second):
		t.Fatal("no post within 20 s")
		return broker.Post{}
	}
}
