package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// byes is the code of the bye that is the last of what came, and how many messages came before it.
func byes(s *bareSocket) (code, before int) {
	s.t.Helper()
	ms, _ := s.all()
	if len(ms) == 0 {
		return 0, 0
	}
	bye, ok := ms[len(ms)-1].(*wire.Bye)
	if !ok {
		return 0, len(ms)
	}
	return bye.Code, len(ms) - 1
}

func TestAStreamIsASessionLikeASockets(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		for name, open := range map[string]func() *bareSocket{
			"GET":  func() *bareSocket { return b.stream(w, nil) },
			"POST": func() *bareSocket { return b.stream(w, &wire.Hello{}) },
		} {
			s := open()
			m := s.meta()
			if m.Resumed || m.Server != "i1-w1" {
				t.Errorf("%s: got %+v, want a new session", name, m)
			}
			if status, code := b.post(w, m.Token, &wire.Ping{ID: "1"}); status != http.StatusAccepted {
				t.Errorf("%s: a ping was answered with %d %s", name, status, code)
			}
			if ms, _ := s.all(); len(ms) != 1 || ms[0].(*wire.Pong).ID != "1" {
				t.Errorf("%s: got %v, want the pong", name, ms)
			}
			b.publish(m.Client, "i1-w1", 1, 3)
			if ms, _ := s.all(); len(ms) != 3 {
				t.Errorf("%s: got %v, want three events", name, ms)
			}
			b.post(w, m.Token, &wire.Ack{Tasks: []wire.Position{{Task: "t", Attempt: 1, Run: run, Next: 4}}})
			if n := b.left("i1-w1"); n != 0 {
				t.Errorf("%s: after the ack %d events are left", name, n)
			}
		}
	})
}

// TestOneListenerForASession resumes on every transport what another one has, on the same worker and
// on another one. The first is told why it ends.
func TestOneListenerForASession(t *testing.T) {
	socket := func(b *bubble, w *lodger, h *wire.Hello) (*bareSocket, func(string, wire.ClientMessage)) {
		s := b.bare(w, "")
		s.say(h)
		return s, func(_ string, m wire.ClientMessage) { s.say(m) }
	}
	stream := func(b *bubble, w *lodger, h *wire.Hello) (*bareSocket, func(string, wire.ClientMessage)) {
		return b.stream(w, h), func(token string, m wire.ClientMessage) {
			if status, code := b.post(w, token, m); status != http.StatusAccepted {
				b.Errorf("%T was answered with %d %s", m, status, code)
			}
		}
	}
	byHeader := func(b *bubble, w *lodger, h *wire.Hello) (*bareSocket, func(string, wire.ClientMessage)) {
		_, say := stream(b, w, &wire.Hello{})
		return b.stream(w, nil, "X-Socket-Meta", h.Token), say
	}
	type opener func(*bubble, *lodger, *wire.Hello) (*bareSocket, func(string, wire.ClientMessage))
	for name, way := range map[string][2]opener{
		"socket to stream": {socket, stream}, "stream to socket": {stream, socket}, "stream to stream": {stream, stream}, "socket to GET": {socket, byHeader},
	} {
		for _, elsewhere := range []bool{false, true} {
			inBubble(t, func(b *bubble) {
				from, code := b.worker("i1-w1"), wire.CloseReplaced
				to := from
				if elsewhere {
					to, code = b.worker("i1-w2"), wire.CloseMoved
				}
				first, _ := way[0](b, from, &wire.Hello{})
				old := first.meta()
				b.publish(old.Client, "i1-w1", 1, 2)
				if ms, _ := first.all(); len(ms) != 2 {
					t.Fatalf("%s: got %v, want two events", name, ms)
				}
				second, say := way[1](b, to, &wire.Hello{Token: old.Token})
				m := second.meta()
				if !m.Resumed || m.Epoch <= old.Epoch {
					t.Fatalf("%s: got %+v, want the session in a higher epoch", name, m)
				}
				if code, n := byes(first); code != 0 || n != 0 {
					t.Errorf("%s: before the confirm the first was told %d", name, code)
				}
				say(m.Token, &wire.Confirm{Epoch: m.Epoch})
				b.pass(time.Second)
				if got, _ := byes(first); got != code {
					t.Errorf("%s: the first was told %d, want %d", name, got, code)
				}
				if _, open := <-first.heard; open {
					t.Errorf("%s: the first is still open", name)
				}
				if ms, _ := second.all(); len(ms) != 2 {
					t.Errorf("%s: got %v, want the two events again", name, ms)
				}
				if status, refusal := b.post(to, old.Token, &wire.Ping{}); status != http.StatusConflict || refusal != wire.CodeNotAttached {
					t.Errorf("%s: the old page spoke for the session: %d %s", name, status, refusal)
				}
			})
		}
	}
}

