package rig

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echo answers each line with name and the line, on as many connections as come.
func echo(t *testing.T, name string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					io.WriteString(c, name+lines.Text()+"\n")
				}
				io.WriteString(c, "bye\n") // it heard the end and may still speak
			}()
		}
	}()
	return ln.Addr().String()
}

func proxyTo(t *testing.T, target string) *Proxy {
	t.Helper()
	p, err := StartProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say sends a line and returns what comes back within wait.
func say(c net.Conn, line string, wait time.Duration) (string, error) {
	c.SetDeadline(time.Now().Add(wait))
	if line != "" {
		if _, err := io.WriteString(c, line+"\n"); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

const (
	answerWithin = 20 * time.Second       // for what must come
	silence      = 100 * time.Millisecond // for what must not
)

func TestProxyForwardsBothWaysAndEnds(t *testing.T) {
	p := proxyTo(t, echo(t, "a "))
	c := dial(t, p.Addr)
	if got, err := say(c, "hello", answerWithin); got != "a hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.(*net.TCPConn).CloseWrite()
	if got, err := say(c, "", answerWithin); got != "bye" || err != nil {
		t.Errorf("after half a close: got %q, %v, want bye", got, err)
	}
	if _, err := say(c, "", answerWithin); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestProxySendsNewConnectionsToItsNewTarget(t *testing.T) {
	p := proxyTo(t, echo(t, "a "))
	old := dial(t, p.Addr)
	say(old, "x", answerWithin)
	p.SetTarget(echo(t, "b "))
	for c, want := range map[net.Conn]string{old: "a hi", dial(t, p.Addr): "b hi"} {
		if got, err := say(c, "hi", answerWithin); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	p.SetTarget("127.0.0.1:1") // nobody listens there
	conn, err := net.Dial("tcp", p.Addr)
	if err == nil { // the reset may come before the dial returns
		defer conn.Close()
		_, err = say(conn, "", answerWithin)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("no target: got %v, want a reset", err)
	}
}

func TestCutResetsAndRefusesUntilHeal(t *testing.T) {
	p := proxyTo(t, echo(t, ""))
	c := dial(t, p.Addr)
	say(c, "x", answerWithin)
	p.Cut()
	if _, err := say(c, "", answerWithin); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("open connection: got %v, want a reset", err)
	}
	if _, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("new connection: got %v, want refused", err)
	}
	if err := p.Heal(); err != nil {
		t.Fatal(err)
	}
	if got, err := say(dial(t, p.Addr), "again", answerWithin); got != "again" || err != nil {
		t.Errorf("healed: got %q, %v", got, err)
	}
}

func TestStallIsSilentAndHealLosesNothing(t *testing.T) {
	p := proxyTo(t, echo(t, ""))
	old, closed := dial(t, p.Addr), dial(t, p.Addr)
	say(old, "x", answerWithin)
	say(closed, "x", answerWithin)
	if err := p.Stall(); err != nil {
		t.Fatal(err)
	}
	young := dial(t, p.Addr) // accepted
	closed.(*net.TCPConn).CloseWrite()
	for name, c := range map[string]net.Conn{"old": old, "young": young} {
		if got, err := say(c, name, silence); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %q, %v, want silence", name, got, err)
		}
	}
	if got, err := say(closed, "", silence); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the end of a connection passed: %q, %v", got, err)
	}
	if err := p.Heal(); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]net.Conn{"old": old, "young": young, "bye": closed} {
		if got, err := say(c, "", answerWithin); got != want || err != nil {
			t.Errorf("healed: got %q, %v, want %q", got, err, want)
		}
	}
}

func TestStalledProxyCanBeCutAndStalledAgain(t *testing.T) {
	p := proxyTo(t, echo(t, ""))
	for range 3 {
		if err := p.Stall(); err != nil {
			t.Fatal(err)
		}
		c := dial(t, p.Addr)
		p.Cut()
		p.Cut()
		if got, err := say(c, "", answerWithin); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q, %v, want a reset or an end", got, err)
		}
	}
}

func TestDelayHoldsDataBack(t *testing.T) {
	p := proxyTo(t, echo(t, ""))
	c := dial(t, p.Addr)
	say(c, "x", answerWithin)
	p.SetDelay(silence)
	began := time.Now()
	if got, err := say(c, "slow", answerWithin); got != "slow" || err != nil || time.Since(began) < 2*silence {
		t.Errorf("got %q, %v after %v, want it after %v each way", got, err, time.Since(began), silence)
	}
}
