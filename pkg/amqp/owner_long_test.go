//go:build long

package amqp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// ownerEnv has the test binary own a mailbox instead of running tests, until it is killed.
const ownerEnv = "AMQP_TEST_OWNER"

func init() {
	if s := os.Getenv(ownerEnv); s != "" {
		fmt.Fprintln(os.Stderr, runOwner(socketmeta.ServerID(s)))
		os.Exit(1)
	}
}

// runOwner takes every delivery and settles none.
func runOwner(s socketmeta.ServerID) error {
	b, err := New(Options{URLs: []string{os.Getenv("AMQP_TEST_URL")}, MailboxType: os.Getenv("AMQP_TEST_TYPE")})
	if err != nil {
		return err
	}
	l, err := b.Join(context.Background(), broker.Worker(s))
	if err != nil {
		return err
	}
	m, err := l.OpenMailbox(context.Background(), s, 20000)
	if err != nil {
		return err
	}
	n := 0
	for d := range m.Deliveries() {
		if n++; d.ID == "last" {
			fmt.Printf("holds %d\n", n)
		}
	}
	return m.Err()
}

// Faults 1 and 5 as the broker sees them: how soon another process has the mailbox of one that was
// killed, or that is there and says nothing any more, and everything that it held.
func TestMailboxOfADeadProcessIsAdopted(t *testing.T) {
	const messages, rounds = 5000, 5
	onBothTypes(t, func(t *testing.T, b *Broker) {
		for _, strike := range []struct {
			name   string
			with   func(*rig.Process) error
			rounds int
		}{
			{"killed", func(p *rig.Process) error { p.Kill(); return nil }, rounds},
			{"silent", (*rig.Process).Freeze, 1},
		} {
			t.Run(strike.name, func(t *testing.T) {
				var adopted, first, all []time.Duration
				for range strike.rounds {
					s, l := server(), join(t, b, broker.Worker(server()))
					owner, err := rig.Start(rig.Program{
						Path: os.Args[0], Name: "owner",
						Env: append(os.Environ(), ownerEnv+"="+string(s), "AMQP_TEST_URL="+rabbit.URL(), "AMQP_TEST_TYPE="+b.o.MailboxType),
					})
					if err != nil {
						t.Fatal(err)
					}
					defer owner.Kill()
					ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
					defer cancel()
					for eval(t, fmt.Sprintf(`io:format("~p", [rabbit_amqqueue:exists(rabbit_misc:r(<<"/">>, queue, <<"%s">>))])`, broker.HoldQueue(s))) != "true" {
					}
					var ids []string
					for i := range messages - 1 {
						ids = append(ids, fmt.Sprintf("%05d", i))
					}
					ids = append(ids, "last")
					var receipts []broker.Receipt
					for _, id := range ids {
						r, err := l.Publish(ctx, broker.ToMailbox(s), broker.Message{ID: id, Body: make([]byte, 256)})
						if err != nil {
							t.Fatal(err)
						}
						receipts = append(receipts, r)
					}
					for _, r := range receipts {
						if o, err := broker.Await(ctx, r); o != broker.Stored {
							t.Fatal(o, err)
						}
					}
					if _, err := owner.WaitLine(ctx, regexp.MustCompile(fmt.Sprintf("holds %d", messages))); err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					if err := strike.with(owner); err != nil {
						t.Fatal(err)
					}
					m, err := l.AdoptMailbox(ctx, s, 20000)
					for errors.Is(err, broker.ErrRefused) {
						time.Sleep(5 * time.Millisecond)
						m, err = l.AdoptMailbox(ctx, s, 20000)
					}
					if err != nil {
						t.Fatal(err)
					}
					adopted = append(adopted, time.Since(start))
					for i, id := range ids {
						select {
						case d := <-m.Deliveries():
							if d.ID != id || !d.Redelivered {
								t.Fatalf("delivery %d is %q (redelivered: %v), want %q", i, d.ID, d.Redelivered, id)
							}
						case <-ctx.Done():
							t.Fatalf("delivery %d did not come", i)
						}
						if i == 0 {
							first = append(first, time.Since(start))
						}
					}
					all = append(all, time.Since(start))
					if err := m.Close(ctx); err != nil {
						t.Fatal(err)
					}
				}
				for name, times := range map[string][]time.Duration{"adopted": adopted, "first delivery": first, "all of it": all} {
					slices.Sort(times)
					t.Logf("%s: median %v, worst %v", name, times[len(times)/2].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond))
				}
			})
		}
	})
}
