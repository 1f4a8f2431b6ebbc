package memory

import (
	"errors"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

var (
	errDown     = errors.New("the broker is down")
	errWentDown = fmt.Errorf("%w: the broker went down", broker.ErrLinkGone)
	errCut      = fmt.Errorf("%w: the connection was cut", broker.ErrLinkGone)
)

// Cut ends the link of id as a fault of the network would: its lock is free, what it had not
// settled goes to others, its unanswered publishes are Unknown. It does nothing if id has no link.
func (b *Broker) Cut(id broker.Identity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.links {
		if l.id == id {
			b.end(errCut, l)
			return
		}
	}
}

// CutLinks ends all links at one moment, as Cut does.
func (b *Broker) CutLinks() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(errCut, b.links...)
}

// Down takes the broker away or brings it back. Away, all links are cut, Join fails, and transient
// messages are forgotten; durable ones stay. Down(true) and then Down(false) is a restart.
func (b *Broker) Down(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
	if down {
		b.end(errWentDown, b.links...)
		b.store.ForgetTransient()
	}
}

// Block raises or clears the alarm under which the broker takes no publishes: Publish blocks,
// everything else goes on.
func (b *Broker) Block(blocked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case blocked && b.unblocked == nil:
		b.unblocked = make(chan struct{})
	case !blocked && b.unblocked != nil:
		close(b.unblocked)
		b.unblocked = nil
	}
}

// Publish is one call of Link.Publish, as OnPublish sees it.
type Publish struct {
	From    broker.Identity
	To      broker.Address
	Message broker.Message
}

// Verdict is what befalls one publish. The zero value is the ordinary course.
type Verdict struct {
	Fate  Fate
	Delay time.Duration // the answer comes so much later, and those behind it on the link not before
}

// Fate is what is done with a message, and what its publisher hears.
type Fate uint8

// The fates.
const (
	Deliver Fate = iota // routed and stored; the outcome says what became of it
	Mislead             // as Deliver, but the answer is Unknown: the confirm was lost
	Hang                // as Deliver, but there is no answer until the link ends
	Lose                // not stored; the answer is Unknown
	Swallow             // not stored, and there is no answer until the link ends
	Refuse              // not stored; Refused
	Park                // stored in the parked mailbox as if its own did not exist
)

// OnPublish has decide say what befalls every publish from now on; nil ends that. It is called
// by the publishing goroutine, concurrently by several of them, and may call the Broker.
func (b *Broker) OnPublish(decide func(Publish) Verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onPublish = decide
}

func (b *Broker) judge(p Publish) Verdict {
	b.mu.Lock()
	decide := b.onPublish
	b.mu.Unlock()
	if decide == nil {
		return Verdict{}
	}
	return decide(p)
}

// answer does with m what the verdict says.
func (v Verdict) answer(s *Store, to broker.Address, m broker.Message) answer {
	a := answer{delay: v.Delay}
	switch v.Fate {
	case Deliver:
		a.outcome = s.Publish(to, m)
	case Mislead:
		s.Publish(to, m)
		a.outcome = broker.Unknown
	case Hang:
		s.Publish(to, m)
	case Lose:
		a.outcome = broker.Unknown
	case Refuse:
		a.outcome = broker.Refused
	case Park:
		a.outcome = s.Park(m)
	}
	return a
}
