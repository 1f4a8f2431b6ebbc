package mailbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestTheLatestRunSaysHowATaskStandsAndEndsBeforeItWereNone(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		runs := []wire.RunInfo{
			{Task: "t", Attempt: 1, Status: wire.RunFailed, Error: wire.Errorf(wire.CodeFailed, "no")},
			{Task: "t", Attempt: 3, Status: wire.RunFailed, Error: wire.Errorf(wire.CodeTimeout, "too long")},
			{Task: "t", Attempt: 2, Status: wire.RunSucceeded},
		}
		for i, name := range []string{"r1", "r2", "r3"} { // each has one run: tasks are taken over by others
			link, announce := announcer(b, name)
			defer link.Close(context.Background())
			announce("")
			runs[i].Run, runs[i].Runner = wire.NewRunID(), name
			go func() {
				for m := range link.Inbox() {
					c, err := wire.DecodeControl(m.Type, m.Body)
					q, ok := c.(*wire.FindRuns)
					if err != nil || !ok {
						continue
					}
					found := &wire.RunsFound{Ask: q.Ask, Runner: name, Runs: runs[i : i+1]}
					if _, err := link.Publish(context.Background(), broker.ToControl(broker.Worker(q.From)), broker.Message{Type: found.ControlType(), Body: wire.EncodeControl(found)}); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		show := func(f *Found, err error) (s string) {
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range f.Runs {
				s += fmt.Sprintf("%d %s %v; ", r.Attempt, r.Status, r.Error != nil)
			}
			return s
		}
		client := socketmeta.NewClientID()
		got := show(b.FindRuns(b.t.Context(), wire.FindRuns{Client: client, Task: "t", Limit: 10}))
		if want := "3 failed true; 2 given_up false; 1 given_up false; "; got != want {
			t.Errorf("the runs of the task: %s, want %s", got, want)
		}
		got = show(b.FindRuns(b.t.Context(), wire.FindRuns{Client: client, Limit: 10}))
		if want := "3 failed true; "; got != want {
			t.Errorf("in the list: %s, want %s", got, want)
		}
	})
}

func TestQuestionsBeyondTheBoundAreRefusedUntilOthersAreAnsweredOrLate(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		link, _ := announcer(b, "mute")
		defer link.Close(context.Background())
		read := func() wire.Code {
			_, err := b.ReadLog(b.t.Context(), "mute", wire.ReadLog{Client: b.client, Task: "t", Max: wire.MinLogChunk})
			e, ok := errors.AsType[*wire.Error](err)
			if !ok {
				b.t.Fatalf("got %v", err)
			}
			return e.Code
		}
		var waiting sync.WaitGroup
		for range maxAsks {
			waiting.Go(func() {
				if code := read(); code != wire.CodeLogUnavailable {
					b.t.Errorf("one of %d: %s", maxAsks, code)
				}
			})
		}
		synctest.Wait()
		if code := read(); code != wire.CodeOverloaded {
			b.t.Errorf("one more: %s", code)
		}
		waiting.Wait()
		began := time.Now()
		if code := read(); code != wire.CodeLogUnavailable || time.Since(began) != readWithin {
			b.t.Errorf("once those were late: %s after %v", code, time.Since(began))
		}
	})
}
