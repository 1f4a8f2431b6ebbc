package crowd

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

const (
	serveArg = "serve-clients" // makes the test's program a process of clients
	channel  = "news"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == serveArg {
		if err := Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// startWorkers starts workers in this process on one broker. They end with the test.
func startWorkers(t *testing.T, b *memory.Broker, ids ...socketmeta.ServerID) (addrs []string) {
	t.Helper()
	keys := socketmeta.RandomKeys()
	grants, err := auth.NewGrants(keys, []string{channel})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		w, err := worker.New(worker.Options{Server: id, Broker: b, Keys: keys, RouteKeys: keys, Grants: grants, DrainWindow: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx, ln, nil) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("worker %s ended with %v", id, err)
			}
		})
		for w.Ready() != nil {
			time.Sleep(time.Millisecond)
		}
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs
}

func TestManyGetABroadcastByteForByte(t *testing.T) {
	for name, command := range map[string][]string{"in this process": nil, "in one of their own": {os.Args[0], serveArg}} {
		t.Run(name, func(t *testing.T) {
			b := memory.New(memory.Options{})
			var opened int
			m, err := Join(Spec{Clients: 50, Addrs: startWorkers(t, b, "i1-w1", "i1-w2"), Sources: []string{"127.0.0.2", "127.0.0.3"}, Channel: channel,
				Within: 10 * time.Second, Command: command, Opened: func(n int) { opened = n }})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if _, resumed, err := m.Connect(t.Context()); err != nil || resumed != 0 || opened != 50 {
				t.Fatalf("%d resumed, %d opened, %v", resumed, opened, err)
			}
			publish(t, b, m, 3)
			if pinged, err := m.Echo(t.Context(), 100, 2_000); err != nil || pinged.Got != 100 || pinged.Ages.TotalCount() != 100 {
				t.Errorf("echo: %+v, %v", pinged, err)
			}
			if err := m.Cut(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, resumed, err := m.Connect(t.Context()); err != nil || resumed != 50 {
				t.Errorf("%d of 50 sessions were resumed, %v", resumed, err)
			}
			publish(t, b, m, 2)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// publish sends n messages to all, and expects them.
func publish(t *testing.T, b *memory.Broker, m *Many, n int64) {
	t.Helper()
	link, err := b.Join(t.Context(), broker.Runner("r1"))
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close(t.Context())
	if err := m.Expect(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	began := Now()
	for i := range n {
		body := Message(Everybody, i+1, Now())
		if _, err := link.Publish(t.Context(), broker.ToChannel(channel), broker.Message{Body: body, Time: time.Now(), Transient: true}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := m.Wait(t.Context(), 10*time.Second)
	want := int64(m.Clients) * n
	if err != nil || got.Faults != (Faults{}) || got.Got != want || got.Ages.TotalCount() != want || got.First < began || got.Last < got.First {
		t.Errorf("%+v, %v; want %d messages", got, err, want)
	}
}

func TestManySayWhatWentWrong(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	m, err := Join(Spec{Clients: 2, Addrs: []string{gone.Addr().String()}, Within: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Expect(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "expect before connect") {
		t.Errorf("got %v", err)
	}
	if _, _, err := m.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestManyWhoseSocketsHaveEndedSaySoAtEachOrder(t *testing.T) {
	var m *Many
	t.Run("workers that end", func(t *testing.T) {
		var err error
		if m, err = Join(Spec{Clients: 2, Addrs: startWorkers(t, memory.New(memory.Options{}), "i1-w1"), Within: 10 * time.Second}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Expect(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	})
	for range 2 {
		if _, err := m.Wait(t.Context(), 10*time.Second); err == nil || !strings.Contains(err.Error(), "client ") {
			t.Errorf("wait: got %v, want how a client's socket ended", err)
		}
		if _, err := m.Echo(t.Context(), 2, 2_000); err == nil || !strings.Contains(err.Error(), "client ") {
			t.Errorf("echo: got %v, want how a client's socket ended", err)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// TestACrowdCountsWhatIsWrong is given frames without a socket.
func TestACrowdCountsWhatIsWrong(t *testing.T) {
	var answered []int64
	c := Listen(2, 10, Options{Answer: func(_ *load.Socket, _ int, n int64) error { answered = append(answered, n); return nil }})
	if err := c.Expect(5); err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct{ client, to, n int }{{10, 10, 1}, {10, 11, 1}, {11, Everybody, 2}, {11, 11, 1}, {11, 11, 1}, {10, 10, 2}} {
		if err := c.Take(m.client, Message(m.to, int64(m.n), Now())); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Wait(t.Context(), time.Millisecond)
	if want := (Faults{Lost: 1, Duplicated: 1, Misordered: 1, Misrouted: 1}); err != nil || got.Faults != want || got.Got != 4 {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if !slices.Equal(answered, []int64{1, 2, 1, 1, 2}) {
		t.Errorf("answered %v", answered)
	}
}

func TestATallyOfTwoCrowdsIsTheirSum(t *testing.T) {
	a, b := newTally(), newTally()
	for range 99 {
		record(a.Ages, int64(time.Millisecond))
	}
	record(b.Ages, int64(time.Hour)) // counts as a minute
	a.Got, a.First, a.Last, a.Lost = 99, 50, 60, 1
	b.Got, b.First, b.Last, b.Misrouted = 1, 40, 55, 2
	sent, err := pack(b).tally() // as it comes from another process
	if err != nil {
		t.Fatal(err)
	}
	a.Add(sent)
	if a.Got != 100 || a.First != 40 || a.Last != 60 || a.Faults != (Faults{Lost: 1, Misrouted: 2}) {
		t.Errorf("%+v", a)
	}
	if p50, max := a.Quantile(50), a.Quantile(100); p50 < 0.99 || p50 > 1.01 || max < 59_000 {
		t.Errorf("p50 %v ms, max %v ms", p50, max)
	}
}
