package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// openTo lets everybody subscribe to channels of these patterns.
func openTo(t *testing.T, patterns ...string) func(*worker.Options) {
	t.Helper()
	g, err := auth.NewGrants(socketmeta.RandomKeys(), patterns)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *worker.Options) { o.Grants = g }
}

// poster publishes to channels, and counts.
type poster struct {
	t      *testing.T
	link   broker.Link
	name   string
	stream wire.RunID

	mu  sync.Mutex
	seq map[wire.Channel]int64
}

func (c *cluster) poster(name string) *poster {
	c.t.Helper()
	link, err := c.broker.Join(c.t.Context(), broker.Runner(name))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { link.Close(context.Background()) })
	go func() {
		for range link.Inbox() { // nobody reads it
		}
	}()
	return &poster{t: c.t, link: link, name: "r." + name, stream: wire.NewRunID(), seq: map[wire.Channel]int64{}}
}

// post publishes body and returns what became of it.
func (p *poster) post(ch wire.Channel, key, body string) broker.Outcome {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq[ch]++
	m := &wire.Post{Channel: ch, Key: key, Publisher: p.name, Stream: p.stream, Seq: p.seq[ch], Time: wire.Time{Time: time.Now()}, Body: json.RawMessage(body)}
	r, err := p.link.Publish(p.t.Context(), broker.ToChannel(ch), broker.Message{Headers: m.Headers(), Body: m.Body, Transient: true})
	if err != nil {
		p.t.Fatal(err)
	}
	out, _ := broker.Await(p.t.Context(), r)
	return out
}

// stored is post, and an error if no worker has bound the channel yet.
func (p *poster) stored(ch wire.Channel, key, body string) error {
	if out := p.post(ch, key, body); out != broker.Stored {
		return fmt.Errorf("the post to %s is %v", ch, out)
	}
	return nil
}

// subscriber opens a socket and sends a hello.
func subscriber(t *testing.T, w *running) *socket {
	t.Helper()
	s := newSocket(t, w.addr)
	s.send(text, `{"type":"hello"}`)
	s.want("socket_meta")
	return s
}

// want reads the next message, which must be of that type.
func (s *socket) want(typ string) map[string]any {
	s.t.Helper()
	op, p := s.read()
	m := object(s.t, p)
	if op != text || m["type"] != typ {
		s.t.Fatalf("got %d %.300s, want a message of type %s", op, p, typ)
	}
	return m
}

// subscribe subscribes and reads the answer and the snapshot.
func (s *socket) subscribe(ch wire.Channel) (bodies []string) {
	s.t.Helper()
	s.send(text, fmt.Sprintf(`{"type":"subscribe","id":"s","channel":%q}`, ch))
	m := s.want("subscribed")
	if m["id"] != "s" || m["channel"] != string(ch) {
		s.t.Errorf("subscribed %v", m)
	}
	for range int(m["snapshot"].(float64)) {
		bodies = append(bodies, s.body())
	}
	return bodies
}

