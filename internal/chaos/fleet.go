package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// fleet is all clients of a run, in this process.
type fleet struct {
	url     string
	journal *Journal
	params  Params
	people  []*person

	over      chan struct{} // closed when nobody begins another task
	countdown chan struct{} // holds a token for each task of the real runners that is open

	got  atomic.Int64 // durable events of publishers that reached applications
	open atomic.Int64 // sockets that are welcomed
}

// countdowns is how many tasks of the real runners are open at a time, at most.
const countdowns = 6

func newFleet(url string, journal *Journal, clients int, params Params, seed uint64) *fleet {
	f := &fleet{url: url, journal: journal, params: params, over: make(chan struct{}), countdown: make(chan struct{}, countdowns)}
	for i := range clients {
		f.people = append(f.people, &person{
			fleet: f, name: fmt.Sprintf("c%d", i+1), random: rand.New(rand.NewPCG(seed, uint64(i))),
			orders: make(chan order, 8), errands: map[wire.TaskID]*errand{}, cookies: newCookies(),
		})
	}
	return f
}

// run lives all clients until ctx ends and all have gone.
func (f *fleet) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range f.people {
		wg.Go(func() { p.run(ctx) })
	}
	wg.Wait()
}

// busy lists the tasks that are asked for and have no end yet.
func (f *fleet) busy() (open []string) {
	for _, p := range f.people {
		open = append(open, p.busy()...)
	}
	return open
}

// strike lets a fault of a party of clients happen. It blocks until it is over or ctx ends.
func (f *fleet) strike(ctx context.Context, fault Fault) {
	random := rand.New(rand.NewPCG(fault.Seed, 0))
	hit := random.Perm(len(f.people))[:max(1, int(fault.Share*float64(len(f.people))))]
	times := 1
	if fault.Kind == ClientsFlap {
		times = 3
	}
	for n := range times {
		for _, i := range hit {
			switch p := f.people[i]; fault.Kind {
			case ClientsFlap:
				p.cut()
			case ClientsMove:
				p.cookies.forget()
				p.cut()
			case ClientsReload:
				p.ask(order{abrupt: random.IntN(2) == 0})
			case ClientsAway:
				p.ask(order{abrupt: random.IntN(2) == 0, away: fault.For})
			case ClientsPause:
				p.paused.Store(time.Now().Add(fault.For).UnixNano())
			}
		}
		if n < times-1 || fault.For > 0 {
			wait(ctx, fault.For/time.Duration(times))
		}
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// cookies is a jar that can be emptied.
type cookies struct {
	mu  sync.Mutex
	jar *cookiejar.Jar // guarded by mu
}

var _ http.CookieJar = (*cookies)(nil)

func newCookies() *cookies {
	c := &cookies{}
	c.forget()
	return c
}

func (c *cookies) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jar, _ = cookiejar.New(nil) // it never fails
}

func (c *cookies) SetCookies(u *url.URL, all []*http.Cookie) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jar.SetCookies(u, all)
}

func (c *cookies) Cookies(u *url.URL) []*http.Cookie {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jar.Cookies(u)
}
