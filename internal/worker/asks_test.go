package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

var grantKeys = socketmeta.RandomKeys()

// asking has a worker know the keys of grants.
func asking(o *worker.Options) { o.Grants, _ = auth.NewGrants(grantKeys, nil) }

func grant(t *testing.T, may bool) string {
	t.Helper()
	s, err := auth.SignGrant(grantKeys, auth.Grant{Ask: may, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + s
}

// asked is the answer to a backend.
type asked struct {
	status int
	header http.Header
	text   string
}

// askClient posts a request to a client, as a backend does, and returns at once.
func askClient(t *testing.T, w *running, client, key, body string, change ...func(*http.Request)) <-chan asked {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+"/v1/clients/"+client+"/requests", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", grant(t, true))
	r.Header.Set("Idempotency-Key", key)
	for _, f := range change {
		f(r)
	}
	done := make(chan asked, 1)
	go func() {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			done <- asked{text: err.Error()}
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		done <- asked{resp.StatusCode, resp.Header, string(text)}
	}()
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return done
}

func (a asked) expect(t *testing.T, status int, what string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.text, what) {
		t.Errorf("the backend got %d %s, want %d and %q", a.status, a.text, status, what)
	}
}

const approve = `{"name":"approve","body":{"amount":12}}`

// answering is a client that answers with how often it has been asked.
func answering(n *atomic.Int32) func(*wsclient.Options) {
	return func(o *wsclient.Options) {
		o.OnRequest = func(_ context.Context, r wire.Request) (any, error) {
			if r.Name == "fail" {
				return nil, errors.New("the user said no")
			}
			return fmt.Sprintf("%s %s %d", r.Name, r.Body, n.Add(1)), nil
		}
	}
}

func TestABackendAsksAClientOverAnyWorker(t *testing.T) {
	c := newCluster(t)
	a, b := c.worker("i1-w1", asking), c.worker("i1-w2", asking)
	var n atomic.Int32
	client, _ := c.client(b, answering(&n))
	id := client.Meta().Client.String()
	const first = `{"body":"approve {\"amount\":12} 1"}`
	(<-askClient(t, a, id, "k", approve)).expect(t, http.StatusOK, first)
	(<-askClient(t, a, id, "k", approve)).expect(t, http.StatusOK, first)
	(<-askClient(t, b, id, "k", approve)).expect(t, http.StatusOK, first) // the client remembers the key
	(<-askClient(t, b, id, "k2", approve)).expect(t, http.StatusOK, `12} 2"`)
	(<-askClient(t, a, id, "k", `{"name":"approve"}`)).expect(t, http.StatusConflict, `"conflict"`)
	failed := <-askClient(t, a, id, "k3", `{"name":"fail"}`)
	failed.expect(t, http.StatusBadGateway, `"the user said no"`)
	failed.expect(t, http.StatusBadGateway, `"retryable":false`)
	if n.Load() != 2 {
		t.Errorf("the client did %d things, want one for each key", n.Load())
	}
	_, metrics := get(t, "http://"+a.internal+"/metrics")
	for _, line := range []string{`wscluster_client_requests_total{outcome="answered"} 2`, `outcome="conflict"} 1`, `outcome="failed"} 1`, "wscluster_client_requests_open 0"} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %q", line)
		}
	}
}

// Asked at one worker, with the client at a second, and replied to by HTTP at a third.
func TestAReplyByHTTPAtAThirdWorkerComesBackToTheFirst(t *testing.T) {
	c := newCluster(t)
	w := []*running{c.worker("i1-w1", asking), c.worker("i1-w2"), c.worker("i1-w3")}
	s := newSocket(t, w[1].addr)
	meta := s.hello("")
	answer := askClient(t, w[0], meta.Client.String(), "k", approve)
	reply := wire.EncodeClient(&wire.Reply{Request: s.request().ID, Body: json.RawMessage("7")})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w[2].addr+"/v1/messages", bytes.NewReader(reply))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Socket-Meta", meta.Token)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("the reply is answered with %d, want 202", resp.StatusCode)
	}
	(<-answer).expect(t, http.StatusOK, `{"body":7}`)
}