func TestAStreamThatIsNotConfirmedIsToldAndClosed(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		token := b.stream(w, &wire.Hello{}).meta().Token
		s := b.stream(w, &wire.Hello{Token: token})
		m := s.meta()
		if status, _ := b.post(w, m.Token, &wire.Submit{Task: "t", Kind: "k"}); status != http.StatusAccepted || s.refused() != wire.CodeUnexpected {
			t.Errorf("a submit before the confirm: %d; want it refused by the stream", status)
		}
		b.pass(6 * time.Second)
		if code, n := byes(s); code != wire.CloseUnconfirmed || n != 0 {
			t.Errorf("told %d after %d messages, want 4101", code, n)
		}
		if status, code := b.post(w, m.Token, &wire.Confirm{Epoch: m.Epoch}); status != http.StatusConflict || code != wire.CodeNotAttached {
			t.Errorf("a confirm that comes too late: %d %s", status, code)
		}
	})
}

func TestAnyWorkerTakesAMessageAndPassesItOn(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w1, w2 := b.worker("i1-w1"), b.worker("i1-w2")
		sock := b.bare(w1, "")
		sock.say(&wire.Hello{})
		for name, s := range map[string]*bareSocket{"stream": b.stream(w1, &wire.Hello{}), "socket": sock} {
			m := s.meta()
			for i, id := range []string{"a", "b", "c"} {
				if status, code := b.post([]*lodger{w2, w1}[i%2], m.Token, &wire.Ping{ID: id}); status != http.StatusAccepted {
					t.Errorf("%s: %d %s", name, status, code)
				}
			}
			ms, _ := s.all()
			if len(ms) != 3 || ms[0].(*wire.Pong).ID != "a" || ms[2].(*wire.Pong).ID != "c" {
				t.Errorf("%s: got %v, want three pongs in order", name, ms)
			}
			if err := s.close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			for _, w := range []*lodger{w1, w2} {
				if status, code := b.post(w, m.Token, &wire.Ping{}); status != http.StatusConflict || code != wire.CodeNotAttached {
					t.Errorf("%s that is closed, at %s: %d %s, want 409 not_attached", name, w.id, status, code)
				}
			}
		}

		gone := b.stream(w1, &wire.Hello{}).meta().Token
		b.broker.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.Message.Type == "forward" {
				return memory.Verdict{Fate: memory.Lose}
			}
			return memory.Verdict{}
		})
		began := time.Now()
		if status, code := b.post(w2, gone, &wire.Ping{}); status != http.StatusServiceUnavailable || code != wire.CodeUnavailable || time.Since(began) != 5*time.Second {
			t.Errorf("a worker that does not answer: %d %s after %v, want unavailable after 5 s", status, code, time.Since(began))
		}
		b.broker.OnPublish(nil)
		b.kill(w1)
		began = time.Now()
		if status, code := b.post(w2, gone, &wire.Ping{}); status != http.StatusConflict || code != wire.CodeNotAttached || time.Since(began) > time.Second {
			t.Errorf("a worker that is dead: %d %s after %v, want not_attached at once", status, code, time.Since(began))
		}
	})
}

