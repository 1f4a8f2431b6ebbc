package taskrunner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/wire"
)

// watch collects what is published to the channels, as the test's worker gets it.
func (w *world) watch(channels ...wire.Channel) (posts func() []wire.Post) {
	w.Helper()
	w.mu.Lock()
	link := w.link
	w.mu.Unlock()
	sub, err := link.OpenChannels(w.Context(), testServer)
	if err == nil {
		err = sub.Bind(w.Context(), channels...)
	}
	if err != nil {
		w.Fatal(err)
	}
	return func() (all []wire.Post) {
		for {
			synctest.Wait()
			select {
			case p := <-sub.Posts():
				post, err := wire.DecodePost(p.Channel, p.Type, p.Headers, p.Body, p.Time)
				if err != nil {
					w.Fatal(err)
				}
				all = append(all, *post)
			default:
				return all
			}
		}
	}
}

// stands is a workflow's post in one line.
func stands(t *testing.T, p *wire.Post) string {
	t.Helper()
	var f wire.Workflow
	if err := json.Unmarshal(p.Body, &f); err != nil || p.Name != "workflow" || p.Key != string(f.WorkflowID) || !p.Time.Equal(f.Timestamp.Time) {
		t.Fatalf("post %+v (%s): %v", p, p.Body, err)
	}
	return fmt.Sprintf("%s %s %s %d/%d %s", f.WorkflowID, f.Kind, f.Status, f.CurrentStep, f.TotalSteps, f.Message)
}

func (w *world) wantStands(posts []wire.Post, want ...string) {
	w.Helper()
	var got []string
	for i := range posts {
		got = append(got, stands(w.T, &posts[i]))
	}
	if !slices.Equal(got, want) {
		w.Errorf("watchers have\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// ask asks runner r1 what it has of channels.
func (w *world) ask(channels ...wire.Channel) map[wire.Channel][]wire.Post {
	w.Helper()
	w.mu.Lock()
	link := w.link
	w.mu.Unlock()
	q := &wire.FindChannels{From: testServer, Ask: wire.NewRunID(), Channels: channels}
	if _, err := link.Publish(w.Context(), broker.ToAll(), broker.Message{Type: q.ControlType(), Body: wire.EncodeControl(q)}); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
	for len(link.Inbox()) > 0 {
		m := <-link.Inbox()
		c, err := wire.DecodeControl(m.Type, m.Body)
		if err != nil {
			w.Fatal(err)
		}
		if found, ok := c.(*wire.ChannelsFound); ok && found.Ask == q.Ask && found.Name == "r.r1" {
			all := map[wire.Channel][]wire.Post{}
			for _, c := range found.Channels {
				all[c.Channel] = c.Kept
			}
			return all
		}
	}
	w.Fatal("the runner did not answer")
	return nil
}

func TestARunnerSaysHowItsTasksStand(t *testing.T) {
	inWorld(t, func(w *world) {
		watched := w.watch("workflow.t1", "workflows")
		release := make(chan struct{})
		stop := w.handle(func(_ context.Context, task *Task) (any, error) {
			task.Steps(3)
			task.Step("get")
			task.Progress(1, 0, "far")
			task.Step("make")
			task.Progress(1, 4, "")
			<-release
			task.Progress(2, 4, "cc")
			time.Sleep(time.Second)
			task.Step("test")
			if task.ID == "t2" {
				return nil, errors.New("exit code 1")
			}
			return 1, nil
		})
		defer stop()
		w.submit("t1", "k", nil)
		close(release)
		pass(5 * time.Second)
		w.submit("t2", "k", nil)
		pass(5 * time.Second)
		of := map[wire.Channel][]wire.Post{}
		last := map[wire.RunID]int64{}
		for _, p := range watched() {
			of[p.Channel] = append(of[p.Channel], p)
			if p.Publisher != "r1" || p.Seq != last[p.Stream]+1 {
				t.Errorf("post %d of %s came after %d", p.Seq, p.Channel, last[p.Stream])
			}
			last[p.Stream] = p.Seq
		}
		t1 := []string{
			"t1 k running 0/0 started on r1", "t1 k running 1/3 step 1 of 3: get", "t1 k running 1/3 step 1 of 3: get: far",
			"t1 k running 2/3 step 2 of 3: make", "t1 k running 2/3 step 2 of 3: make: 2 of 4, cc",
			"t1 k running 3/3 step 3 of 3: test", "t1 k succeeded 3/3 ended with a result",
		}
		w.wantStands(of["workflow.t1"], t1...)
		t2 := []string{}
		for _, line := range t1[:len(t1)-1] {
			t2 = append(t2, strings.Replace(line, "t1", "t2", 1))
		}
		t2 = append(t2, "t2 k failed 3/3 failed (failed): exit code 1")
		w.wantStands(of["workflows"], slices.Concat(t1, t2)...)

		found := w.ask("workflows", "workflow.t1", "workflow.none", "other")
		w.wantStands(found["workflows"], t1[len(t1)-1], t2[len(t2)-1])
		w.wantStands(found["workflow.t1"], t1[len(t1)-1])
		if len(found) != 2 {
			t.Errorf("found %d channels, want the 2 of which it has something", len(found))
		}
	})
}

func TestProgressIsPublishedTenTimesASecondAtMost(t *testing.T) {
	inWorld(t, func(w *world) {
		watched := w.watch("workflow.t1")
		defer w.handle(func(_ context.Context, task *Task) (any, error) {
			task.Step("s")
			for i := range 2000 {
				task.Progress(uint32(i), 2000, "")
				time.Sleep(time.Millisecond)
			}
			return nil, nil
		})()
		w.submit("t1", "k", nil)
		pass(5 * time.Second)
		posts := watched()
		if n := len(posts) - 3; n < 15 || n > 21 { // beside started, the step and the end
			t.Errorf("2 s of progress were %d posts, want about 20", n)
		}
		if last := stands(t, &posts[len(posts)-2]); !strings.Contains(last, "1999 of 2000") {
			t.Errorf("the last one before the end is %q, want the latest", last)
		}
	})
}

func TestATaskThatIsGivenUpWaitsAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		watched := w.watch("workflow.t1")
		tries := 0
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {Retries: 1, Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			if tries++; tries < 3 {
				return nil, cmpErr(tries == 1, errors.New("flaky"), ErrGiveBack)
			}
			return nil, wire.Errorf(wire.CodeCanceled, "no more")
		})}}})()
		w.submit("t1", "k", nil)
		pass(time.Minute)
		w.wantStands(watched(),
			"t1 k running 0/0 started on r1", "t1 k queued 0/0 attempt 1 failed; it waits for another one",
			"t1 k running 0/0 started on r1, attempt 2", "t1 k queued 0/0 attempt 2 was given up; it waits for another one",
			"t1 k running 0/0 started on r1, attempt 3", "t1 k canceled 0/0 ended because its client asked for it")
	})
}

