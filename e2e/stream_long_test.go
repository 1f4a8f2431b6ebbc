//go:build long && linux

package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// TestMinutesOfSilence: HAProxy's timeouts are 30 s for a client and 5 s for a server. Nothing is said on
// either transport for three minutes but signs of life.
func TestMinutesOfSilenceCostNoConnection(t *testing.T) {
	t.Parallel()
	c := start(t, withHAProxy(), "i1-w1")
	ws, _ := client(t, c.HAProxy.Addr, func(o *wsclient.Options) { o.Affinity = wsclient.AffinityNone })
	s := listen(t, 1, c.HAProxy.Addr, &wire.Hello{})
	signs, quiet := make(chan struct{}), time.Now()
	go func() { // comments are read as they come
		defer close(signs)
		for n := 0; time.Since(quiet) < 3*time.Minute; n++ {
			_ = s.conn.SetReadDeadline(time.Now().Add(17 * time.Second))
			if _, err := s.in.ReadString('\n'); err != nil {
				t.Errorf("after %v and %d lines the stream ended: %v", time.Since(quiet), n, err)
				return
			}
		}
	}()
	<-signs
	if answer, text := s.post(c.HAProxy.Addr, &wire.Ping{ID: "still here"}); answer.StatusCode != http.StatusAccepted {
		t.Errorf("a POST after the silence: %s %s", answer.Status, text)
	} else if pong, ok := s.next(time.Minute).(*wire.Pong); !ok || pong.ID != "still here" {
		t.Error("the stream did not carry the pong")
	}
	if n := ws.Stats().Sockets; n != 1 {
		t.Errorf("the client had %d sockets, want the one", n)
	}
	submit(t, ws, "countdown", countdown(1))
}

// TestAPeerThatVanishes: a client's host is gone without a word, behind HAProxy and not.
func TestAPeerThatVanishesIsFoundWithinPingAndTenSeconds(t *testing.T) {
	t.Parallel()
	o := withHAProxy()
	o.Runners = []string{}
	c := start(t, o, "i1-w1")
	w := c.Workers[0]
	for name, addr := range map[string]string{"behind HAProxy": c.HAProxy.Addr, "directly": w.Addr} {
		s := listen(t, 1, addr, &wire.Hello{})
		var sock net.Conn
		var first sync.Once
		_, stop := client(t, addr, func(o *wsclient.Options) {
			o.Dial = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, addr)
				first.Do(func() { sock = conn })
				return conn, err
			}
		})
		open := func() (sockets, streams float64) {
			all, err := metric(w, "wscluster_connections")
			c.must(err)
			streams, err = metric(w, "wscluster_streams")
			c.must(err)
			return all - streams, streams
		}
		if sockets, streams := open(); sockets != 1 || streams != 1 {
			t.Fatalf("%s: %v sockets and %v streams, want one of each", name, sockets, streams)
		}
		if err := rig.Vanish(s.conn); err != nil {
			t.Fatal(err)
		}
		if err := rig.Vanish(sock); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var socketTook, streamTook time.Duration
		for socketTook == 0 || streamTook == 0 {
			sockets, streams := open()
			took := time.Since(began)
			if sockets == 0 && socketTook == 0 {
				socketTook = took
			}
			if streams == 0 && streamTook == 0 {
				streamTook = took
			}
			if took > time.Minute {
				t.Fatalf("%s: after %v %v sockets and %v streams are open", name, took, sockets, streams)
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("%s: the socket was found after %v, the stream after %v", name, socketTook, streamTook)
		if most := 15*time.Second + 10*time.Second + 3*time.Second; max(socketTook, streamTook) > most { // ping, pong, and two sweeps
			t.Errorf("%s: want both within %v", name, most)
		}
		stop()
	}
}

// TestTenThousandIdleStreams: they take no request slots and next to no time.
func TestTenThousandIdleStreamsDoNotSlowTheAPI(t *testing.T) {
	c := start(t, rig.ClusterOptions{Runners: []string{}}, "i1-w1")
	w := c.Workers[0]
	var limit unix.Rlimit
	c.must(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	n := min(10_000, int(limit.Cur)-1000) // the worker has as many at its end
	began := time.Now()
	for i := range n {
		conn, err := net.Dial("tcp", w.Addr)
		c.must(err)
		t.Cleanup(func() { conn.Close() })
		_, err = io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: site.example\r\n\r\n")
		c.must(err)
		head := make([]byte, 15)
		if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 200 OK" {
			t.Fatalf("stream %d: %q, %v", i, head, err)
		}
	}
	if got, err := metric(w, "wscluster_streams"); err != nil || int(got) != n {
		t.Fatalf("%v streams, %v; want %d", got, err, n)
	}
	t.Logf("%d streams were opened in %v", n, time.Since(began))
	s := listen(t, 1, w.Addr, &wire.Hello{})
	for name, ask := range map[string]func() int{
		"GET /v1/kinds": func() int {
			answer, err := http.Get("http://" + w.Addr + "/v1/kinds")
			c.must(err)
			defer answer.Body.Close()
			_, err = io.Copy(io.Discard, answer.Body)
			c.must(err)
			return answer.StatusCode
		},
		"POST /v1/messages": func() int {
			answer, _ := s.post(w.Addr, &wire.Ping{})
			s.next(time.Minute)
			return answer.StatusCode
		},
	} {
		var took []time.Duration
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); { // with a round of comments in it
			began := time.Now()
			if status := ask(); status/100 != 2 {
				t.Fatalf("%s: %d", name, status)
			}
			took = append(took, time.Since(began))
			time.Sleep(5 * time.Millisecond)
		}
		slices.Sort(took)
		p99 := took[len(took)*99/100]
		t.Logf("%s beside %d idle streams: %d requests, p50 %v, p99 %v, the longest %v", name, n, len(took), took[len(took)/2], p99, took[len(took)-1])
		if p99 > 100*time.Millisecond {
			t.Errorf("%s: p99 is %v, want under 100 ms", name, p99)
		}
	}
	if got, err := metric(w, "wscluster_streams"); err != nil || int(got) != n+1 {
		t.Errorf("in the end %v streams, %v; want %d", got, err, n+1)
	}
}