func TestAReplyFromTheWorkerThatTheClientMovedToComesBackToTheFirst(t *testing.T) {
	c := newCluster(t)
	w := []*running{c.worker("i1-w1", asking), c.worker("i1-w2"), c.worker("i1-w3")}
	s := newSocket(t, w[1].addr)
	meta := s.hello("")
	answer := askClient(t, w[0], meta.Client.String(), "k", approve)
	request := s.request()
	if request.Key != "k" || request.Name != "approve" || string(request.Body) != `{"amount":12}` || request.TimeoutMS > 30_000 || request.TimeoutMS < 29_000 {
		t.Errorf("the client is sent %+v", request)
	}

	stranger := newSocket(t, w[2].addr)
	stranger.hello("")
	stranger.reply(request.ID, `"mine"`)
	near := newSocket(t, w[0].addr)
	near.hello("")
	near.reply(request.ID, `"mine"`)
	if _, p := near.read(); object(t, p)["code"] != "forbidden" || object(t, p)["id"] != "r1" {
		t.Errorf("the reply of another client is answered with %s, want forbidden", p)
	}
	near.reply("i1-w1", "1")
	if _, p := near.read(); object(t, p)["code"] != "bad_frame" {
		t.Errorf("a reply to no request is answered with %s, want bad_frame", p)
	}

	s = newSocket(t, w[2].addr)
	s.hello(meta.Token)
	if again := s.request(); again.ID != request.ID || again.Key != "k" { // it was not answered
		t.Errorf("after the move the client is asked %+v, want the same", again)
	}
	s.reply(request.ID, `{"approved":true}`)
	(<-answer).expect(t, http.StatusOK, `{"body":{"approved":true}}`)
	s.reply(request.ID, "2") // too late, and nobody minds
	s.send(text, `{"type":"ping"}`)
	if _, p := s.read(); object(t, p)["type"] != "pong" {
		t.Errorf("a late reply is answered with %s", p)
	}
}

// hello says hello, and confirms a session that is resumed.
func (s *socket) hello(token string) (m wire.SocketMeta) {
	s.t.Helper()
	s.send(text, string(wire.EncodeClient(&wire.Hello{Token: token})))
	_, p := s.read()
	if err := json.Unmarshal(p, &m); err != nil {
		s.t.Fatal(err)
	}
	if m.Resumed {
		s.send(text, string(wire.EncodeClient(&wire.Confirm{Epoch: m.Epoch})))
	}
	return m
}

// request reads a request.
func (s *socket) request() *wire.Request {
	s.t.Helper()
	_, p := s.read()
	m, err := wire.DecodeServer(p)
	r, ok := m.(*wire.Request)
	if !ok {
		s.t.Fatalf("got %s, %v, want a request", p, err)
	}
	return r
}

func (s *socket) reply(request, body string) {
	s.t.Helper()
	s.send(text, string(wire.EncodeClient(&wire.Reply{ID: "r1", Request: request, Body: json.RawMessage(body)})))
}

func TestAClientThatIsAwayIsAskedWhenItComesBackWhereverItComes(t *testing.T) {
	c := newCluster(t)
	w := []*running{c.worker("i1-w1", asking), c.worker("i1-w2"), c.worker("i1-w3")}
	var n atomic.Int32
	client, stop := c.client(w[1], answering(&n))
	for i, at := range []int{1, 2, 0, 0, 1} {
		stop()
		away(t, w...)
		answer := askClient(t, w[0], client.Meta().Client.String(), fmt.Sprint(i), approve)
		await(t, func() error { return gauge(t, w[0], "wscluster_client_requests_open 1") })
		began := time.Now()
		client, stop = c.client(w[at], answering(&n), func(o *wsclient.Options) { o.State = client.State() })
		(<-answer).expect(t, http.StatusOK, "approve")
		if took := time.Since(began); took > 700*time.Millisecond {
			t.Errorf("asked at %s after %v: it waited to be sent again", w[at].addr, took)
		}
	}
}

// away waits until no worker has a client.
func away(t *testing.T, workers ...*running) {
	t.Helper()
	for _, w := range workers {
		await(t, func() error { return gauge(t, w, `wscluster_sessions{state="attached"} 0`) })
	}
}

func gauge(t *testing.T, w *running, line string) error {
	t.Helper()
	if _, metrics := get(t, "http://"+w.internal+"/metrics"); !strings.Contains(metrics, line+"\n") {
		return fmt.Errorf("the metrics lack %q", line)
	}
	return nil
}