func cmpErr(first bool, a, b error) error {
	if first {
		return a
	}
	return b
}

// TestAnOverviewSurvivesARestartOfItsRunner asks a runner that has published nothing yet, but whose disk knows its tasks.
func TestAnOverviewSurvivesARestartOfItsRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		dir := t.TempDir()
		start := func() (stop func()) {
			return w.run(&Runner{SpoolDir: dir, LogBytes: 1 << 30, Slots: 3, Kinds: map[string]Kind{"k": {Steps: 2, Handler: HandlerFunc(
				func(ctx context.Context, task *Task) (any, error) {
					task.Step("one")
					switch task.ID {
					case "bad":
						return nil, errors.New("exit code 1")
					case "long":
						<-ctx.Done()
						return nil, ErrGiveBack
					}
					return 1, nil
				})}}, Grace: -1})
		}
		stop := start()
		for _, id := range []wire.TaskID{"good", "bad", "long"} {
			w.submit(id, "k", nil)
			pass(time.Second)
		}
		running := w.ask("workflows")["workflows"]
		w.wantStands(running, "good k succeeded 1/2 ended with a result", "bad k failed 1/2 failed (failed): exit code 1", "long k running 1/2 step 1 of 2: one")
		stop()
		r := &Runner{SpoolDir: dir, LogBytes: 1 << 30, Kinds: map[string]Kind{"other": {Handler: HandlerFunc(func(ctx context.Context, _ *Task) (any, error) { <-ctx.Done(); return nil, ErrGiveBack })}}, Grace: -1}
		defer w.run(r)()
		found := w.ask("workflows", "workflow.good", "workflow.bad")
		w.wantStands(found["workflow.good"], "good k succeeded 1/2 ended with a result")
		w.wantStands(found["workflow.bad"], "bad k failed 1/2 failed (failed): exit code 1")
		w.wantStands(found["workflows"][:2], "good k succeeded 1/2 ended with a result", "bad k failed 1/2 failed (failed): exit code 1")
		if got := stands(t, &found["workflows"][2]); !strings.HasPrefix(got, "long k queued 1/2 attempt 1 was given up") {
			t.Errorf("the run that was given up stands as %q", got)
		}
		w.submit("new", "other", nil)
		pass(time.Second)
		found = w.ask("workflows") // what is new does not take the place of what was
		if posts := found["workflows"]; len(posts) < 4 || !strings.HasPrefix(stands(t, &posts[0]), "good") {
			t.Errorf("with a new task the overview has %d tasks, want those before it too", len(posts))
		}
	})
}

