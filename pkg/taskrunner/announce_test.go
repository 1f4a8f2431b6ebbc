package taskrunner

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// told takes what was announced to the worker since it was asked last.
func (w *world) told() (all []*wire.Kinds) {
	synctest.Wait()
	w.mu.Lock()
	link := w.link
	w.mu.Unlock()
	for len(link.Inbox()) > 0 {
		m := <-link.Inbox()
		c, err := wire.DecodeControl(m.Type, m.Body)
		if err != nil {
			w.Errorf("%s: %v", m.Type, err)
		} else if kinds, ok := c.(*wire.Kinds); ok {
			all = append(all, kinds)
		}
	}
	return all
}

func TestTheProbeOfAnotherRunnerIsNothingToComplainAbout(t *testing.T) {
	inWorld(t, func(w *world) {
		logs, seen := observer.New(zap.WarnLevel)
		defer w.run(&Runner{Log: zap.New(logs), Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) { return nil, nil })}}})()
		w.mu.Lock()
		link := w.link
		w.mu.Unlock()
		if _, err := link.Publish(w.Context(), broker.ToControl(broker.Runner("r1")), broker.Message{Type: probeType, Body: []byte("{}")}); err != nil {
			w.Fatal(err)
		}
		synctest.Wait()
		for _, line := range seen.All() {
			w.Errorf("it says %s", line.Message)
		}
	})
}

func TestARunnerAnnouncesItsKinds(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.run(&Runner{Slots: 3, Kinds: map[string]Kind{
			"k":     {Handler: HandlerFunc(func(context.Context, *Task) (any, error) { return nil, nil }), Schema: json.RawMessage(`{"type":"object"}`)},
			"plain": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) { return nil, nil }), Timeout: time.Minute},
		}})
		kinds := &wire.Kinds{Runner: "r1", Slots: 3, Kinds: []wire.KindOffer{
			{Kind: "k", Schema: json.RawMessage(`{"type":"object"}`), TimeoutMS: 3_600_000}, {Kind: "plain", TimeoutMS: 60_000},
		}}
		wants := func(when string, want ...*wire.Kinds) {
			w.Helper()
			if diff := cmp.Diff(want, w.told()); diff != "" {
				w.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		wants("when it begins", kinds)
		pass(61 * time.Second)
		wants("in a minute", kinds, kinds)
		w.mu.Lock()
		link := w.link
		w.mu.Unlock()
		for _, ask := range []wire.ControlMessage{&wire.AskKinds{From: testServer}, &wire.AskKinds{From: "i2-w9"}, &wire.Seek{From: testServer, Clients: []socketmeta.ClientID{w.client}}} {
			_, err := link.Publish(w.Context(), broker.ToAll(), broker.Message{Type: ask.ControlType(), Body: wire.EncodeControl(ask)})
			if err != nil {
				w.Fatal(err)
			}
		}
		wants("when it was asked by this worker and another", kinds)
		w.Cut(broker.Runner("r1"))
		pass(10 * time.Second)
		wants("on the next link", kinds)
		stop()
		wants("when it stops", &wire.Kinds{Runner: "r1", Slots: 3})
	})
}

func TestParametersThatTheSchemaRefusesReachNoHandler(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {
			Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
				var p map[string]any
				err := task.Params(&p)
				return p, err
			}),
			Schema: json.RawMessage(`{"required":["a","b"],"properties":{"a":{"type":"integer"},"b":{"default":1}}}`),
		}}})()
		w.submit("bad", "k", map[string]any{"a": "x"})
		w.submit("none", "k", nil)
		w.submit("good", "k", map[string]any{"a": 7})
		w.want("bad", "error bad_params a must be integer, not string")
		w.want("none", "error bad_params a is missing")
		w.want("good", "started", `result {"a":7}`) // the default is the schema's, not given
	})
}

func TestASchemaThatIsNoneIsAnErrorThatNamesTheKind(t *testing.T) {
	h := HandlerFunc(func(context.Context, *Task) (any, error) { return nil, nil })
	for name, test := range map[string]struct {
		kinds map[string]Kind
		want  string
	}{
		"no JSON":           {map[string]Kind{"a": {Handler: h}, "b": {Handler: h, Schema: json.RawMessage("{")}}, `Kinds: "b": Schema: it is no JSON object`},
		"a type that is 7":  {map[string]Kind{"b": {Handler: h, Schema: json.RawMessage(`{"type":7}`)}}, `Kinds: "b": Schema: `},
		"of another server": {map[string]Kind{"b": {Handler: h, Schema: json.RawMessage(`{"$ref":"https://example.org/s"}`)}}, `Kinds: "b": Schema: `},
		"empty":             {map[string]Kind{"b": {Handler: h, Schema: json.RawMessage{}}}, `Kinds: "b": Schema: it is no JSON object`},
	} {
		r := Runner{Name: "r1", Broker: memory.New(memory.Options{}), Kinds: test.kinds}
		if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	many := map[string]Kind{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		many[name] = Kind{Handler: h, Schema: json.RawMessage(`{"title":"` + strings.Repeat("x", 60_000) + `"}`)}
	}
	r := Runner{Name: "r1", Broker: memory.New(memory.Options{}), Kinds: many}
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "may have 262144") {
		t.Errorf("too much for one message: got %v", err)
	}
}
