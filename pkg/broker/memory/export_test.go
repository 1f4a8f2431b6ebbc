package memory

import "github.com/wscluster/wscluster/pkg/broker"

// CutLink cuts one link, which Cut knows by its identity only.
func CutLink(b *Broker, l broker.Link) { b.Cut(l.(*link).id) }

// LimitQueue makes a mailbox that takes only so many messages.
func LimitQueue(b *Broker, queue string, messages int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.store.declare(queue, mail).limit.messages = messages
}