// TestThePageIsWrittenBeforeItsUpdate looks into the store from where the update is published (requirement V13).
func TestThePageIsWrittenBeforeItsUpdate(t *testing.T) {
	book := newBook(t, t.TempDir(), roomy)
	task := bookTask("t1")
	s := newStory()
	s.task, s.kept = task, beginRun(t, book, task)
	var seen []string
	s.watch = func(w *wire.Workflow) {
		page := book.workflows(task.Task, 1)[0]
		seen = append(seen, fmt.Sprintf("%s %d/%d", w.Status, w.CurrentStep, w.TotalSteps))
		if page.Status != w.Status || page.CurrentStep != w.CurrentStep || page.TotalSteps != w.TotalSteps {
			t.Errorf("published %+v while the page said %+v", w, page)
		}
	}
	must(t, s.started(2, epoch))
	must(t, s.begin("a", epoch))
	must(t, s.begin("b", epoch))
	must(t, s.end(nil, refusal(wire.CodeCanceled, "x"), epoch))
	if want := []string{"running 0/2", "running 1/2", "running 2/2", "canceled 2/2"}; !slices.Equal(seen, want) {
		t.Errorf("published %q, want %q", seen, want)
	}
}

func TestAnUpdateIsLaterThanTheSubmitOfAnyClock(t *testing.T) {
	s := newStory()
	task := *testTask
	task.Submitted = wire.Time{Time: epoch.Add(time.Minute)} // the worker's clock is ahead
	s.task = &task
	var got wire.Time
	s.watch = func(w *wire.Workflow) { got = w.Timestamp }
	must(t, s.started(0, epoch))
	if want := epoch.Add(time.Minute + time.Millisecond); !got.Equal(want) {
		t.Errorf("timestamp %v, want %v", got, want)
	}
	must(t, s.begin("a", epoch.Add(time.Hour)))
	if want := epoch.Add(time.Hour); !got.Equal(want) {
		t.Errorf("timestamp %v, want %v", got, want)
	}
}

func TestAMessageForWatchersIsShort(t *testing.T) {
	s := newStory()
	var got *wire.Workflow
	s.watch = func(w *wire.Workflow) { got = w }
	must(t, s.end(nil, refusal(wire.CodeFailed, strings.Repeat("é", 1000)), epoch))
	if n := len(got.Message); n > maxMessage || n < maxMessage-2 {
		t.Errorf("the message has %d bytes, want at most %d", n, maxMessage)
	}
}

func TestAHandlerPublishesToAChannel(t *testing.T) {
	inWorld(t, func(w *world) {
		watched := w.watch("builds", "builds.t1")
		own, err := channel.New(channel.Options{Name: "r1"})
		if err != nil {
			t.Fatal(err)
		}
		defer w.run(&Runner{Channels: own, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			if err := task.Publish("no channel", "", 1); !errors.Is(err, wire.ErrID) {
				t.Errorf("a wrong name: got %v", err)
			}
			if err := task.Publish("builds", "", func() {}); err == nil {
				t.Error("what is no JSON was published")
			}
			return nil, task.Publish("builds.t1", "note", map[string]int{"n": 1})
		})}}})()
		if err := own.Publish(channel.Message{Body: []byte("0")}, "builds", "builds.t1"); err != nil {
			t.Fatal(err)
		}
		w.submit("t1", "k", nil)
		pass(time.Second)
		var got []string
		for _, p := range watched() {
			got = append(got, fmt.Sprintf("%s %s %d %s", p.Channel, p.Name, p.Seq, p.Body))
		}
		if want := []string{"builds  1 0", "builds.t1  1 0", `builds.t1 note 2 {"n":1}`}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestARunnerAnnouncesHowMuchItRuns(t *testing.T) {
	inWorld(t, func(w *world) {
		release := make(chan struct{})
		defer w.run(&Runner{Slots: 5, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) { <-release; return nil, nil })}}})()
		loads := func() (all []int) {
			for _, k := range w.told() {
				all = append(all, k.Running)
			}
			return all
		}
		wants := func(when string, want ...int) {
			t.Helper()
			if got := loads(); !slices.Equal(got, want) {
				t.Errorf("%s: announced %v tasks, want %v", when, got, want)
			}
		}
		wants("when it begins", 0)
		pass(5 * time.Second)
		for i := range 3 {
			w.submit(wire.TaskID(fmt.Sprint("t", i)), "k", nil)
			pass(time.Millisecond)
		}
		wants("the first at once", 1)
		pass(announceGap)
		wants("a second later the others", 3)
		pass(5 * time.Second)
		wants("while nothing changes")
		close(release)
		pass(time.Second)
		if got := loads(); len(got) > 2 || got[len(got)-1] != 0 {
			t.Errorf("in the second when all end: announced %v tasks, want 0 at the end of at most two", got)
		}
		pass(20 * time.Second)
		wants("of every 30 s", 0)
	})
}
