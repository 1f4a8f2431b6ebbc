package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/config"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == clientsName { // wsctl bench starts this program so; it must not run the tests
		os.Exit(config.Execute(context.Background(), command(), os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// execute runs the program as main does.
func execute(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = config.Execute(t.Context(), command(), args, &out, &err)
	return code, out.String(), err.String()
}

// serve answers every page of metrics with text, until the test ends.
func serve(t *testing.T, text string) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, text)
	}))
	t.Cleanup(func() {
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s.URL
}

const (
	runnerPage = `# TYPE wscluster_runner_events_total counter
wscluster_runner_events_total{durable="false",outcome="confirmed"} 1000
wscluster_runner_events_total{durable="true",outcome="confirmed"} 60
wscluster_runner_events_total{durable="true",outcome="republished"} 7
`
	workerPage = `# TYPE wscluster_mailbox_events_total counter
wscluster_mailbox_events_total{outcome="delivered"} 50
wscluster_mailbox_events_total{outcome="duplicate"} 4
# TYPE wscluster_events_dead_total counter
wscluster_events_dead_total{reason="expired"} 6
wscluster_events_dead_total{reason="caps"} 0
# TYPE wscluster_mailbox_held_events gauge
wscluster_mailbox_held_events 3
`
)

func TestABalanceIsStruckOverAllProcesses(t *testing.T) {
	worker, other := serve(t, workerPage), serve(t, `# TYPE wscluster_mailbox_events_total counter
wscluster_mailbox_events_total{outcome="delivered"} 1
`)
	code, stdout, stderr := execute(t, "balance", "--settle", "10ms", "--worker", worker, "--worker", other+"/", "--runner", serve(t, runnerPage))
	const want = "\nbalance: published=60 delivered=51 dead=6 held=3 difference=0\n"
	if code != config.ExitOK || !strings.HasSuffix(stdout, want) || !strings.Contains(stdout, "dead, expired") || strings.Contains(stdout, "caps") {
		t.Errorf("exit code %d, %q, %s", code, stderr, stdout)
	}
}

func TestWhatIsUnaccountedForIsExitCode1(t *testing.T) {
	code, stdout, stderr := execute(t, "balance", "--settle", "10ms", "--worker", serve(t, workerPage), "--runner", serve(t, runnerPage))
	if code != config.ExitFailed || !strings.Contains(stdout, "difference=1\n") || !strings.Contains(stderr, "1 events of 60 are unaccounted for") {
		t.Errorf("exit code %d, %q, %s", code, stderr, stdout)
	}
}

func TestABalanceNamesTheProcessThatDoesNotAnswer(t *testing.T) {
	gone := serve(t, "")
	for _, tt := range []struct{ page, want string }{
		{gone + "/nothing", "404 Not Found"},
		{serve(t, "this is no metric"), "text format parsing error"},
	} {
		code, _, stderr := execute(t, "balance", "--settle", "10ms", "--worker", tt.page, "--runner", gone)
		if code != config.ExitFailed || !strings.Contains(stderr, tt.page) || !strings.Contains(stderr, tt.want) {
			t.Errorf("exit code %d, %q, want %q of %s", code, stderr, tt.want, tt.page)
		}
	}
}

func TestABalanceWithoutAddressesIsExitCode2(t *testing.T) {
	for _, args := range [][]string{
		{"balance"},
		{"balance", "--worker", "http://127.0.0.1:1"},
		{"balance", "--worker", "127.0.0.1:1", "--runner", "http://127.0.0.1:1"},
		{"balance", "--worker", "http://127.0.0.1:1", "--runner", "http://127.0.0.1:1", "--settle", "0s"},
	} {
		if code, _, stderr := execute(t, args...); code != config.ExitUsage {
			t.Errorf("%q: exit code %d, %q", args, code, stderr)
		}
	}
}

func TestABalanceWaitsForRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		began := time.Now()
		got, err := rest(t.Context(), time.Second, func(context.Context) (balance, error) {
			return balance{published: float64(min(reads.Add(1), 9))}, nil // 9 after two seconds
		})
		if err != nil || got.published != 9 || time.Since(began) != 3*time.Second {
			t.Errorf("%v, %v after %v", got.published, err, time.Since(began))
		}
		_, err = rest(t.Context(), time.Second, func(context.Context) (balance, error) {
			return balance{published: float64(reads.Add(1))}, nil
		})
		if err == nil || !strings.Contains(err.Error(), "did not come to rest within 12s") {
			t.Errorf("got %v", err)
		}
		broken := errors.New("broken")
		if _, err := rest(t.Context(), time.Second, func(context.Context) (balance, error) { return balance{}, broken }); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}