func TestMessagesByPostAreCheckedWhereTheyCome(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		m := b.stream(w, nil).meta()
		for name, c := range map[string]struct {
			path, body, token string
			status            int
			code              wire.Code
		}{
			"no token":          {"/v1/messages", `{"type":"ping"}`, "", 401, wire.CodeUnauthorized},
			"a forged token":    {"/v1/messages", `{"type":"ping"}`, m.Token + "x", 401, wire.CodeUnauthorized},
			"a hello":           {"/v1/messages", `{"type":"hello"}`, m.Token, 400, wire.CodeUnexpected},
			"no JSON":           {"/v1/messages", `{`, m.Token, 400, wire.CodeBadFrame},
			"an unknown type":   {"/v1/messages", `{"type":"dance"}`, m.Token, 400, wire.CodeUnknownType},
			"too long":          {"/v1/messages", `{"type":"ping"}` + strings.Repeat(" ", wire.MaxClientFrame), m.Token, 413, wire.CodeFrameTooLarge},
			"as long as can be": {"/v1/messages", `{"type":"ping"}` + strings.Repeat(" ", wire.MaxClientFrame-15), m.Token, 202, ""},
			"no hello":          {"/v1/events", `{"type":"ping"}`, "", 400, wire.CodeUnexpected},
			"a bad hello":       {"/v1/events", `{"type":"hello","tasks":7}`, "", 400, wire.CodeBadFrame},
			"a long hello":      {"/v1/events", `{"type":"hello"}` + strings.Repeat(" ", wire.MaxClientFrame), "", 413, wire.CodeFrameTooLarge},
		} {
			status, h, answer := b.do(w, "POST", c.path, c.body, "X-Socket-Meta", c.token)
			if status != c.status || problemOf(answer) != c.code || status != 202 && h.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %s, want %d %s", name, status, answer, c.status, c.code)
			}
		}
		for name, c := range map[string]struct {
			sent   int
			answer string
			after  time.Duration
		}{
			"that does not come": {1, "HTTP/1.1 400", 5 * time.Second},
			"that is too long":   {wire.MaxClientFrame + 1, "HTTP/1.1 413", 0}, // before all of it has come
		} {
			conn, err := w.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			go fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: example.test\r\nContent-Length: 1000000\r\n\r\n%s", strings.Repeat(" ", c.sent))
			answer := make([]byte, len(c.answer))
			if _, err := conn.Read(answer); err != nil || string(answer) != c.answer || time.Since(began) != c.after {
				t.Errorf("a hello %s: %q, %v after %v; want %s after %v", name, answer, err, time.Since(began), c.answer, c.after)
			}
		}
	})
}