// body reads the body of the next message of a channel.
func (s *socket) body() string {
	s.t.Helper()
	b, err := json.Marshal(s.want("message")["body"])
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// metric reads a figure of a worker, with its labels.
func metric(t *testing.T, w *running, name string) string {
	t.Helper()
	r, err := http.Get("http://" + w.internal + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	all, _ := io.ReadAll(r.Body)
	for line := range strings.Lines(string(all)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("there is no metric %s", name)
	return ""
}

func TestASubscriberGetsWhatIsPublishedAndThoseAfterItASnapshot(t *testing.T) {
	c := newCluster(t)
	w1, w2 := c.worker("i1-w1", openTo(t, "news.*")), c.worker("i1-w2", openTo(t, "news.*"))
	p := c.poster("p")
	if out := p.post("news.a", "", `0`); out != broker.Returned {
		t.Errorf("published to nobody: %v, want returned and no more", out)
	}
	s1, s2 := subscriber(t, w1), subscriber(t, w2)
	if got := append(s1.subscribe("news.a"), s2.subscribe("news.a")...); len(got) > 0 {
		t.Errorf("a snapshot of %v, want none", got)
	}
	for i := range 3 {
		p.post("news.a", "", fmt.Sprint(i+1))
	}
	for i := range 3 {
		for _, s := range []*socket{s1, s2} {
			m := s.want("message")
			if m["seq"] != float64(i+2) || m["body"] != float64(i+1) || m["publisher"] != "r.p" {
				t.Errorf("got %v, want post %d", m, i+1)
			}
		}
	}
	late := subscriber(t, w1)
	if got, want := late.subscribe("news.a"), []string{"1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("the snapshot is %v, want %v", got, want)
	}
	p.post("news.a", "", `4`)
	for _, s := range []*socket{s1, s2, late} {
		if got := s.body(); got != "4" {
			t.Errorf("got %s, want 4", got)
		}
	}
}

func TestOneSocketGetsItsChannelsAndNoOther(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "*"))
	p := c.poster("p")
	a, b, both := subscriber(t, w), subscriber(t, w), subscriber(t, w)
	a.subscribe("a")
	b.subscribe("b")
	both.subscribe("a")
	both.subscribe("b")
	for i := range 20 {
		p.post("a", "", fmt.Sprintf(`"a%d"`, i))
		p.post("b", "", fmt.Sprintf(`"b%d"`, i))
		p.post("c", "", `"nobody's"`)
	}
	for i := range 20 {
		if got, want := a.body(), fmt.Sprintf(`"a%d"`, i); got != want {
			t.Errorf("a got %s, want %s", got, want)
		}
		if got, want := b.body(), fmt.Sprintf(`"b%d"`, i); got != want {
			t.Errorf("b got %s, want %s", got, want)
		}
		if got, want := both.body()+both.body(), fmt.Sprintf(`"a%d""b%d"`, i, i); got != want {
			t.Errorf("both got %s, want %s", got, want)
		}
	}
}

func TestAfterUnsubscribedNothingComes(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "*"))
	p := c.poster("p")
	s, other := subscriber(t, w), subscriber(t, w)
	s.subscribe("a")
	other.subscribe("a")
	p.post("a", "", `1`)
	s.body()
	s.send(text, `{"type":"unsubscribe","id":"u","channel":"a"}`)
	if m := s.want("unsubscribed"); m["id"] != "u" || m["channel"] != "a" {
		t.Errorf("unsubscribed %v", m)
	}
	p.post("a", "", `2`)
	other.body()
	if other.body() != "2" {
		t.Error("the other one does not get the second post")
	}
	s.send(text, `{"type":"ping"}`)
	s.want("pong")
	if got := s.subscribe("a"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("subscribed again: a snapshot of %v, want 1 and 2", got)
	}
	s.send(text, `{"type":"unsubscribe","channel":"never"}`)
	s.want("unsubscribed")
}

func TestChannelsThatNeedAGrantAreRefusedWithoutOne(t *testing.T) {
	c := newCluster(t)
	keys := socketmeta.RandomKeys()
	grants, err := auth.NewGrants(keys, []string{"open"})
	if err != nil {
		t.Fatal(err)
	}
	w := c.worker("i1-w1", func(o *worker.Options) { o.Grants = grants })
	s := subscriber(t, w)
	for _, m := range []string{"subscribe", "presence"} {
		s.send(text, fmt.Sprintf(`{"type":%q,"id":"x","channel":"secret"}`, m))
		if m := s.want("error"); m["code"] != "forbidden" || m["id"] != "x" {
			t.Errorf("%v, want forbidden", m)
		}
	}
	for path, want := range map[string]int{"/v1/channels/secret": 403, "/v1/channels/open": 200, "/v1/channels/.bad": 400, "/v1/engine": 403} {
		r, err := http.Get("http://" + w.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("GET %s: %s, want %d", path, r.Status, want)
		}
	}
	if got := dialSocket(t, w.addr, "/api/workflows/t1/updates", "").status; got != 403 {
		t.Errorf("the updates of a workflow without a grant: %d, want 403", got)
	}
	grant, err := auth.SignGrant(keys, auth.Grant{Subscribe: []string{"sec*"}, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	s.send(text, fmt.Sprintf(`{"type":"subscribe","id":"y","channel":"secret","grant":%q}`, grant))
	s.want("subscribed")
}

func TestOneSocketHasAHundredSubscriptions(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "*"))
	s := subscriber(t, w)
	for i := range wire.MaxSubscriptions {
		s.send(text, fmt.Sprintf(`{"type":"subscribe","channel":"c%d"}`, i))
	}
	for range wire.MaxSubscriptions {
		s.want("subscribed")
	}
	s.send(text, `{"type":"subscribe","id":"x","channel":"more"}`)
	if m := s.want("error"); m["code"] != "too_many_channels" || m["id"] != "x" {
		t.Errorf("one more: %v, want too_many_channels", m)
	}
	s.subscribe("c7") // again
	s.send(text, `{"type":"unsubscribe","channel":"c1"}`)
	s.want("unsubscribed")
	s.subscribe("more")
}

