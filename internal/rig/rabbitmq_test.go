package rig

import (
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRabbitMQLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r, err := StartRabbitMQ(t.Context(), RabbitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	t.Logf("the first start took %v", time.Since(began))

	began = time.Now()
	out, err := r.Ctl(t.Context(), "list_users")
	if err != nil || !strings.Contains(out, "operator") || strings.Contains(out, "guest") {
		t.Errorf("list_users: %v\n%s", err, out)
	}
	t.Logf("rabbitmqctl took %v", time.Since(began))
	if _, err := r.Ctl(t.Context(), "no_such_command"); err == nil {
		t.Error("an unknown command worked")
	}

	began = time.Now()
	if out, err := r.Eval(t.Context(), `io:format("~p~n", [rabbit:is_running()])`); err != nil || out != "true\n" {
		t.Errorf("eval: %v, %q", err, out)
	}
	t.Logf("erl_call took %v", time.Since(began))
	for _, wrong := range []string{"ok = error", "no syntax (", "no:such_function()"} {
		if out, err := r.Eval(t.Context(), wrong); err == nil {
			t.Errorf("%q worked: %q", wrong, out)
		}
	}
	if err := r.Sync(t.Context()); err != nil {
		t.Error(err)
	}

	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	u, _ := url.Parse(r.URL())
	for _, addr := range []string{u.Host, r.mapper(), r.dist()} {
		if err := dialable(addr); err == nil {
			t.Errorf("%s still listens", addr)
		}
	}
	if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", r.dir, err)
	}
}

func TestRabbitMQSaysWhyItCannotStart(t *testing.T) {
	t.Parallel()
	_, err := StartRabbitMQ(t.Context(), RabbitOptions{Config: "no.such.key = 1"})
	if err == nil || !strings.Contains(err.Error(), "no.such.key") {
		t.Errorf("got %v, want an error that quotes the node", err)
	}
}
