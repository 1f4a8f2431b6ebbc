package memory

import (
	"fmt"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
)

// Inbox is a process that has joined a Store: its end of control and announce, and all that it has
// there, its takers and its locks.
type Inbox struct {
	s      *Store
	id     broker.Identity
	give   func(broker.Message)
	takers []*Taker
	locks  []string
}

// Join opens an inbox: ErrLocked if a process holds id, or holds it back to retire its mailbox.
// give gets each control message for id, for an adopted mailbox's worker, or for all, once; it must
// neither block nor call the store.
func (s *Store) Join(id broker.Identity, give func(broker.Message)) (*Inbox, error) {
	if s.holder(id) != nil {
		return nil, fmt.Errorf("join as %v: %w", id, broker.ErrLocked)
	}
	in := &Inbox{s: s, id: id, give: give}
	s.inboxes = append(s.inboxes, in)
	return in, nil
}

// Leave ends processes, all at one moment: their identities and locks are free, their takers
// closed, and what those had not settled goes to the takers that remain. Leaving twice does nothing;
// anything else that a process does after is an error of the caller's.
func (s *Store) Leave(ins ...*Inbox) {
	s.inboxes = slices.DeleteFunc(s.inboxes, func(in *Inbox) bool { return slices.Contains(ins, in) })
	var takers []*Taker
	for _, in := range ins {
		takers = append(takers, in.takers...)
	}
	closeAll(takers)
}

// holder returns the process by which nobody can join as id: the one that did, or the one that
// retires its mailbox. It is nil if id is free.
func (s *Store) holder(id broker.Identity) *Inbox {
	for _, in := range s.inboxes {
		if in.id == id || slices.ContainsFunc(in.takers, func(t *Taker) bool { return t.retiring && broker.Worker(t.server) == id }) {
			return in
		}
	}
	return nil
}

// post gives m to those that it is for, the oldest first; Returned if there is nobody.
func (s *Store) post(to broker.Address, m broker.Message) broker.Outcome {
	out := broker.Returned
	for _, in := range s.inboxes {
		if to.Exchange == broker.ExchangeAnnounce || in.answersTo(to.Key) {
			in.give(m)
			out = broker.Stored
		}
	}
	return out
}

// answersTo reports whether control messages with this key are for in.
func (in *Inbox) answersTo(key string) bool {
	return in.id.Key() == key || slices.ContainsFunc(in.takers, func(t *Taker) bool { return t.adopted && broker.Worker(t.server).Key() == key })
}

// Lock takes the lock of that name until Unlock or the process leaves: ErrLocked if a process has
// it, be it this one.
func (in *Inbox) Lock(name string) error {
	if slices.ContainsFunc(in.s.inboxes, func(in *Inbox) bool { return slices.Contains(in.locks, name) }) {
		return broker.ErrLocked
	}
	in.locks = append(in.locks, name)
	return nil
}

// Unlock frees a lock; it does nothing if the process does not have it.
func (in *Inbox) Unlock(name string) {
	in.locks = slices.DeleteFunc(in.locks, func(other string) bool { return other == name })
}