func TestPresenceCountsTheSubscribersOfAllWorkers(t *testing.T) {
	c := newCluster(t)
	w1, w2 := c.worker("i1-w1", openTo(t, "*")), c.worker("i1-w2", openTo(t, "*"))
	first := subscriber(t, w1)
	first.subscribe("a")
	for range 3 {
		subscriber(t, w2).subscribe("a")
	}
	await(t, func() error { // until the workers know of each other
		first.send(text, `{"type":"presence","id":"p","channel":"a"}`)
		if m := first.want("presence"); m["subscribers"] != 4. || m["partial"] == true || m["id"] != "p" {
			return fmt.Errorf("%v, want 4 subscribers", m)
		}
		return nil
	})
	r, err := http.Get("http://" + w2.addr + "/v1/channels/a")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if got, want := strings.TrimSpace(string(body)), `{"channel":"a","subscribers":4,"partial":false}`; got != want {
		t.Errorf("over HTTP: %s, want %s", got, want)
	}
}

func TestManySubscribersComeAndGoAndLeaveNothingBehind(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "*"))
	p := c.poster("p")
	const clients = 120
	sockets := make([]*socket, clients)
	var wg sync.WaitGroup
	for i := range sockets {
		sockets[i] = subscriber(t, w)
		wg.Go(func() {
			sockets[i].subscribe("all")
			sockets[i].subscribe(wire.Channel(fmt.Sprintf("own-%d", i)))
		})
	}
	wg.Wait()
	if got := metric(t, w, "wscluster_channel_subscriptions"); got != fmt.Sprint(2*clients) {
		t.Errorf("%s subscriptions, want %d", got, 2*clients)
	}
	for i := range 50 {
		p.post("all", "", fmt.Sprint(i))
	}
	for i := range clients {
		p.post(wire.Channel(fmt.Sprintf("own-%d", i)), "", fmt.Sprint(1000+i))
	}
	for i, s := range sockets {
		wg.Go(func() {
			for n := range 50 {
				if got := s.body(); got != fmt.Sprint(n) {
					t.Errorf("client %d got %s, want %d", i, got, n)
				}
			}
			if got := s.body(); got != fmt.Sprint(1000+i) {
				t.Errorf("client %d got %s of its own channel", i, got)
			}
			s.conn.Close()
		})
	}
	wg.Wait()
	await(t, func() error {
		if got := metric(t, w, "wscluster_channel_subscriptions"); got != "0" {
			return fmt.Errorf("%s subscriptions are left", got)
		}
		return nil
	})
	if got := metric(t, w, `wscluster_channel_dropped_total{reason="slow"}`); got != "0" {
		t.Errorf("%s posts were dropped, want none", got)
	}
	if got := metric(t, w, "wscluster_channel_messages_total"); got != fmt.Sprint(51*clients) {
		t.Errorf("%s messages, want %d", got, 51*clients)
	}
}

