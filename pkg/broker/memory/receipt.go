package memory

import (
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

// receipt is one publish whose answer is awaited.
type receipt struct {
	done    chan struct{}
	outcome broker.Outcome // written before done is closed
}

func (r *receipt) Done() <-chan struct{} { return r.done }

func (r *receipt) Outcome() broker.Outcome {
	select {
	case <-r.done:
		return r.outcome
	default:
		return broker.Pending
	}
}

func (r *receipt) resolve(o broker.Outcome) {
	r.outcome = o
	close(r.done)
}

// answer is what the broker will say to one publish.
type answer struct {
	receipt *receipt
	outcome broker.Outcome // Pending: it will never say anything
	delay   time.Duration  // not before so long after the publish
	due     time.Time      // set if delay is
}

// answers are the receipts of a link that are not resolved, oldest first. They are bounded by the
// link's window.
type answers struct {
	waiting []answer
	never   []*receipt    // publishes whose answer was lost: open until the link ends
	running bool          // somebody is answering
	empty   chan struct{} // made for whoever waits; closed once nothing is open
}

// drained returns a channel that is closed when no receipt is open. No publish may come after it.
func (as *answers) drained() <-chan struct{} {
	if as.empty == nil {
		as.empty = make(chan struct{})
		as.tell()
	}
	return as.empty
}

func (as *answers) tell() {
	if as.empty == nil || len(as.waiting)+len(as.never) > 0 {
		return
	}
	select {
	case <-as.empty:
	default:
		close(as.empty)
	}
}

// abandon ends every open receipt as Unknown.
func (as *answers) abandon(window <-chan struct{}) {
	for _, a := range as.waiting {
		a.receipt.resolve(broker.Unknown)
		<-window
	}
	for _, r := range as.never {
		r.resolve(broker.Unknown)
		<-window
	}
	as.waiting, as.never = nil, nil
	as.tell()
}

// await registers an answer and sees to it that somebody gives it. b.mu is held.
func (l *link) await(a answer) *receipt {
	a.receipt = &receipt{done: make(chan struct{})}
	if a.outcome == broker.Pending {
		l.answers.never = append(l.answers.never, a.receipt)
		return a.receipt
	}
	if a.delay > 0 {
		a.due = time.Now().Add(a.delay)
	}
	l.answers.waiting = append(l.answers.waiting, a)
	if !l.answers.running {
		l.answers.running = true
		l.answering.Go(l.answer)
	}
	return a.receipt
}

// answer resolves receipts in order, each when it is due, until none waits.
func (l *link) answer() {
	for {
		wait := l.answerDue()
		if wait < 0 {
			return
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-l.done:
		}
		t.Stop()
	}
}

// answerDue resolves what is due and returns how long to wait for the next, negative if there is none.
func (l *link) answerDue() time.Duration {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	as := &l.answers
	for i, a := range as.waiting {
		if a.delay > 0 {
			if wait := time.Until(a.due); wait > 0 {
				as.waiting = as.waiting[i:]
				return wait
			}
		}
		a.receipt.resolve(a.outcome)
		<-l.window
	}
	clear(as.waiting)
	as.waiting = as.waiting[:0]
	as.running = false
	as.tell()
	return -1
}
