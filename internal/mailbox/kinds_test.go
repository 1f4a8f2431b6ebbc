package mailbox

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/catalog"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// announcer is a runner that does nothing but to say which kinds it takes.
func announcer(b *bench, name string) (link broker.Link, announce func(schema string)) {
	b.t.Helper()
	link, err := b.broker.Join(b.t.Context(), broker.Runner(name))
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := link.OpenTasks(b.t.Context(), []string{"k"}, 1); err != nil {
		b.t.Fatal(err)
	}
	return link, func(schema string) {
		b.t.Helper()
		m := &wire.Kinds{Runner: name, Slots: 1, Kinds: []wire.KindOffer{{Kind: "k", Schema: json.RawMessage(schema)}}}
		if _, err := link.Publish(b.t.Context(), broker.ToAll(), broker.Message{Type: m.ControlType(), Body: wire.EncodeControl(m)}); err != nil {
			b.t.Fatal(err)
		}
		synctest.Wait()
	}
}

func TestBadParamsAreRefusedBeforeTheyArePublished(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		link, announce := announcer(b, "r1")
		defer link.Close(context.Background())
		submit := func(id wire.TaskID, params string) {
			b.Submit(b.o.Sessions.Find(1), &wire.Submit{ID: "q", Task: id, Kind: "k", Params: json.RawMessage(params)})
			synctest.Wait()
		}
		submit("before", `{"b":1}`) // nobody has said what k takes
		announce(`{"required":["a"]}`)
		submit("t", `{"b":1}`)
		submit("t", `{"b":1}`) // the ID is free again, and the answer the same
		submit("t", `{"a":1}`)
		submit("t", `{"b":1}`) // now it is not
		want := []string{"accepted", "error bad_params", "error bad_params", "accepted", "error conflict"}
		if got := b.sockets.since(1, 1); !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		if text := string(b.sockets.frames[1][2]); !strings.Contains(text, `"message":"a is missing"`) {
			t.Errorf("refused with %s", text)
		}
		if ready, unsettled := b.broker.Depth(broker.TasksQueue("k", wire.Normal)); ready+unsettled != 2 {
			t.Errorf("%d tasks were published, want 2", ready+unsettled)
		}
		time.Sleep(catalog.ForgetAfter)
		submit("later", `{"b":1}`)
		if got := b.sockets.since(1, 6); !slices.Equal(got, []string{"accepted"}) {
			t.Errorf("when the runner is forgotten: %v", got)
		}
	})
}

func TestAWorkerThatJoinsAsksForTheKinds(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		link, _ := announcer(b, "r1")
		defer link.Close(context.Background())
		b.broker.Cut(broker.Worker("i1-w1"))
		time.Sleep(5 * time.Second)
		asked := 0
		for len(link.Inbox()) > 0 {
			m := <-link.Inbox()
			if c, err := wire.DecodeControl(m.Type, m.Body); err != nil {
				t.Errorf("%s: %v", m.Type, err)
			} else if ask, ok := c.(*wire.AskKinds); ok && ask.From == "i1-w1" {
				asked++
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times on one link, want once", asked)
		}
	})
}
