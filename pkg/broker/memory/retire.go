package memory

import (
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/pkg/broker"
)

// Unbind is the first step of retiring the mailbox that t owns: nobody can join as its worker until
// t is closed, and later publishes to it are parked, those to its overflow Returned. ErrLocked, and
// nothing has changed, if that worker has joined. Unbinding twice is no error.
func (t *Taker) Unbind() error {
	switch s := t.in.s; {
	case t.closed:
		return fmt.Errorf("unbind the mailbox of %s: %w", t.server, broker.ErrLinkGone)
	case t.server == broker.ParkedServer:
		return errors.New("unbind the parked mailbox: it takes what has no other mailbox, and stays")
	case !t.retiring && s.holder(broker.Worker(t.server)) != nil:
		return fmt.Errorf("unbind the mailbox of %s: %w", t.server, broker.ErrLocked)
	}
	t.retiring = true
	t.mailbox().bound, t.overflow.bound = false, false
	return nil
}

// Delete deletes the mailbox that t has unbound, with its overflow, and closes t. ErrNotEmpty, and
// nothing has changed, if anything is left in either, be it unsettled.
func (t *Taker) Delete() error {
	switch {
	case t.closed:
		return fmt.Errorf("delete the mailbox of %s: %w", t.server, broker.ErrLinkGone)
	case !t.retiring:
		return fmt.Errorf("delete the mailbox of %s: unbind it first", t.server)
	case !t.mailbox().empty() || !t.overflow.empty():
		return fmt.Errorf("delete the mailbox of %s: %w", t.server, broker.ErrNotEmpty)
	}
	delete(t.in.s.queues, broker.MailboxQueue(t.server))
	delete(t.in.s.queues, broker.HoldQueue(t.server))
	t.Close()
	return nil
}
