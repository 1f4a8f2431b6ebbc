package wsclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func request(id, key string) *wire.Request {
	return &wire.Request{ID: id, Key: key, Name: "approve", Body: []byte(`{"amount":12}`), TimeoutMS: 10_000}
}

// replied takes a reply.
func (p *peer) replied(id, body, failure string) {
	p.t.Helper()
	m := receive[*wire.Reply](p)
	if m.Request != id || string(m.Body) != body || m.Error != failure {
		p.t.Errorf("the client replied to %s with %s, %q, want %s, %s, %q", m.Request, m.Body, m.Error, id, body, failure)
	}
}

func TestARequestIsDoneOnceForAllThatHaveItsKey(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var done atomic.Int32
		c, p := s.open(Options{OnRequest: func(_ context.Context, r wire.Request) (any, error) {
			time.Sleep(time.Second)
			if r.Name != "approve" || string(r.Body) != `{"amount":12}` {
				return nil, fmt.Errorf("asked for %s with %s", r.Name, r.Body)
			}
			return map[string]int32{"n": done.Add(1)}, nil
		}})
		p.send(request("a", "k"))
		p.send(request("a", "k"))
		p.send(request("b", "k"))
		p.replied("a", `{"n":1}`, "")
		p.replied("b", `{"n":1}`, "")
		p.silent()
		p.send(request("c", "k"))
		p.replied("c", `{"n":1}`, "")
		p.send(request("d", "k2"))
		synctest.Wait()
		c.Cut()
		p = s.next()
		p.welcome("two")
		p.send(request("d", "k2"))
		p.replied("d", `{"n":2}`, "")
		p.silent()
		if done.Load() != 2 {
			t.Errorf("the application was called %d times, want once for each key", done.Load())
		}
	})
}

func TestRepliesThatCannotBeAreErrors(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.start(Options{OnRequest: func(ctx context.Context, r wire.Request) (any, error) {
			switch r.Key {
			case "huge":
				return strings.Repeat("x", wire.MaxClientFrame), nil
			case "wordy":
				return nil, errors.New(strings.Repeat("ü", wire.MaxReason))
			case "mute":
				return nil, errors.New("")
			case "slow":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return func() {}, nil
		}})
		p := s.next()
		p.welcome("one")
		p.send(request("a", "huge"))
		p.replied("a", "", "the reply has 65706 bytes and may have 65536")
		p.send(request("b", "wordy"))
		p.replied("b", "", strings.Repeat("ü", wire.MaxReason/2))
		p.send(request("c", "mute"))
		p.replied("c", "", "the client failed")
		p.send(request("d", "odd"))
		p.replied("d", "", "json: unsupported type: func()")
		begin := time.Now()
		p.send(request("e", "slow"))
		p.replied("e", "", "context deadline exceeded")
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("ctx ended after %v, want the request's 10 s", took)
		}
	})
}

func TestAClientWithoutOnRequestSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		_, p := s.open(Options{})
		p.send(request("a", "k"))
		p.replied("a", "", "this client answers no requests")
	})
}

func TestSixtyFourRequestsAtOnceAndRunWaitsForThem(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var now, most, ended atomic.Int32
		c, p := s.open(Options{OnRequest: func(ctx context.Context, r wire.Request) (any, error) {
			most.Store(max(most.Load(), now.Add(1)))
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				time.Sleep(time.Second)
			}
			now.Add(-1)
			ended.Add(1)
			return 1, nil
		}})
		go func() {
			for i := range 200 {
				id := fmt.Sprint(i)
				p.send(request(id, id))
			}
		}()
		for range 65 {
			receive[*wire.Reply](p)
		}
		synctest.Wait()
		if most.Load() != maxAnswering {
			t.Errorf("%d requests were answered at once, want %d", most.Load(), maxAnswering)
		}
		if err := c.stop(); err != nil {
			t.Error(err)
		}
		if now.Load() != 0 || ended.Load() != 3*maxAnswering {
			t.Errorf("Run returned while %d of %d were being answered", now.Load(), ended.Load())
		}
	})
}

func TestAnswersAreBounded(t *testing.T) {
	at := time.Unix(0, 0)
	a := answers{byKey: map[string]*answer{}}
	var running []*answer
	begin := func() {
		for w := a.next(at); w != nil; w = a.next(at) {
			running = append(running, w)
		}
	}
	for i := range maxAnswering + maxAsked {
		if r := a.ask(request(fmt.Sprint(i), fmt.Sprint(i)), at); r != nil {
			t.Fatalf("request %d was replied to: %+v", i, r)
		}
		begin()
	}
	if r := a.ask(request("more", "more"), at); r == nil || r.Error != "the client has 1000 requests that wait" || len(a.byKey) != maxAnswering+maxAsked {
		t.Errorf("one too many was replied to with %+v, and %d are known", r, len(a.byKey))
	}
	for i := range 20 {
		a.ask(request(fmt.Sprint("again", i), "0"), at)
	}
	if got := a.finish(running[0], 1, nil); len(got) != maxAskers || got[maxAskers-1].Request != "again19" {
		t.Errorf("%d were replied to at once, want the last %d", len(got), maxAskers)
	}
	for done := 1; done < len(running); done++ {
		begin()
		a.finish(running[done], 1, nil)
	}
	if len(running) != maxAnswering+maxAsked || len(a.byKey) != keptAnswers {
		t.Errorf("%d were done and %d are remembered, want %d", len(running), len(a.byKey), keptAnswers)
	}
	a.ask(request("late", "late"), at)
	at = at.Add(10 * time.Second)
	if w := a.next(at); w != nil || a.byKey["late"] != nil {
		t.Errorf("a request was begun when nobody waited for it any more")
	}
}
