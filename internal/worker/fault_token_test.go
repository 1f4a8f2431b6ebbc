package worker_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// A token decides whose events a socket gets and which mailbox is looked for: none that this cluster
// did not sign, or that has expired, does either. (Every single changed bit and every other spelling:
// pkg/socketmeta, TestEverySingleBitChangeIsRefused and TestEveryRespellingIsRefused.)
func TestFault30ATokenThatIsNotGoodGetsANewSessionAndTouchesNothing(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		rightful := b.bare(w, "")
		rightful.say(&wire.Hello{})
		held := rightful.meta()
		b.pass(20 * time.Second) // until the worker is the janitor and has what it looks for
		left := b.abandon("i9-w9")
		said := b.overhear()

		now := time.Now()
		meta := socketmeta.Meta{Client: held.Client, Server: "i9-w9", Epoch: held.Epoch + 1000}
		sign := func(k socketmeta.Keys, t socketmeta.Token) string {
			s, err := k.SignToken(t)
			if err != nil {
				b.Fatal(err)
			}
			return s
		}
		good := sign(b.keys, socketmeta.Token{Meta: meta, IssuedAt: now, Expires: now.Add(time.Hour)})
		route, err := b.keys.SignRoute(socketmeta.Route{Server: "i9-w9", Expires: now.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(good, ".")
		claims, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		altered := func(old, new string) string {
			body := strings.Replace(string(claims), old, new, 1)
			if body == string(claims) {
				t.Fatalf("%s is not among the claims %s", old, claims)
			}
			return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(body)) + "." + parts[2]
		}
		for name, token := range map[string]string{
			"signed by somebody else": sign(socketmeta.RandomKeys(), socketmeta.Token{Meta: meta, IssuedAt: now, Expires: now.Add(time.Hour)}),
			"expired":                 sign(b.keys, socketmeta.Token{Meta: meta, IssuedAt: now.Add(-time.Hour), Expires: now.Add(-time.Second)}),
			"a route ticket":          route,
			"with a higher epoch":     altered(`"epoch":`, `"epoch":9`),
			"with another server":     altered("i9-w9", "i1-w1"),
			"with another expiry":     altered(`"exp":946`, `"exp":999`),
			"with padding":            good + "=",
			"in capitals":             strings.ToUpper(good),
			"without its signature":   parts[0] + "." + parts[1] + ".",
			"said to be unsigned":     base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".",
			"with a line end":         good + "\n",
			"no token at all":         "x",
		} {
			s := b.bare(w, "")
			s.say(&wire.Hello{Token: token, Tasks: []wire.Position{{Task: "t"}}})
			m := s.meta()
			if m.Client == held.Client || m.Resumed || m.Reason == "" {
				t.Errorf("%s: got client %v, resumed %v, reason %q; want a new session and a reason", name, m.Client, m.Resumed, m.Reason)
			}
		}
		b.pass(10 * time.Second)
		if ms, code := rightful.all(); len(ms) != 0 || code != 0 {
			t.Errorf("the client whose ID was claimed got %v and was closed with %d", ms, code)
		}
		if n := said(); n["moved"] != 0 || n["probe"] != 0 || n["owner"] != 0 {
			t.Errorf("the workers said %v; want no claim, no probe and no adoption", n)
		}
		if ready, unsettled := b.broker.Depth(broker.MailboxQueue("i9-w9")); ready != left || unsettled != 0 {
			t.Errorf("%d and %d events in the mailbox that was named, want it left alone with %d", ready, unsettled, left)
		}

		// The same one, as this cluster signed it, does all of that.
		s := b.bare(w, "")
		s.say(&wire.Hello{Token: good})
		m := s.meta()
		s.say(&wire.Confirm{Epoch: m.Epoch})
		b.pass(5 * time.Second)
		if _, code := rightful.all(); code != wire.CloseReplaced || said()["probe"] == 0 {
			t.Errorf("the good token: the older socket was closed with %d, and the workers said %v", code, said())
		}
		if _, unsettled := b.broker.Depth(broker.MailboxQueue("i9-w9")); unsettled != left {
			t.Errorf("the good token: %d of %d events are with its worker", unsettled, left)
		}
	})
}

// abandon leaves a mailbox with events for somebody and no owner, and says how many.
func (b *bubble) abandon(id socketmeta.ServerID) int {
	b.Helper()
	link, err := b.broker.Join(context.Background(), broker.Worker(id))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := link.OpenMailbox(context.Background(), id, 1); err != nil {
		b.Fatal(err)
	}
	client := socketmeta.NewClientID()
	for seq := range int64(3) {
		e := wire.Event{Client: client, Task: "t", Attempt: 1, Run: run, Seq: seq + 1, Prev: seq, Type: wire.EventStep, Durable: true, Home: id, Epoch: 1}
		if _, err := link.Publish(context.Background(), broker.ToMailbox(id), broker.Message{Type: "step", Correlation: "t", Headers: e.Headers(), Body: []byte("{}")}); err != nil {
			b.Fatal(err)
		}
	}
	if err := link.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	ready, _ := b.broker.Depth(broker.MailboxQueue(id))
	return ready
}

// A confirm shows the epoch of the welcome that was sent on this very socket.
func TestFault30AConfirmWithAnotherEpochClaimsNothing(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w1, w2 := b.worker("i1-w1"), b.worker("i1-w2")
		first := b.bare(w1, "")
		first.say(&wire.Hello{})
		held := first.meta()
		said := b.overhear()
		s := b.bare(w2, "")
		s.say(&wire.Hello{Token: held.Token})
		m := s.meta()
		for _, epoch := range []socketmeta.Epoch{m.Epoch + 1, m.Epoch - 1, held.Epoch, 1, wire.MaxNumber} {
			s.say(&wire.Confirm{Epoch: epoch})
			if code := s.refused(); code != wire.CodeUnexpected {
				t.Errorf("epoch %d of %d: %q, want unexpected", epoch, m.Epoch, code)
			}
		}
		b.pass(time.Second)
		if _, code := first.all(); code != 0 || said()["moved"] != 0 {
			t.Errorf("the first socket was closed with %d, the workers said %v", code, said())
		}
		s.say(&wire.Confirm{Epoch: m.Epoch})
		b.pass(time.Second)
		if _, code := first.all(); code != wire.CloseMoved || said()["moved"] == 0 {
			t.Errorf("confirmed: the first socket was closed with %d, the workers said %v", code, said())
		}
	})
}