func TestAQuestionOutlivesTheLinksOfBothWorkers(t *testing.T) {
	c := newCluster(t)
	a, b := c.worker("i1-w1", asking), c.worker("i1-w2")
	var n atomic.Int32
	client, _ := c.client(b, answering(&n))
	c.broker.Down(true)
	await(t, func() error {
		if a.Ready() == nil || b.Ready() == nil {
			return errors.New("a worker has not noticed that the broker is gone")
		}
		return nil
	})
	id := client.Meta().Client.String()
	answer := askClient(t, a, id, "k", approve)
	await(t, func() error { return gauge(t, a, "wscluster_client_requests_open 1") })
	c.broker.Down(false)
	(<-answer).expect(t, http.StatusOK, "approve")

	for _, cut := range []socketmeta.ServerID{"i1-w1", "i1-w2"} {
		began := time.Now()
		c.broker.Cut(broker.Worker(cut))
		answer := askClient(t, a, id, string(cut), approve)
		for time.Since(began) < 1200*time.Millisecond { // until it has been sent again, in vain
			c.broker.Cut(broker.Worker(cut))
			time.Sleep(time.Millisecond)
		}
		(<-answer).expect(t, http.StatusOK, "approve")
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("answered after %v: it was not asked again with the new link of %s", took, cut)
		}
	}
}

func TestAQuestionEndsWithItsDeadlineOrWithItsWorker(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", asking)
	id := socketmeta.NewClientID().String()
	late := <-askClient(t, w, id, "k", `{"name":"approve","timeout_ms":20}`)
	late.expect(t, http.StatusGatewayTimeout, `"no_answer"`)
	if got := late.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("the content type is %q", got)
	}
	answer := askClient(t, w, id, "k", approve)
	await(t, func() error { return gauge(t, w, "wscluster_client_requests_open 1") })
	w.stop()
	stopped := <-answer
	stopped.expect(t, http.StatusServiceUnavailable, `"unavailable"`)
	if stopped.header.Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
}

func TestRequestsThatCannotBeAskedAreRefused(t *testing.T) {
	c := newCluster(t)
	w, closed := c.worker("i1-w1", asking), c.worker("i1-w2")
	id := socketmeta.NewClientID().String()
	big := func(n int) string {
		const frame = `{"name":"n","timeout_ms":1,"body":"%s"}`
		return fmt.Sprintf(frame, strings.Repeat("x", n-len(frame)+len("%s")))
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, x := range map[string]struct {
		key, body string
		change    func(*http.Request)
		status    int
		code      wire.Code
	}{
		"no grant":          {"k", approve, header("Authorization", ""), 401, "unauthorized"},
		"another grant":     {"k", approve, header("Authorization", grant(t, false)), 403, "forbidden"},
		"no key":            {"", approve, nil, 400, "bad_frame"},
		"a long key":        {strings.Repeat("k", wire.MaxKey+1), approve, nil, 400, "bad_frame"},
		"the longest key":   {strings.Repeat("k", wire.MaxKey), `{"name":"n","timeout_ms":1}`, nil, 504, "no_answer"},
		"no client":         {"k", approve, func(r *http.Request) { r.URL.Path = "/v1/clients/me/requests" }, 400, "bad_frame"},
		"not JSON":          {"k", `{"name":`, nil, 400, "bad_frame"},
		"not UTF-8":         {"k", "{\"name\":\"n\",\"body\":\"\xff\"}", nil, 400, "bad_frame"},
		"no name":           {"k", `{"body":1}`, nil, 400, "bad_frame"},
		"an odd name":       {"k", `{"name":"a b"}`, nil, 400, "bad_frame"},
		"no time":           {"k", `{"name":"n","timeout_ms":0}`, nil, 400, "bad_frame"},
		"too much time":     {"k", `{"name":"n","timeout_ms":300001}`, nil, 400, "bad_frame"},
		"the largest":       {"k1", big(wire.MaxClientFrame), nil, 504, "no_answer"},
		"a larger one":      {"k", big(wire.MaxClientFrame + 1), nil, 413, "frame_too_large"},
		"much larger still": {"k", big(1 << 20), nil, 413, "frame_too_large"},
	} {
		if x.change == nil {
			x.change = func(*http.Request) {}
		}
		got := <-askClient(t, w, id, x.key, x.body, x.change)
		if got.status != x.status || !strings.Contains(got.text, `"code":"`+string(x.code)+`"`) {
			t.Errorf("%s: %d %s, want %d %s", name, got.status, got.text, x.status, x.code)
		}
		if challenge := got.header.Get("WWW-Authenticate"); (challenge != "") != (got.status == 401) {
			t.Errorf("%s: WWW-Authenticate is %q", name, challenge)
		}
	}
	(<-askClient(t, closed, id, "k", approve)).expect(t, http.StatusUnauthorized, "grant keys")
}