func TestTheEnginesStateNamesWorkersRunnersAndQueues(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "engine"))
	s := subscriber(t, w)
	s.send(text, `{"type":"subscribe","channel":"engine"}`)
	if m := s.want("subscribed"); m["snapshot"] != 1. || m["partial"] == true {
		t.Errorf("%v, want a snapshot", m)
	}
	engine := func(s *socket) (e wire.Engine) {
		b, _ := json.Marshal(s.want("message")["body"])
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := engine(s); e.Server != "i1-w1" || !e.Broker.Connected || len(e.Workers) != 1 || !e.Workers[0].Ready || e.Workers[0].Connections != 1 {
		t.Errorf("alone: %+v", e)
	}
	other := c.worker("i1-w2")
	c.runner(kinds(echo))
	until := func(what string, ok func(wire.Engine) bool) {
		t.Helper()
		for range 10 {
			if ok(engine(s)) {
				return
			}
		}
		t.Errorf("it never says %s", what)
	}
	until("that there is another worker, and a runner with its kind", func(e wire.Engine) bool {
		return len(e.Workers) == 2 && e.Workers[1].Server == "i1-w2" && e.Workers[1].Ready &&
			len(e.Runners) == 1 && e.Runners[0].Runner == "r1" && e.Runners[0].Slots == 16 && slices.Equal(e.Runners[0].Kinds, []string{"k"}) &&
			len(e.Queues) == 1 && e.Queues[0] == wire.EngineQueue{Kind: "k"}
	})
	other.stop()
	until("that the other worker has stopped", func(e wire.Engine) bool { return len(e.Workers) == 1 })

	r, err := http.Get("http://" + w.addr + "/v1/engine")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var e wire.Engine
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || len(e.Workers) != 1 || len(e.Runners) != 1 || len(e.Queues) != 1 {
		t.Errorf("over HTTP: %+v, %v", e, err)
	}
}

func TestSubscribersOutliveTheBrokersLink(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "*"))
	p := c.poster("p")
	s := subscriber(t, w)
	s.subscribe("a")
	p.post("a", "", `1`)
	s.body()
	c.broker.Cut(broker.Worker("i1-w1"))
	p.post("a", "", `2`)
	if m := s.want("missed"); m["channel"] != "a" || m["reason"] != "lost" || m["count"] != 0. {
		t.Errorf("%v, want missed with count 0: nobody keeps the posts", m)
	}
	p.post("a", "", `3`)
	if m := s.want("missed"); m["count"] != 1. || m["reason"] != "lost" {
		t.Errorf("%v, want the missed one counted", m)
	}
	if got := s.body(); got != "3" {
		t.Errorf("got %s, want 3", got)
	}
}

func TestASubscriberThatDoesNotReadIsToldWhatItMissedAndCostsOthersNothing(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", openTo(t, "*"))
	p := c.poster("p")
	deaf, good := subscriber(t, w), subscriber(t, w)
	deaf.subscribe("a")
	good.subscribe("a")
	const posts = 3000
	body := `"` + strings.Repeat("x", 1000) + `"`
	for i := range posts {
		p.post("a", "", body)
		if m := good.want("message"); m["seq"] != float64(i+1) {
			t.Fatalf("the one that reads got %v, want post %d", m["seq"], i+1)
		}
	}
	got, missed := 0., 0.
	for got+missed < posts {
		_, b := deaf.read()
		switch m := object(t, b); m["type"] {
		case "message":
			if m["seq"] != got+missed+1 {
				t.Fatalf("the one that did not read got post %v after %v and %v missed", m["seq"], got, missed)
			}
			got++
		case "missed":
			if m["reason"] != "slow" {
				t.Fatalf("%v, want reason slow", m)
			}
			missed += m["count"].(float64)
		}
	}
	if missed == 0 || got+missed != posts {
		t.Errorf("it got %v and missed %v, want %d together, and some missed", got, missed, posts)
	}
	deaf.send(text, `{"type":"ping"}`)
	deaf.want("pong")
	if n := metric(t, w, `wscluster_channel_dropped_total{reason="slow"}`); n != fmt.Sprint(missed) {
		t.Errorf("%s are counted, want %v", n, missed)
	}
}
