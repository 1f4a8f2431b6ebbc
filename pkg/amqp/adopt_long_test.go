//go:build long

package amqp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// Fault 26: the janitor against a busy publisher and a returning worker. Mailboxes are retired
// while somebody publishes to each without a pause and its worker tries to come back; whatever was
// stored is with the one who retires, with the worker or in the parked mailbox.
func TestRetiringUnderABusyPublisherLosesNothing(t *testing.T) {
	const rounds, sideBySide = 104, 13
	onBothTypes(t, func(t *testing.T, b *Broker) {
		janitor, publisher := join(t, b, broker.Worker(server())), join(t, b, broker.Worker(server()))
		var found sync.Map // the IDs of what was delivered, to anybody
		ctx, cancel := context.WithTimeout(context.Background(), 10*patience)
		defer cancel()
		take := func(m broker.Mailbox) {
			for d := range m.Deliveries() {
				found.Store(d.ID, true)
				if m.Ack(d.Tag) != nil {
					return
				}
			}
		}
		var readers sync.WaitGroup
		parked := adopt(t, join(t, b, broker.Worker(server())), broker.ParkedServer, 1000)
		readers.Go(func() { take(parked) })

		var stored atomic.Int64
		var retired, returned atomic.Int64
		round := func(s socketmeta.ServerID) error {
			var publishing sync.WaitGroup
			defer publishing.Wait()
			stop := make(chan struct{})
			defer close(stop)
			publishing.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					var receipts [20]broker.Receipt // under way at the same time
					for k := range receipts {
						var err error
						receipts[k], err = publisher.Publish(ctx, broker.ToMailbox(s), broker.Message{ID: fmt.Sprintf("%s %d %d", s, i, k)})
						if err != nil {
							t.Error(err)
							return
						}
					}
					for _, r := range receipts {
						if o, err := broker.Await(ctx, r); o != broker.Stored {
							t.Errorf("publish: %v, %v", o, err)
							return
						}
						stored.Add(1)
					}
				}
			})
			m, err := janitor.AdoptMailbox(ctx, s, 1000)
			if err != nil {
				return err
			}
			readers.Go(func() { take(m) })
			if err := m.Unbind(ctx); err != nil {
				return err
			}
			back := make(chan error, 1)
			go func() { back <- comeBack(ctx, b, s, &readers, take) }()
			time.Sleep(time.Second) // as the contract says
			for {
				err := m.Delete(ctx)
				if err == nil {
					break
				}
				if !errors.Is(err, broker.ErrNotEmpty) {
					return err
				}
			}
			retired.Add(1)
			if err := <-back; err != nil {
				return fmt.Errorf("the worker comes back: %w", err)
			}
			returned.Add(1)
			return nil
		}
		var servers []socketmeta.ServerID
		for range rounds {
			servers = append(servers, abandoned(t, janitor))
		}
		for batch := range rounds / sideBySide {
			var running sync.WaitGroup
			for _, s := range servers[batch*sideBySide:][:sideBySide] {
				running.Go(func() {
					if err := round(s); err != nil {
						t.Errorf("%s: %v", s, err)
					}
				})
			}
			running.Wait()
		}
		// Whatever is left is in the parked mailbox or with a worker that came back.
		count := func() (n int64) {
			found.Range(func(any, any) bool { n++; return true })
			return n
		}
		for limit := time.Now().Add(patience); count() < stored.Load() && time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		}
		cancel()
		if err := errors.Join(parked.Close(bounded(t)), janitor.Close(bounded(t))); err != nil {
			t.Error(err)
		}
		readers.Wait()
		t.Logf("%d mailboxes retired, %d workers came back, %d stored, %d found", retired.Load(), returned.Load(), stored.Load(), count())
		if got, want := count(), stored.Load(); got != want {
			t.Errorf("%d of %d stored messages were found", got, want)
		}
	})
}

// comeBack joins as the worker s as soon as it may, opens its mailbox and takes from it until ctx
// ends.
func comeBack(ctx context.Context, b *Broker, s socketmeta.ServerID, readers *sync.WaitGroup, take func(broker.Mailbox)) error {
	for {
		l, err := b.Join(ctx, broker.Worker(s))
		if errors.Is(err, broker.ErrLocked) {
			time.Sleep(10 * time.Millisecond)
			continue
		} else if err != nil {
			return err
		}
		for {
			m, err := l.OpenMailbox(ctx, s, 1000)
			if errors.Is(err, broker.ErrRefused) {
				time.Sleep(10 * time.Millisecond)
				continue
			} else if err != nil {
				return err
			}
			readers.Go(func() { take(m) })
			readers.Go(func() {
				<-ctx.Done()
				closing, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_ = l.Close(closing)
			})
			return nil
		}
	}
}

// Fault 3, and the broker's own: whoever adopts dies in the middle of it, again and again, or the
// broker does. All is there afterwards, in order.
func TestDeathInTheMiddleOfAdoptionLosesNothing(t *testing.T) {
	onBothTypes(t, func(t *testing.T, b *Broker) {
		l := join(t, b, broker.Worker(server()))
		s := abandoned(t, l)
		all := numbers(1, 500)
		store(t, l, broker.ToMailbox(s), all...)
		store(t, l, broker.ToHold(s), all...)
		if err := rabbit.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		for step := range 30 {
			killsBroker := step%10 == 9
			adopter, err := b.Join(bounded(t), broker.Worker(server()))
			if err != nil {
				t.Fatal(err)
			}
			killer := time.AfterFunc(time.Duration(step)*time.Millisecond, func() {
				if killsBroker {
					rabbit.Kill()
				} else {
					adopter.(*link).consuming.cut()
				}
			})
			m, err := adopter.AdoptMailbox(bounded(t), s, 1000)
			for err == nil {
				_, _, err = m.TakeHeld(bounded(t), 1000)
			}
			killer.Stop()
			if errors.Is(err, broker.ErrNoMailbox) {
				t.Fatal(err)
			}
			_ = adopter.Close(bounded(t))
			if killsBroker {
				if err := rabbit.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		l = join(t, b, broker.Worker(server()))
		m := adopt(t, l, s, 1000)
		expect(t, m, all...)
		ds, _, err := m.TakeHeld(bounded(t), 1000)
		if err != nil || len(ds) != len(all) {
			t.Fatalf("took %d, %v; want %d", len(ds), err, len(all))
		}
		for i, d := range ds {
			if d.ID != all[i] {
				t.Fatalf("took %q as number %d, want %q", d.ID, i, all[i])
			}
		}
	})
}

func TestRegisterOutlivesTheBroker(t *testing.T) {
	b := open(t, Options{})
	l := join(t, b, broker.Worker(server()))
	s := server()
	if err := l.Register(bounded(t), s); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rabbit.Sync(t.Context()), rabbit.Restart(t.Context())); err != nil {
		t.Fatal(err)
	}
	ended(t, l)
	l = join(t, b, broker.Worker(server()))
	if err := l.Register(bounded(t), server()); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Servers(bounded(t)); err != nil || !slices.Contains(got, s) {
		t.Errorf("%v, %v does not hold %s", got, err, s)
	}
}