func TestASubmitByPostRunsAndItsEventsComeByTheStream(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w1, w2 := b.worker("i1-w1"), b.worker("i1-w2")
		b.runner("r1", map[string]taskrunner.Kind{"k": {Handler: counting(3, new(atomic.Int64))}})
		s := b.stream(w1, &wire.Hello{})
		m := s.meta()
		for i, w := range []*lodger{w1, w2} {
			id := fmt.Sprint("t", i)
			token := []string{"X-Socket-Meta", m.Token}
			status, h, answer := b.do(w, "POST", "/v1/tasks", fmt.Sprintf(`{"task_id":%q,"kind":"k","priority":"high"}`, id), token...)
			if accepted := object(t, []byte(answer)); status != http.StatusAccepted || accepted["type"] != "accepted" || accepted["task_id"] != id || h.Get("Location") != "/v1/tasks/"+id {
				t.Errorf("%s: %d %s, Location %q", w.id, status, answer, h.Get("Location"))
			}
			if status, _, answer := b.do(w, "POST", "/v1/tasks", `{"kind":"k","priority":"high"}`, "X-Socket-Meta", m.Token, "Idempotency-Key", id); status != http.StatusAccepted {
				t.Errorf("%s: the same again, by its Idempotency-Key: %d %s", w.id, status, answer)
			}
			for name, c := range map[string]struct {
				body, key string
				status    int
				code      wire.Code
			}{
				"another task":     {`{"kind":"other"}`, id, 409, wire.CodeConflict},
				"an unknown kind":  {`{"kind":"nobody"}`, "x", 400, wire.CodeUnknownKind},
				"no ID":            {`{"kind":"k"}`, "", 400, wire.CodeBadFrame},
				"two IDs":          {`{"kind":"k","task_id":"x"}`, "y", 400, wire.CodeBadFrame},
				"no kind":          {`{}`, "x", 400, wire.CodeBadFrame},
				"params of a list": {`{"kind":"k","params":[]}`, "x", 400, wire.CodeBadFrame},
				"no object":        {`7`, "x", 400, wire.CodeBadFrame},
			} {
				if status, _, answer := b.do(w, "POST", "/v1/tasks", c.body, append(token, "Idempotency-Key", c.key)...); status != c.status || problemOf(answer) != c.code {
					t.Errorf("%s, %s: %d %s, want %d %s", w.id, name, status, answer, c.status, c.code)
				}
			}
			b.pass(time.Second)
			ms, _ := s.all()
			ends := 0
			for _, m := range ms {
				e, ok := m.(*wire.Event)
				if !ok {
					t.Errorf("%s: the stream was sent %+v, want events only", w.id, m)
				} else if e.Last {
					ends++
				}
			}
			if ends != 1 {
				t.Errorf("%s: %d ends of the task came in %d messages", w.id, ends, len(ms))
			}
		}
	})
}

func TestACancelByPostReachesATaskOfAnAbsentClient(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w1, w2 := b.worker("i1-w1"), b.worker("i1-w2")
		b.runner("r1", map[string]taskrunner.Kind{"k": {Handler: gated(1, make(chan struct{}))}})
		s := b.stream(w1, &wire.Hello{})
		m := s.meta()
		s.close()
		synctest.Wait()
		for i, w := range []*lodger{w1, w2} {
			id := fmt.Sprint("t", i)
			if status, _, answer := b.do(w, "POST", "/v1/tasks", `{"kind":"k"}`, "X-Socket-Meta", m.Token, "Idempotency-Key", id); status != http.StatusAccepted {
				t.Fatalf("a submit within the window: %d %s", status, answer)
			}
			b.pass(time.Second)
			status, _, answer := b.do(w, "DELETE", "/v1/tasks/"+id, "", "X-Socket-Meta", m.Token)
			if status != http.StatusAccepted || object(t, []byte(answer))["type"] != "canceling" {
				t.Errorf("%s: %d %s, want canceling", w.id, status, answer)
			}
			if status, _, answer := b.do(w, "DELETE", "/v1/tasks/no-such", "", "X-Socket-Meta", m.Token); status != http.StatusNotFound || problemOf(answer) != wire.CodeUnknownTask {
				t.Errorf("%s: a task that is not there: %d %s", w.id, status, answer)
			}
			b.pass(time.Second)
		}
		s = b.stream(w2, &wire.Hello{Token: m.Token, Tasks: []wire.Position{{Task: "t0"}, {Task: "t1"}}})
		m2 := s.meta()
		b.post(w1, m2.Token, &wire.Confirm{Epoch: m2.Epoch})
		b.pass(time.Second)
		ms, _ := s.all()
		canceled := 0
		for _, m := range ms {
			if e, ok := m.(*wire.Event); ok && e.Last && strings.Contains(string(e.Body), `"canceled"`) {
				canceled++
			}
		}
		if canceled != 2 {
			t.Errorf("%d of 2 tasks were canceled: %v", canceled, ms)
		}
		if status, _, answer := b.do(w1, "DELETE", "/v1/tasks/t0", "", "X-Socket-Meta", m.Token); status != http.StatusConflict || problemOf(answer) != wire.CodeNotAttached {
			t.Errorf("with a token of before: %d %s, want 409 not_attached", status, answer)
		}
	})
}

