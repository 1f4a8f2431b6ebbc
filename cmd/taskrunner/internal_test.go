package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/taskrunner"
)

// taken is an address where somebody listens until the test ends.
func taken(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

func TestTwoRunnersShareOneMachine(t *testing.T) {
	address := taken(t)
	ln, err := listen(address + "+")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ln.Addr().String() == address {
		t.Errorf("both listen at %s", address)
	}
	if defaults().InternalListen != "127.0.0.1:9201+" {
		t.Errorf("the default is %q", defaults().InternalListen)
	}
}

func TestAnAddressThatWasAskedForMustBeFree(t *testing.T) {
	address := taken(t)
	code, stderr := execute(t.Context(), configured(t, "internal_listen: "+address+"\nwork_dir: "+t.TempDir()+"\n")...)
	if code != config.ExitConfig || !strings.Contains(stderr, "internal_listen: listen tcp "+address) {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestARunnerNeedsNoOperators(t *testing.T) {
	for _, address := range []string{"", "192.0.2.1:9201+"} { // none, and one that is not ours (RFC 5737)
		stop, err := newInternal("r1", nil).start(t.Context(), address, zap.NewNop())
		if err != nil {
			t.Fatalf("%q: %v", address, err)
		}
		stop()
	}
}

func TestOperatorsSeeHealthMetricsAndProfiles(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	i := newInternal("r1", ctx.Done())
	taskrunner.NewMetrics(i.metrics)
	srv := httptest.NewServer(i.handler())
	defer srv.Close()
	want := func(path string, status int, text string) {
		t.Helper()
		r, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != status || !strings.Contains(string(body), text) {
			t.Errorf("%s: %d %.300s (%v), want %d with %q", path, r.StatusCode, body, err, status, text)
		}
	}
	want("/livez", http.StatusOK, `"name":"r1"`)
	want("/readyz", http.StatusNotFound, "no link to the broker yet")
	i.heard(broker.State{Phase: broker.Down, Err: errors.New("refused")})
	want("/readyz", http.StatusNotFound, "no link to the broker: refused")
	i.heard(broker.State{Phase: broker.Up})
	want("/readyz", http.StatusOK, `"ready":true`)
	cancel()
	want("/readyz", http.StatusNotFound, "the runner ends")
	want("/livez", http.StatusOK, "")
	want("/metrics", http.StatusOK, `wscluster_runner_events_total{durable="true",outcome="confirmed"} 0`)
	want("/metrics", http.StatusOK, "go_goroutines")
	want("/debug/pprof/", http.StatusOK, "goroutine")
}
