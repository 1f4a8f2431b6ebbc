package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

func TestTheUpdatesOfAWorkflowAreASocketOfTheirOwn(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "workflow.*"))
	p := c.poster("p")
	update := func(id, status string) string {
		b := fmt.Sprintf(`{"workflow_id":%q,"status":%q}`, id, status)
		p.post(wire.WorkflowChannel(wire.TaskID(id)), id, b)
		return b
	}
	first := dialSocket(t, w.addr, "/api/workflows/t1/updates?x=1", "")
	if first.status != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", first.status)
	}
	first.send(text, `{"type":"hello"}`) // passed over, as all that it says
	first.send(binaryFrame, "\x00")
	update("t2", "running")
	want := `{"workflow_id":"t1","status":"running"}`
	await(t, func() error { return p.stored("workflow.t1", "t1", want) })
	if op, got := first.read(); op != text || string(got) != want {
		t.Errorf("got %d %s, want %s", op, got, want)
	}

	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	second := shake(t, conn, "/api/workflows/t1/updates", "Sec-WebSocket-Protocol: vapora.v1\r\n")
	if _, got := second.read(); string(got) != want {
		t.Errorf("the snapshot is %s, want %s", got, want)
	}
	stream := events(t, w, "/api/workflows/t1/updates")
	if got := <-stream; got != want {
		t.Errorf("the snapshot of a stream is %s, want %s", got, want)
	}
	want = update("t1", "succeeded")
	if got := <-stream; got != want {
		t.Errorf("a stream gets %s, want %s", got, want)
	}
	for _, s := range []*socket{first, second} {
		if _, got := s.read(); string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	first.send(ping, "x")
	if op, _ := first.read(); op != pong {
		t.Errorf("a ping was answered with %d", op)
	}
	go w.stop()
	for _, s := range []*socket{first, second} {
		if op, p := s.read(); op != closing || int(p[0])<<8|int(p[1]) != wire.CloseServiceRestart {
			t.Errorf("when the worker stops it says %d %q, want a close with 1012", op, p)
		}
	}
	if got := dialSocket(t, c.worker("i1-w2").addr, "/api/workflows/..%2f/updates", "").status; got != http.StatusNotFound {
		t.Errorf("a workflow with a bad name: %d, want 404", got)
	}
}

// events opens an event stream and gives on what comes, until it or the test ends.
func events(t *testing.T, w *running, path string) <-chan string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("%s: %s %s", path, answer.Status, got)
	}
	all := make(chan string, 16)
	done := make(chan struct{})
	t.Cleanup(func() { answer.Body.Close(); <-done })
	go func() {
		defer close(done)
		_ = readEvents(answer.Body, func(p []byte) { all <- string(p) }, func() {})
	}()
	return all
}

// counted counts what goes over a connection, both ways.
type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.Conn.Write(p)
}

// TestAPushedUpdateTakesFewerBytesThanOneThatIsAskedFor compares an update with a question whose answer is that
// there is nothing, on a connection that is open already: the least that looking again can cost.
func TestAPushedUpdateTakesFewerBytesThanOneThatIsAskedFor(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "workflow.*"))
	var bytes atomic.Int64
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return counted{conn, &bytes}, err
	}
	conn, err := dial(t.Context(), "tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	follower := shake(t, conn, "/api/workflows/t1/updates", "")
	p := c.poster("p")
	await(t, func() error { return p.stored("workflow.t1", "t1", "{}") })
	follower.read()
	before := bytes.Load()
	update, err := json.Marshal(wire.Workflow{WorkflowID: "t1", Kind: "go-build", Status: wire.WorkflowRunning, CurrentStep: 1, TotalSteps: 4, Message: "step 1 of 4: fetch"})
	if err != nil {
		t.Fatal(err)
	}
	p.post("workflow.t1", "t1", string(update))
	follower.read()
	pushed := bytes.Load() - before

	met := make(chan string, 1)
	c.client(w, func(o *wsclient.Options) { o.OnMeta = func(m wire.SocketMeta) { met <- m.Token } })
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.addr+"/v1/tasks", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Socket-Meta", <-met)
	transport := &http.Transport{DialContext: dial, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	for range 2 { // the first opens the connection
		before = bytes.Load()
		answer, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s %s %v", answer.Status, body, err)
		}
		answer.Body.Close()
	}
	asked := bytes.Load() - before
	t.Logf("an update is %d bytes, a question without news %d", pushed, asked)
	if pushed >= asked {
		t.Errorf("an update takes %d bytes, a question without news %d: want fewer", pushed, asked)
	}
}