func TestPagesOfOtherOriginsNeedLeave(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1", func(o *worker.Options) {
			var err error
			if o.Origins, err = auth.ParseOrigins([]string{"https://build.example"}); err != nil {
				t.Fatal(err)
			}
		})
		for _, path := range []string{"/v1/events", "/v1/messages", "/v1/tasks", "/v1/tasks/t", "/v1/tasks/t/log", "/v1/kinds"} {
			status, h, _ := b.do(w, "OPTIONS", path, "", "Origin", "https://build.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-socket-meta")
			if status != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "https://build.example" || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "X-Socket-Meta") || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "DELETE") {
				t.Errorf("%s: the preflight was answered with %d %v", path, status, h)
			}
			for _, method := range []string{"OPTIONS", "GET", "POST"} {
				if status, h, answer := b.do(w, method, path, "{}", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); status != http.StatusForbidden || problemOf(answer) != wire.CodeForbidden || h.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s %s of another origin: %d %v", method, path, status, h)
				}
			}
		}
		if status, h, _ := b.do(w, "GET", "/v1/kinds", "", "Origin", "https://build.example"); status != 200 || h.Get("Access-Control-Allow-Origin") != "https://build.example" || h.Get("Vary") != "Origin" {
			t.Errorf("GET /v1/kinds: %d %v", status, h)
		}
		if status, h, _ := b.do(w, "POST", "/v1/messages", "{}", "Origin", "https://build.example"); status != 401 || h.Get("Access-Control-Allow-Origin") != "https://build.example" {
			t.Errorf("a page must be able to read its refusals: %d %v", status, h)
		}
		if status, h, _ := b.do(w, "GET", "/v1/kinds", ""); status != 200 || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("without an origin: %d %v", status, h)
		}
		s := b.stream(w, nil, "Origin", "https://build.example")
		s.meta()
		if s := b.stream(w, nil, "Origin", "https://evil.example"); s.status != http.StatusForbidden {
			t.Errorf("a stream of another origin: %d", s.status)
		}
	})
}

func TestAWorkerThatDrainsRefusesNewStreamsAndTellsTheOthers(t *testing.T) {
	const clients, window = 32, 4 * time.Second
	inBubble(t, func(b *bubble) {
		w, other := b.worker("i1-w1", drainOver(window)), b.worker("i1-w2")
		var streams []*bareSocket
		for range clients {
			s := b.stream(w, &wire.Hello{})
			s.meta()
			streams = append(streams, s)
		}
		stopped := make(chan struct{})
		go func() { w.stop(); close(stopped) }()
		b.pass(10 * time.Millisecond)
		if s := b.stream(w, nil); s.status != http.StatusServiceUnavailable {
			t.Errorf("a stream while it drains: %d, want 503", s.status)
		}
		told := func() (n int) {
			for _, s := range streams {
				if s.code == 0 {
					s.code, _ = byes(s)
				}
				if s.code != 0 {
					n++
				}
			}
			return n
		}
		b.pass(window / 2)
		if n := told(); n < clients/4 || n > clients*3/4 {
			t.Errorf("%d of %d streams were told in half of the window", n, clients)
		}
		b.pass(window/2 + time.Second)
		<-stopped
		delete(b.workers, "i1-w1")
		if n := told(); n != clients || slices.ContainsFunc(streams, func(s *bareSocket) bool { return s.code != wire.CloseServiceRestart }) {
			t.Errorf("%d of %d streams were told, want all, and 1012", n, clients)
		}
		b.stream(other, nil).meta()
	})
}

