package operators

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve returns the address of a door that has one counter, and tells asked of each request.
func serve(t *testing.T) (addr string, asked <-chan string, stop context.CancelFunc, ended <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "doors"}))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	requests, served := make(chan string, 10), make(chan error, 1)
	handler := Handler(metrics)
	go func() {
		served <- Serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests <- r.URL.Path
			handler.ServeHTTP(w, r)
		}))
	}()
	return "http://" + ln.Addr().String(), requests, cancel, served
}

func TestMetricsAndProfilesAreServedUntilTheEnd(t *testing.T) {
	addr, _, stop, ended := serve(t)
	for path, want := range map[string]string{"/metrics": "doors 0", "/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile"} {
		r, err := http.Get(addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, want %q in\n%s", path, r.StatusCode, want, body)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if r, err := http.Get(addr + "/metrics"); err == nil {
		r.Body.Close()
		t.Error("served after the end")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAProfileThatIsBeingTakenDoesNotHoldUpTheEnd(t *testing.T) {
	addr, asked, stop, ended := serve(t)
	answered := make(chan error, 1)
	go func() {
		r, err := http.Get(addr + "/debug/pprof/trace?seconds=60")
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		answered <- err
	}()
	<-asked
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it has not ended within 30 s")
	}
	if err := <-answered; err == nil {
		t.Error("a trace of 60 s was complete")
	}
	http.DefaultClient.CloseIdleConnections()
}
