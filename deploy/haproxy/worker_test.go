package haproxy_test

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// worker stands for a wsworker: it upgrades /v1/ws to an echo, says its server ID in X-Worker on
// every response, and can be told to drain, hang, die and return.
type worker struct {
	id   string
	addr string // host:port, the same after a return

	readyz   atomic.Int32 // status of /readyz
	draining atomic.Bool  // answer upgrades and posts with 503
	hung     atomic.Bool  // take requests and never answer
	left     atomic.Int32 // streams whose client has gone

	mu      sync.Mutex
	srv     *http.Server // nil while dead
	served  sync.WaitGroup
	sockets map[net.Conn]struct{}
	got     []*http.Request // every request that came through the proxy, headers only
}

func startWorker(t *testing.T, id string) *worker {
	t.Helper()
	w := &worker{id: id, addr: "127.0.0.1:0", sockets: make(map[net.Conn]struct{})}
	w.readyz.Store(http.StatusOK)
	w.start(t)
	t.Cleanup(w.kill)
	return w
}

// start makes w serve, again on the same address if it served before.
func (w *worker) start(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", w.addr)
	if err != nil {
		t.Fatalf("worker %s: %v", w.id, err)
	}
	srv := &http.Server{Handler: w}
	w.mu.Lock()
	w.addr, w.srv = ln.Addr().String(), srv
	w.mu.Unlock()
	w.served.Go(func() { _ = srv.Serve(ln) }) // it always returns ErrServerClosed
}

// kill ends w as SIGKILL would: no listener, every socket cut. A second kill does nothing.
func (w *worker) kill() {
	w.mu.Lock()
	srv := w.srv
	w.srv = nil
	w.mu.Unlock()
	if srv == nil {
		return
	}
	_ = srv.Close()
	w.mu.Lock()
	for c := range w.sockets {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.served.Wait()
}

// requests returns what came through the proxy; its own health checks are left out.
func (w *worker) requests() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got
}

func (w *worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if w.hung.Load() {
		<-r.Context().Done()
		return
	}
	rw.Header().Set("X-Worker", w.id)
	if r.URL.Path == "/readyz" && r.Header.Get("X-Forwarded-For") == "" {
		rw.WriteHeader(int(w.readyz.Load()))
		return
	}
	w.mu.Lock()
	w.got = append(w.got, r)
	w.mu.Unlock()
	switch upgrade := r.Header.Get("Upgrade") != ""; {
	case w.draining.Load() && (upgrade || r.Method == http.MethodPost):
		rw.WriteHeader(http.StatusServiceUnavailable)
	case upgrade:
		w.echo(rw, r.Header.Get("Sec-WebSocket-Key"))
	case r.URL.Path == "/v1/events":
		w.stream(rw, r)
	default:
		fmt.Fprintln(rw, w.id)
	}
}

// stream is an event stream with so many comments as the query says, one each tenth of a second. It is then
// silent until the client is gone.
func (w *worker) stream(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(rw)
	comments, _ := strconv.Atoi(r.FormValue("comments"))
	for range max(1, comments) {
		fmt.Fprint(rw, ":\n\n")
		_ = flush.Flush() // who is gone is known by the context
		// This waits for nothing: it is the pace at which the stream writes.
		time.Sleep(100 * time.Millisecond)
	}
	<-r.Context().Done()
	w.left.Add(1)
}

// echo completes the handshake (RFC 6455 section 4.2.2: HAProxy checks the accept value) and sends
// back every byte, until either side closes.
func (w *worker) echo(rw http.ResponseWriter, key string) {
	conn, buf, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		rw.WriteHeader(http.StatusInternalServerError)
		return
	}
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	w.mu.Lock()
	w.sockets[conn] = struct{}{}
	w.mu.Unlock()
	w.served.Go(func() {
		defer func() {
			_ = conn.Close()
			w.mu.Lock()
			delete(w.sockets, conn)
			w.mu.Unlock()
		}()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nX-Worker: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(accept[:]), w.id)
		_, _ = io.Copy(conn, buf)
	})
}