// TestAClientThatChangesItsTransportMissesNothing lets real clients change between WebSocket and stream,
// and between two workers, in the middle of their builds, while each POST goes to any worker.
func TestAClientThatChangesItsTransportMissesNothing(t *testing.T) {
	for seed := range uint64(4) {
		inBubble(t, func(b *bubble) {
			dice := rand.New(rand.NewPCG(seed, 7))
			workers := []*lodger{b.worker("i1-w1"), b.worker("i1-w2")}
			for i := range 4 {
				b.runner(fmt.Sprint("r", i), map[string]taskrunner.Kind{"k": {Handler: counting(200, new(atomic.Int64))}})
			}
			var ways [2]atomic.Int64 // sockets and streams
			apps := make([]told, 4)
			var tasks []*wsclient.Task
			var conns [4]atomic.Pointer[net.Conn]
			for i := range apps {
				way := int(seed) + i
				c, _ := b.client(nil, func(o *wsclient.Options) {
					o.OnEvent = apps[i].hear
					o.Dial = b.eitherWay(&way, workers, &ways, &conns[i], seed+uint64(i))
				})
				task, err := c.Submit(b.Context(), "k", nil)
				if err != nil {
					t.Fatal(err)
				}
				tasks = append(tasks, task)
			}
			for range 30 {
				b.pass(time.Duration(dice.IntN(700)) * time.Millisecond)
				if conn := conns[dice.IntN(len(conns))].Load(); conn != nil {
					(*conn).Close()
				}
			}
			for i, task := range tasks {
				if value, err := b.wait(task); err != nil || string(value) != "200" {
					t.Errorf("seed %d: client %d has the result %s, %v", seed, i, value, err)
				}
			}
			b.pass(10 * time.Second)
			for i := range apps {
				if seqs := apps[i].seqs; !slices.IsSorted(seqs) || len(slices.Compact(slices.Clone(seqs))) != len(seqs) || apps[i].finals != 1 || apps[i].gaps != 0 {
					t.Errorf("seed %d: client %d was told %v, %d ends, %d gaps", seed, i, seqs, apps[i].finals, apps[i].gaps)
				}
			}
			if n := b.left("i1-w1", "i1-w2"); n != 0 {
				t.Errorf("seed %d: %d messages are left", seed, n)
			}
			if sockets, streams := ways[0].Load(), ways[1].Load(); sockets < 10 || streams < 10 {
				t.Errorf("seed %d: %d sockets and %d streams, want many of both", seed, sockets, streams)
			}
		})
	}
}

// eitherWay dials the workers by turns of transport, each time one of them at random; posts go to any.
func (b *bubble) eitherWay(way *int, workers []*lodger, ways *[2]atomic.Int64, at *atomic.Pointer[net.Conn], seed uint64) func(context.Context, string, string) (net.Conn, error) {
	dice := rand.New(rand.NewPCG(seed, 11))
	return func(context.Context, string, string) (conn net.Conn, err error) {
		*way++
		w := workers[dice.IntN(len(workers))]
		if *way%2 == 0 {
			conn, err = w.dial()
		} else {
			conn, err = b.bridge(w, func() *lodger { return workers[dice.IntN(len(workers))] })
		}
		if err == nil {
			ways[*way%2].Add(1)
			at.Store(&conn)
		}
		return conn, err
	}
}

func TestIdleStreamsTakeNoRequestSlots(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", func(o *worker.Options) { o.Engine.MaxPlain = 20 })
	for range 500 {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprint(conn, "GET /v1/events HTTP/1.1\r\nHost: example.test\r\n\r\n")
		head := make([]byte, 15)
		if _, err := conn.Read(head); err != nil || string(head) != "HTTP/1.1 200 OK" {
			t.Fatalf("got %q, %v", head, err)
		}
	}
	for range 100 {
		if status, _, answer := fetch(t, w, nil, "/v1/kinds"); status != http.StatusOK || !json.Valid([]byte(answer)) {
			t.Fatalf("with 500 idle streams an API request is answered with %d %s", status, answer)
		}
	}
	if _, _, metrics := fetch(t, &running{addr: w.internal}, nil, "/metrics"); !strings.Contains(metrics, "\nwscluster_streams 500\n") || !strings.Contains(metrics, "\nwscluster_connections 500\n") {
		t.Error("the metrics do not show 500 streams")
	}
}
