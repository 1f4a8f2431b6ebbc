package ask

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// deskOf returns a desk whose clients are all attached to it, and what they are sent.
func deskOf(t *testing.T) (*Desk, chan *wire.Request) {
	sent := make(chan *wire.Request, 100)
	d := New(Options{
		Server: "i1-w1",
		Say:    func(to broker.Address, m wire.ControlMessage) { t.Errorf("it says %T to %v", m, to) },
		Send:   func(_ socketmeta.ClientID, m wire.ServerMessage) bool { sent <- m.(*wire.Request); return true },
	})
	t.Cleanup(d.Close)
	return d, sent
}

func TestAClientThatIsHereIsAskedHereAndNowhereElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, sent := deskOf(t)
		go func() {
			r := <-sent
			if r.Key != "k" || r.Name != "approve" || string(r.Body) != `{"amount":12}` || r.TimeoutMS != 30_000 {
				t.Errorf("the client is sent %+v", r)
			}
			if err := d.Reply(alice, &wire.Reply{Request: r.ID}); err != nil {
				t.Error(err)
			}
		}()
		a, err := d.Ask(t.Context(), questionFor(alice, "k"))
		if err != nil || string(a.Body) != "null" {
			t.Errorf("Ask = %+v, %v, want null: there was no body", a, err)
		}
	})
}

func TestEachWaitsForItsOwnTimeAndTheAnswerIsThereForWhoAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, sent := deskOf(t)
		began := time.Now()
		refused := func(ctx context.Context, q Question, code wire.Code, within time.Duration) {
			t.Helper()
			_, err := d.Ask(ctx, q)
			e, ok := errors.AsType[*wire.Error](err)
			if !ok || e.Code != code || time.Since(began) != within {
				t.Errorf("Ask = %v after %v, want %s after %v", err, time.Since(began), code, within)
			}
			if code == wire.CodeNoAnswer && e.Message != "the client was asked, and did not answer in time" {
				t.Errorf("the message is %q, though the client was reached", e.Message)
			}
		}
		q := questionFor(alice, "k")
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Ask(gone, q); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ask = %v, want ctx's", err)
		}
		short := q
		short.Within = 2 * time.Second
		refused(t.Context(), short, wire.CodeNoAnswer, 3*time.Second)
		if n := d.Open(); n != 1 {
			t.Errorf("%d questions are open, want that of who has gone", n)
		}
		refused(t.Context(), q, wire.CodeNoAnswer, 30*time.Second)
		if err := d.Reply(alice, &wire.Reply{Request: (<-sent).ID, Body: []byte("1")}); err != nil {
			t.Errorf("a late reply: %v", err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if a, err := d.Ask(t.Context(), q); err != nil || string(a.Body) != "2" {
				t.Errorf("asked again: %+v, %v", a, err)
			}
		}()
		synctest.Wait()
		for len(sent) > 1 {
			<-sent
		}
		_ = d.Reply(alice, &wire.Reply{Request: (<-sent).ID, Body: []byte("2")})
		<-done
		if a, err := d.Ask(t.Context(), q); err != nil || string(a.Body) != "2" {
			t.Errorf("asked after the answer: %+v, %v", a, err)
		}
		go func() {
			time.Sleep(time.Second)
			d.Close()
		}()
		refused(t.Context(), questionFor(bob, "k"), wire.CodeUnavailable, 31*time.Second)
		refused(t.Context(), questionFor(bob, "k"), wire.CodeUnavailable, 31*time.Second)
	})
}
