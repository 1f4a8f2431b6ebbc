package worker_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestReadersThatStopInAHugeLogHoldUpNobodyAndLittleMemory has two downloads and a socket that stop reading, over real sockets: meanwhile
// a task's lines reach another client, and the end of the huge log does.
func TestReadersThatStopInAHugeLogHoldUpNobodyAndLittleMemory(t *testing.T) {
	const (
		mib   = 1 << 20
		long  = 8000 // bytes of a line
		count = 64 * mib / long
		held  = 4 * mib // of the heap: a download's piece is 128 KiB, and its message 171 KiB; the socket has four of 32 KiB
	)
	c := newCluster(t)
	w := c.worker("i1-w1")
	var huge atomic.Bool
	huge.Store(true)
	c.runner(kinds(taskrunner.HandlerFunc(func(ctx context.Context, task *taskrunner.Task) (any, error) {
		if !huge.Load() {
			return lines(2000, nil)(ctx, task)
		}
		for range count {
			if _, err := fmt.Fprintln(task.Log(), strings.Repeat("x", long-1)); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})))
	owner, leave := c.client(w)
	task := submit(t, owner, nil)
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	leave()
	huge.Store(false)
	path := "/v1/tasks/" + string(task.ID()) + "/log"
	before := live()

	for _, format := range []string{"text", "ndjson"} {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "GET %s?format=%s HTTP/1.1\r\nHost: w\r\nX-Socket-Meta: %s\r\n\r\n", path, format, owner.State().Token)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer, err)
		}
		if _, err := io.ReadFull(answer.Body, make([]byte, mib)); err != nil { // and no more
			t.Fatal(err)
		}
	}
	var pieces atomic.Int64 // of the socket's size
	c.broker.OnPublish(func(p memory.Publish) memory.Verdict {
		if p.Message.Type == (&wire.LogChunk{}).ControlType() && len(p.Message.Body) < 2*wire.MinLogChunk {
			pieces.Add(1)
		}
		return memory.Verdict{}
	})
	s := newSocket(t, w.addr)
	if err := s.conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil { // four pieces do not fit into what the kernel has for it
		t.Fatal(err)
	}
	s.hello(owner.State().Token)
	for range 4 {
		s.send(text, string(wire.EncodeClient(&wire.LogRead{Task: task.ID(), Runner: "r1", From: 1})))
	}
	await(t, func() error {
		if n := pieces.Load(); n != 4 {
			return fmt.Errorf("%d pieces for the socket", n)
		}
		return nil
	})

	other, _ := c.client(w, withLogs)
	readLines(t, submit(t, other, nil), 2000)
	if status, _, text := fetch(t, w, owner, path, "Range", "bytes=-100"); status != http.StatusPartialContent || text != strings.Repeat("x", 99)+"\n" {
		t.Errorf("the end of the log: %d %q", status, text)
	}
	most := live()
	if most > before+held {
		t.Errorf("%d KiB more are held, want at most %d", (most-before)>>10, held>>10)
	}
	t.Logf("%d KiB more are held", (int64(most)-int64(before))>>10)
}
