package amqp

import (
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// alarm knows whether the broker has said that it takes no publishes (connection.blocked: it is
// short of memory or disk). The zero value is calm.
type alarm struct {
	mu     sync.Mutex
	raised chan struct{} // guarded by mu: nil when calm, else closed when the alarm is over
	since  time.Time     // guarded by mu: when the last alarm was over
}

// follow takes the broker's words until the connection ends. It must always run: an unread word
// would hold up the connection.
func (a *alarm) follow(words <-chan amqp091.Blocking, log *zap.Logger) {
	for w := range words {
		a.set(w.Active)
		if w.Active {
			log.Warn("the broker takes no publishes", zap.String("reason", w.Reason))
		} else {
			log.Info("the broker takes publishes again")
		}
	}
	a.set(false)
}

func (a *alarm) set(active bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case active && a.raised == nil:
		a.raised = make(chan struct{})
	case !active && a.raised != nil:
		close(a.raised)
		a.raised, a.since = nil, time.Now()
	}
}

// over returns nil when there is no alarm, else what is closed when it is over.
func (a *alarm) over() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.raised
}

// calm is how long there has been no alarm; very long if there never was one.
func (a *alarm) calm() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.raised != nil {
		return 0
	}
	return time.Since(a.since)
}
