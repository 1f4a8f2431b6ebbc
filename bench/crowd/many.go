package crowd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// PerProcess is how many clients one process has: it may open 20,000 files.
const PerProcess = 15_000

// Many are clients in as many processes as it takes, each of which runs Serve. Its methods may be called by any
// goroutine, one at a time.
type Many struct {
	Spec
	parts []*part
}

// Spec says which clients Many are.
type Spec struct {
	Clients int
	Addrs   []string      // of workers, host:port; client i takes the i-th, and begins anew behind the last
	Sources []string      // addresses to dial from, likewise; none leaves it to the kernel
	Channel string        // that all subscribe to; "" for none
	Grant   string        // with which they do; "" for none
	AtOnce  int           // of each process, how many connects are under way; 0 means 64
	Within  time.Duration // for all to connect

	// Command starts a process that runs Serve on its standard input and output. nil has Serve in this process, which
	// its number of files bounds.
	Command []string `json:"-"`
	// Opened is called with the number of clients that are connected, now and then and from several goroutines; may be nil.
	Opened func(clients int) `json:"-"`
}

// part is the parent's end of one process.
type part struct {
	in   *json.Encoder
	out  *json.Decoder
	stop func() error
}

// order is what a parent says, report what a child answers. Each order but the end of the input, which ends
// the child, is answered by one report without Opened.
type order struct {
	Do     string        `json:"do"` // connect, expect, wait, echo, cut
	Spec   *Spec         `json:"spec,omitempty"`
	First  int           `json:"first,omitempty"`  // of connect
	Expect int64         `json:"expect,omitempty"` // of expect
	Within time.Duration `json:"within,omitempty"` // of wait
	Pings  int           `json:"pings,omitempty"`  // of echo
	Rate   int           `json:"rate,omitempty"`   // of echo
}

type report struct {
	Opened int    `json:"opened,omitempty"` // clients that have connected, while they do
	Error  string `json:"error,omitempty"`
	Sums   *sums  `json:"sums,omitempty"`
}

// sums are a Tally on its way.
type sums struct {
	Faults
	Got, First, Last int64
	Ages             []byte
}

// Join starts the processes, without a connection.
func Join(s Spec) (_ *Many, err error) {
	m := &Many{Spec: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	for range (s.Clients + PerProcess - 1) / PerProcess {
		p, err := s.start()
		if err != nil {
			return nil, err
		}
		m.parts = append(m.parts, p)
	}
	return m, nil
}

func (s *Spec) start() (*part, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if s.Command == nil {
		in, orders := io.Pipe()
		reports, out := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := Serve(ctx, in, out)
			in.CloseWithError(io.ErrClosedPipe)
			out.CloseWithError(err) // io.EOF if there is none
			ended <- err
		}()
		return &part{json.NewEncoder(orders), json.NewDecoder(reports), sync.OnceValue(func() error {
			cancel()
			orders.Close()
			reports.Close()
			return <-ended
		})}, nil
	}
	c := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	c.Cancel, c.WaitDelay = func() error { return in.Close() }, killAfter // the end of its input is enough for one that is well
	out, outErr := c.StdoutPipe()
	if err = errors.Join(err, outErr); err == nil {
		err = c.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start clients: %w", err)
	}
	return &part{json.NewEncoder(in), json.NewDecoder(out), sync.OnceValue(func() error {
		cancel()
		if err := c.Wait(); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})}, nil
}

// killAfter is how long a process has to end when it is told to.
const killAfter = 10 * time.Second

// connecting is how many processes connect at a time: one answers no ping before all of its clients are there, for which a
// worker does not wait long.
const connecting = 2

// all gives each process an order, so many at a time, and adds up what they answer. An error of one ends the wait for none of
// the others.
func (m *Many) all(ctx context.Context, together int, make func(i, first, clients int) order, opened func(i, clients int)) (Tally, error) {
	total := newTally()
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(together)
	for i, p := range m.parts {
		g.Go(func() error {
			first := i * PerProcess
			o := make(i, first, min(PerProcess, m.Clients-first))
			stop := context.AfterFunc(ctx, func() { _ = p.stop() }) // and so the answer below does not come
			defer stop()
			if err := p.in.Encode(o); err != nil {
				return fmt.Errorf("clients from %d on: %w", first, err)
			}
			for {
				var r report
				if err := p.out.Decode(&r); err != nil {
					return errors.Join(context.Cause(ctx), fmt.Errorf("clients from %d on have ended: %w", first, err))
				}
				switch {
				case r.Error != "":
					return fmt.Errorf("clients from %d on: %s", first, r.Error)
				case r.Opened > 0:
					opened(i, r.Opened)
				default:
					t, err := r.Sums.tally()
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						total.Add(t)
					}
					return err
				}
			}
		})
	}
	return total, g.Wait()
}

// Connect connects the clients, again if they were cut: then they ask for their sessions, and resumed is how many
// got them. It returns how long it took.
func (m *Many) Connect(ctx context.Context) (took time.Duration, resumed int64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.Within, fmt.Errorf("not all of %d clients are connected after %v", m.Clients, m.Within))
	defer cancel()
	var mu sync.Mutex
	counts := make([]int, len(m.parts))
	began := time.Now()
	t, err := m.all(ctx, connecting, func(_, first, clients int) order {
		s := m.Spec
		s.Clients = clients
		return order{Do: "connect", Spec: &s, First: first}
	}, func(i, clients int) {
		mu.Lock()
		defer mu.Unlock()
		counts[i] = clients
		sum := 0
		for _, n := range counts {
			sum += n
		}
		if m.Opened != nil {
			m.Opened(sum)
		}
	})
	return time.Since(began), t.Got, err
}

// Cut ends all connections without a word.
func (m *Many) Cut(ctx context.Context) error { return m.simple(ctx, order{Do: "cut"}) }

// Expect begins a batch in which each client is to get so many messages.
func (m *Many) Expect(ctx context.Context, each int64) error {
	_, err := m.all(ctx, len(m.parts), func(_, _, clients int) order { return order{Do: "expect", Expect: each * int64(clients)} }, nil)
	return err
}

// Wait is Crowd.Wait for all of them.
func (m *Many) Wait(ctx context.Context, within time.Duration) (Tally, error) {
	return m.all(ctx, len(m.parts), func(int, int, int) order { return order{Do: "wait", Within: within} }, nil)
}

// Echo is Crowd.Echo for all of them, pings and rate being those of all together. As many pings as clients are one of
// each client.
func (m *Many) Echo(ctx context.Context, pings, rate int) (Tally, error) {
	return m.all(ctx, len(m.parts), func(_, _, clients int) order {
		return order{Do: "echo", Pings: pings * clients / m.Clients, Rate: max(1, rate*clients/m.Clients)}
	}, nil)
}

func (m *Many) simple(ctx context.Context, o order) error {
	_, err := m.all(ctx, len(m.parts), func(int, int, int) order { return o }, nil)
	return err
}

// Close ends all processes, and returns what went wrong with those that had not been told to end.
func (m *Many) Close() error {
	var errs []error
	for _, p := range m.parts {
		errs = append(errs, p.stop())
	}
	m.parts = nil
	return errors.Join(errs...)
}
