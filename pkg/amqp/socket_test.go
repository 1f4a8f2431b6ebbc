package amqp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a socket and its peer, which takes what it reads and no more.
func pipe(t *testing.T, timeout time.Duration) (*socket, net.Conn) {
	t.Helper()
	ours, peer := net.Pipe()
	s := newSocket(ours, timeout)
	t.Cleanup(func() { s.cut(); peer.Close() })
	return s, peer
}

func write(t *testing.T, s *socket, text string) {
	t.Helper()
	if n, err := s.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("write %.10q: %d, %v", text, n, err)
	}
}

// begin writes text alone, which is being sent when it returns.
func begin(t *testing.T, s *socket, text string) {
	t.Helper()
	go func() { _, _ = s.Write([]byte(text)) }() // it may fail, as the test will see
	synctest.Wait()
}

// sent reads one send of the socket's.
func sent(t *testing.T, peer net.Conn) string {
	t.Helper()
	p := make([]byte, 4*maxUnsent)
	n, err := peer.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

func TestWhatIsWrittenDuringASendGoesWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := pipe(t, time.Minute)
		begin(t, s, "one ")
		for _, text := range []string{"two ", "three ", "four "} {
			write(t, s, text)
		}
		if got := sent(t, peer); got != "one " {
			t.Errorf("the first send was %q", got)
		}
		if got := sent(t, peer); got != "two three four " {
			t.Errorf("the second send was %q, want all of the rest", got)
		}
		write(t, s, "five") // at once: a goroutine sends it
		if got := sent(t, peer); got != "five" {
			t.Errorf("the third send was %q", got)
		}
	})
}

func TestAWriteThatComesAloneIsSentByItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := pipe(t, time.Minute)
		for range 3 {
			returned := make(chan struct{})
			go func() { defer close(returned); write(t, s, "alone") }()
			synctest.Wait()
			select {
			case <-returned:
				t.Error("it returned before it was sent")
			default:
			}
			if got := sent(t, peer); got != "alone" {
				t.Errorf("the send was %q", got)
			}
			<-returned
			time.Sleep(burst)
		}
	})
}

func TestASocketKeepsABoundedAmountUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := pipe(t, time.Minute)
		begin(t, s, "one")
		write(t, s, strings.Repeat("x", maxUnsent))
		third := make(chan struct{})
		go func() { defer close(third); write(t, s, "y") }()
		synctest.Wait()
		select {
		case <-third:
			t.Error("a byte beyond the bound was taken")
		default:
		}
		sent(t, peer)
		<-third // the second is on its way
		if got := len(sent(t, peer)); got != maxUnsent {
			t.Errorf("%d bytes in the second send, want %d", got, maxUnsent)
		}
		if got := sent(t, peer); got != "y" {
			t.Errorf("the third send was %q", got)
		}
		large := strings.Repeat("z", 2*maxUnsent)
		begin(t, s, large)
		if got := sent(t, peer); got != large {
			t.Errorf("a write of more than the bound, alone: %d bytes came", len(got))
		}
	})
}

func TestASendThatIsNotTakenEndsTheSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pipe(t, time.Minute)
		began := time.Now()
		begin(t, s, "one")
		write(t, s, strings.Repeat("x", maxUnsent))
		if _, err := s.Write([]byte("y")); !isTimeout(err) { // it waited
			t.Errorf("a write that waits: %v, want the send's timeout", err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
		if _, err := s.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("read: %v, want why it ended", err)
		}
		if _, err := s.Write([]byte("z")); !isTimeout(err) {
			t.Errorf("a later write: %v, want why it ended", err)
		}
	})
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func TestCloseSendsWhatWasWritten(t *testing.T) {
	s, peer := pipe(t, time.Minute)
	read := make(chan []byte, 1)
	go func() {
		p, _ := io.ReadAll(peer) // what came
		read <- p
	}()
	var want bytes.Buffer
	for range 100 {
		want.WriteString("goodbye ")
		write(t, s, "goodbye ")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := <-read; !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d bytes came, want %d", len(got), want.Len())
	}
	if _, err := s.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after Close: %v", err)
	}
}

func TestCloseWaitsForNobodyLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := pipe(t, time.Minute)
		begin(t, s, "one")
		write(t, s, "two")
		began := time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != closeWithin {
			t.Errorf("it took %v, want %v", took, closeWithin)
		}
	})
}
