package mailbox

import (
	"slices"
	"strconv"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// simTask is one task: what its client has of it, and its runs.
type simTask struct {
	n      int
	id     wire.TaskID
	client socketmeta.ClientID
	owner  *simClient
	plain  bool // its publisher does not number

	// The client's. After a reload it has had.
	had  wire.Position // what the application has
	cur  wire.Position // of the highest run seen
	buf  []*wire.Event // came too early
	over bool

	// The application's.
	log    []eventKey        // what it was given
	missed map[eventKey]bool // what it was told that it will not be given
	plains map[int]bool      // the same of plain events: which of them it was given
	gaps   int               // gaps it was told

	// The runner's; home is "" until the submit has reached a worker.
	home  socketmeta.ServerID
	epoch socketmeta.Epoch
	runs  []*simRun
}

// simRun is one execution: its events are known beforehand.
type simRun struct {
	task      *simTask
	events    []wire.Event
	sent      int   // the next one to publish
	confirmed int   // all before are stored
	retryAt   int64 // after a refusal
	stopped   bool
}

func (w *world) task(id wire.TaskID) *simTask {
	n, err := strconv.Atoi(string(id[1:]))
	if err != nil || n >= len(w.tasks) {
		return nil
	}
	return w.tasks[n]
}

// submit is a worker taking a task.
func (p *simProc) submit(k *simSock, s *session.Session, f toServer) {
	t := p.world.task(f.submit)
	owner, publish := s.Submit(&wire.Submit{Task: f.submit, Kind: "k"}, nil)
	if !publish {
		return
	}
	t.home, t.epoch = p.server, owner.Epoch
	t.run(p.world, 1)
	s.Submitted(f.submit, nil, nil)
}

// run starts a run. The numbers have holes where transient events were or might have been.
func (t *simTask) run(w *world, attempt int) {
	r := &simRun{task: t}
	id, n := w.newRun(), 4+(t.n*3+len(t.runs))%10
	seq, prev := int64(0), int64(0)
	for i := range n {
		seq++
		e := wire.Event{
			Client: t.client, Task: t.id, Attempt: attempt, Run: id, Seq: seq, Prev: prev, Type: wire.EventLog, Durable: true,
			Epoch: t.epoch, Home: t.home, Body: []byte(`{"n":` + strconv.Itoa(i) + `}`),
		}
		switch {
		case t.plain:
			e.Attempt, e.Run, e.Seq, e.Prev = 0, "", 0, 0
		case i == n-1:
			e.Type, e.Last = wire.EventResult, true
		case (i+t.n)%3 == 2:
			e.Type, e.Durable = wire.EventProgress, false
		case i%2 == 1:
			seq += 2
			e.Seq = seq
		}
		if e.Durable {
			prev = seq
		}
		r.events = append(r.events, e)
	}
	t.runs = append(t.runs, r)
}

func (w *world) runOf(task, run int) *simRun {
	if task >= len(w.tasks) || run >= len(w.tasks[task].runs) {
		return nil
	}
	return w.tasks[task].runs[run]
}

// publishes: many are on their way at once, and after one that failed all go again from there.
func (w *world) publishes(task, run int) func() {
	r := w.runOf(task, run)
	if r == nil || r.stopped || w.runner.cut || r.sent == len(r.events) || r.sent-r.confirmed >= 4 || w.now < r.retryAt {
		return nil
	}
	return func() {
		n := r.sent
		r.sent++
		w.runner.copies = append(w.runner.copies, &simPublish{
			to: broker.ToMailbox(r.task.home), m: eventMessage(&r.events[n]), events: []*wire.Event{&r.events[n]},
			done: func(out broker.Outcome) {
				switch {
				case out != broker.Stored:
					w.saw("runner refused")
					r.sent, r.retryAt = r.confirmed, w.now+1000
				case n == r.confirmed:
					r.confirmed++
					r.sent = max(r.sent, r.confirmed)
				}
			},
		})
	}
}

// batches makes one message of two that follow each other to one mailbox, a and a + 1 on the way, whatever is in
// them: all ways to cut what is published into batches come from that.
func (w *world) batches(a, _ int) func() {
	l := w.runner
	if l.cut || len(l.copies) < a+2 {
		return nil
	}
	first, second := l.copies[a], l.copies[a+1]
	events := slices.Concat(first.events, second.events)
	plain := slices.ContainsFunc(events, func(e *wire.Event) bool { return e.Seq == 0 })
	if first.to != second.to || plain || len(events) > simBatch {
		return nil
	}
	return func() {
		w.saw("batched")
		l.copies = slices.Replace(l.copies, a, a+2, &simPublish{to: first.to, events: events, m: batchMessage(events), done: func(out broker.Outcome) {
			first.done(out)
			second.done(out)
		}})
	}
}

func batchMessage(events []*wire.Event) broker.Message {
	return broker.Message{
		Type: wire.BatchType, Content: wire.BatchContent, Body: wire.EncodeBatch(events),
		Transient: !slices.ContainsFunc(events, func(e *wire.Event) bool { return e.Durable }),
	}
}

func (w *world) runnerStores(int, int) func() {
	l := w.runner
	if l.cut || len(l.copies) == 0 {
		return nil
	}
	return func() {
		p := l.copies[0]
		l.copies = l.copies[1:]
		l.outcomes = append(l.outcomes, answered{p, w.put(p)})
	}
}

func (w *world) runnerHears(int, int) func() {
	l := w.runner
	if len(l.outcomes) == 0 {
		return nil
	}
	return func() {
		a := l.outcomes[0]
		l.outcomes = l.outcomes[1:]
		a.done(a.outcome)
	}
}

func (w *world) runnerCut(int, int) func() {
	if w.quiet || w.runner.cut {
		return nil
	}
	return w.runner.sever
}

func (w *world) runnerJoins(int, int) func() {
	if !w.runner.cut {
		return nil
	}
	return func() {
		w.runner = &simLink{}
		for _, t := range w.tasks {
			for _, r := range t.runs {
				r.sent = r.confirmed
			}
		}
	}
}

// reruns a task: as another attempt, as the same one (its runner died), or as another attempt beside
// a runner that is only thought dead.
func (w *world) reruns(task, how int) func() {
	if w.quiet || task >= len(w.tasks) || w.tasks[task].plain || len(w.tasks[task].runs) == 0 || len(w.tasks[task].runs) > 2 {
		return nil
	}
	return func() {
		t := w.tasks[task]
		last := t.runs[len(t.runs)-1]
		attempt := last.events[0].Attempt
		if how != 1 {
			attempt++
		}
		last.stopped = how != 2
		t.run(w, attempt)
	}
}

// got is the application being given an event.
func (t *simTask) got(w *world, e *wire.Event) {
	w.saw("delivered")
	if t.plain {
		if t.plains == nil {
			t.plains = map[int]bool{}
		}
		n, err := strconv.Atoi(string(e.Body[len(`{"n":`) : len(e.Body)-1]))
		if err != nil {
			w.fail("the body of %v is not what was published: %s", keyOf(e), e.Body)
		}
		t.plains[n] = true
		return
	}
	k := keyOf(e)
	for _, before := range t.log {
		if before == k {
			w.fail("the application got %v twice", k)
		}
		if compareRuns(wire.Position{Attempt: before.att, Run: before.run}, e.Position()) > 0 || before.run == k.run && before.seq > k.seq {
			w.fail("the application got %v after %v", k, before)
		}
	}
	t.log = append(t.log, k)
}

// told is the application being told that durable events from..e.Seq of e's run will not come.
func (t *simTask) told(w *world, e *wire.Event, from int64) {
	w.saw("gap told")
	t.gaps++
	if t.missed == nil {
		t.missed = map[eventKey]bool{}
	}
	for seq := from; seq <= e.Seq; seq++ {
		k := keyOf(e)
		k.seq = seq
		if slices.Contains(t.log, k) {
			w.fail("the application is told that it will not get %v, which it has", k)
		}
		t.missed[k] = true
	}
}
