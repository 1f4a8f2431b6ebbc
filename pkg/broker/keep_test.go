package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var worker = broker.Worker("i1-w1")

// kept is one call of Keep over a broker in memory, in a synctest bubble.
type kept struct {
	*memory.Broker
	stop context.CancelFunc
	end  chan error // what Keep returned

	mu sync.Mutex
	history
}

// history is what a kept saw.
type history struct {
	joins  []time.Time    // of every Join
	states []broker.State // as reported
	links  []broker.Link  // as served
	causes []error        // why the context of each ended
}

// Join notes the time and goes on.
func (k *kept) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	k.mu.Lock()
	k.joins = append(k.joins, time.Now())
	k.mu.Unlock()
	return k.Broker.Join(ctx, id)
}

// keep starts Keep and waits until it can do nothing more without time passing. It is stopped at
// the end of the test at the latest.
func keep(t *testing.T, b *memory.Broker, serve func(context.Context, broker.Link) error) *kept {
	ctx, stop := context.WithCancel(t.Context())
	k := &kept{Broker: b, stop: stop, end: make(chan error, 1)}
	onState := func(s broker.State) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.states = append(k.states, s)
	}
	go func() {
		k.end <- broker.Keep(ctx, k, worker, broker.KeepOptions{OnState: onState}, func(ctx context.Context, l broker.Link) error {
			k.mu.Lock()
			k.links = append(k.links, l)
			k.mu.Unlock()
			err := serve(ctx, l)
			k.mu.Lock()
			k.causes = append(k.causes, context.Cause(ctx))
			k.mu.Unlock()
			return err
		})
	}()
	t.Cleanup(stop)
	synctest.Wait()
	return k
}

// seen returns what has happened until now.
func (k *kept) seen() history {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.history
}

// waits are the pauses between one Join and the next.
func (h history) waits() (ds []time.Duration) {
	for i := range h.joins[1:] {
		ds = append(ds, h.joins[i+1].Sub(h.joins[i]))
	}
	return ds
}

func (h history) phases() (ps []broker.Phase) {
	for _, s := range h.states {
		ps = append(ps, s.Phase)
	}
	return ps
}

func (h history) last() broker.State { return h.states[len(h.states)-1] }

// after lets time pass, and everything happen that it brings.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// untilEnd serves until its context ends.
func untilEnd(ctx context.Context, _ broker.Link) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestKeepServesOneLinkUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, memory.New(memory.Options{}), untilEnd)
		if got, want := k.seen().phases(), []broker.Phase{broker.Down, broker.Up}; !slices.Equal(got, want) {
			t.Errorf("phases %v, want %v", got, want)
		}
		after(time.Hour)
		k.stop()
		if err := <-k.end; err != nil {
			t.Errorf("Keep: %v, want nil", err)
		}
		h := k.seen()
		if <-h.links[0].Done(); h.links[0].Err() != nil {
			t.Errorf("the link ended with %v, want Close", h.links[0].Err())
		}
		if s := h.last(); len(h.joins) != 1 || s.Phase != broker.Down || s.Err != nil {
			t.Errorf("%d joins, last state %+v; want 1, down with no error", len(h.joins), s)
		}
	})
}

func TestKeepJoinsAgainAfterACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		slow := make(chan struct{})
		k := keep(t, b, func(ctx context.Context, l broker.Link) error {
			<-ctx.Done()
			<-slow
			return nil
		})
		b.Cut(worker)
		synctest.Wait()
		if s := k.seen().last(); s.Phase != broker.Down || !errors.Is(s.Err, broker.ErrLinkGone) {
			t.Errorf("while serve has not returned: %+v, want down, ErrLinkGone", s)
		}
		close(slow)
		synctest.Wait()
		at := time.Now()
		after(time.Second)
		h := k.seen()
		if !errors.Is(h.causes[0], broker.ErrLinkGone) {
			t.Errorf("serve's context ended with %v, want ErrLinkGone", h.causes[0])
		}
		if len(h.links) != 2 || h.links[1].Generation() <= h.links[0].Generation() {
			t.Errorf("%d links, want a second of a higher generation", len(h.links))
		}
		if want := []broker.Phase{broker.Down, broker.Up, broker.Down, broker.Up}; !slices.Equal(h.phases(), want) {
			t.Errorf("phases %v, want %v", h.phases(), want)
		}
		if wait := h.joins[1].Sub(at); wait < 200*time.Millisecond || wait > 400*time.Millisecond {
			t.Errorf("joined again after %v, want 0.2 to 0.4 s", wait)
		}
	})
}

func TestKeepWaitsLongerWhileTheBrokerIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		b.Down(true)
		k := keep(t, b, untilEnd)
		began := time.Now()
		after(time.Minute)
		h := k.seen()
		for i, wait := range h.waits() {
			if wait < 200*time.Millisecond || wait > 5*time.Second {
				t.Errorf("wait %d was %v, want 0.2 to 5 s", i+1, wait)
			}
		}
		if n := len(h.joins); n < 12 || n > 30 {
			t.Errorf("%d joins in a minute, want 12 to 30", n)
		}
		if s := k.seen().last(); s.Phase != broker.Down || s.Err == nil || !s.Since.Equal(began) {
			t.Errorf("state %+v, want down since %v with an error", s, began)
		}
		if len(h.states) != 2 {
			t.Errorf("%d states were reported for one error, want 2", len(h.states))
		}

		b.Down(false)
		after(5 * time.Second)
		if s := k.seen().last(); s.Phase != broker.Up {
			t.Fatalf("5 s after the broker is back: %+v, want up", s)
		}
		for _, life := range []time.Duration{5 * time.Second, time.Second} {
			after(life)
			joins := len(k.seen().joins)
			b.Cut(worker)
			after(400 * time.Millisecond)
			if soon, long := len(k.seen().joins) > joins, life >= 5*time.Second; soon != long {
				t.Errorf("a link lived %v: joined again within 0.4 s: %v, want %v", life, soon, long)
			}
		}
	})
}

func TestKeepSaysThatAnotherProcessIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		other, err := b.Join(t.Context(), worker)
		if err != nil {
			t.Fatal(err)
		}
		k := keep(t, b, untilEnd)
		began := time.Now()
		after(999 * time.Millisecond)
		if s := k.seen().last(); s.Phase != broker.Down || !errors.Is(s.Err, broker.ErrLocked) {
			t.Errorf("after two tries: %+v, want down, ErrLocked", s)
		}
		after(time.Minute)
		h := k.seen()
		s := h.last()
		if s.Phase != broker.Locked || !errors.Is(s.Err, broker.ErrLocked) || !strings.Contains(s.Err.Error(), "another process with this ID is alive") {
			t.Errorf("after three tries: %+v, want locked and why", s)
		}
		if after := s.Since.Sub(began); after != time.Second {
			t.Errorf("locked after %v, want 1 s", after)
		}
		for i, wait := range h.waits() {
			if wait != 500*time.Millisecond {
				t.Errorf("wait %d was %v, want 0.5 s", i+1, wait)
			}
		}
		other.Close(t.Context())
		after(500 * time.Millisecond)
		if s := k.seen().last(); s.Phase != broker.Up {
			t.Errorf("once the other is gone: %+v, want up", s)
		}
	})
}

func TestKeepCountsTriesInARowOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		lock := func() {
			if _, err := b.Join(t.Context(), worker); err != nil {
				t.Fatal(err)
			}
		}
		lock()
		k := keep(t, b, untilEnd)
		after(750 * time.Millisecond) // two tries
		b.Down(true)
		after(250 * time.Millisecond) // the third finds no broker
		b.Down(false)
		lock()
		after(900 * time.Millisecond) // the fourth is the first again
		for _, s := range k.seen().states {
			if s.Phase != broker.Down {
				t.Errorf("state %+v, want down", s)
			}
		}
		after(time.Second)
		if s := k.seen().last(); s.Phase != broker.Locked {
			t.Errorf("after three tries in a row: %+v, want locked", s)
		}
	})
}

func TestKeepGivesUpALinkThatServeLeaves(t *testing.T) {
	for name, refused := range map[string]error{"with an error": broker.ErrRefused, "with nil": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keep(t, memory.New(memory.Options{}), func(context.Context, broker.Link) error { return refused })
				h := k.seen()
				s := h.last()
				if s.Phase != broker.Down || s.Err == nil || refused != nil && !errors.Is(s.Err, refused) {
					t.Errorf("state %+v, want down and why", s)
				}
				if <-h.links[0].Done(); h.links[0].Err() != nil {
					t.Errorf("the link ended with %v, want Close", h.links[0].Err())
				}
				after(time.Minute)
				if n := len(k.seen().links); n < 12 || n > 30 {
					t.Errorf("%d links in a minute, want 12 to 30: the pause must grow", n)
				}
			})
		})
	}
}

func TestKeepReturnsWhatFailedAtTheEnd(t *testing.T) {
	boom := errors.New("boom")
	for name, test := range map[string]struct{ served, want error }{
		"serve failed":               {boom, boom},
		"serve told of the end":      {context.Canceled, nil},
		"serve returned as it shall": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keep(t, memory.New(memory.Options{}), func(ctx context.Context, _ broker.Link) error {
					<-ctx.Done()
					return test.served
				})
				k.stop()
				if err := <-k.end; !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("Keep: %v, want %v", err, test.want)
				}
			})
		})
	}
}

func TestKeepForgivesALinkThatBreaksWhileItIsToldToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		k := keep(t, b, func(_ context.Context, l broker.Link) error {
			<-l.Done() // it looks at its link, and not at its context
			return fmt.Errorf("the inbox: %w", broker.ErrLinkGone)
		})
		k.stop()
		synctest.Wait()
		b.Cut(worker)
		if err := <-k.end; err != nil {
			t.Errorf("Keep: %v, want nil: the link would have ended anyway", err)
		}
	})
}

func TestKeepBoundsTheCloseOfALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		b.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Fate: memory.Hang} })
		var r broker.Receipt
		k := keep(t, b, func(ctx context.Context, l broker.Link) (err error) {
			r, err = l.Publish(ctx, broker.ToAll(), broker.Message{})
			<-ctx.Done()
			return err
		})
		at := time.Now()
		k.stop()
		if err := <-k.end; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Keep: %v, want a deadline exceeded", err)
		}
		if took := time.Since(at); took != 5*time.Second {
			t.Errorf("Keep returned after %v, want 5 s", took)
		}
		if r.Outcome() != broker.Unknown {
			t.Errorf("the receipt is %v, want unknown", r.Outcome())
		}
	})
}

func TestKeepReturnsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		b.Down(true)
		k := keep(t, b, untilEnd)
		k.stop()
		if err := <-k.end; err != nil {
			t.Errorf("Keep: %v, want nil", err)
		}
	})
}
