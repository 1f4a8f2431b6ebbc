package mailbox

import (
	"maps"
	"slices"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// pending is what sessions want of the clerk. It is bounded by the number of clients, and kept
// while there is no link.
type pending struct {
	claims   map[socketmeta.ClientID]socketmeta.Epoch // attached here, and to be claimed
	from     map[socketmeta.ServerID]bool             // where they come from
	seeks    map[socketmeta.ClientID]bool             // events are held for them
	overflow map[uint64]bool                          // lives whose overflow is wanted
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

func (p *pending) claim(c socketmeta.ClientID, e socketmeta.Epoch, from socketmeta.ServerID) {
	put(&p.claims, c, e)
	put(&p.from, from, true)
}

func (p *pending) add(fx *session.Effects) {
	for _, c := range fx.Seek {
		put(&p.seeks, c, true)
	}
	for _, life := range fx.Overflow {
		put(&p.overflow, life, true)
	}
}

// note adds to what is pending and wakes the clerk.
func (m *Mailbox) note(add func(*pending)) {
	m.mu.Lock()
	add(&m.pending)
	m.mu.Unlock()
	select {
	case m.nudge <- struct{}{}:
	default:
	}
}

func (m *Mailbox) takePending() (p pending) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, m.pending = m.pending, p
	return p
}

// moved makes the messages that claim the clients.
func (p *pending) moved(self socketmeta.ServerID) (out []wire.ControlMessage) {
	return claim(self, slices.Collect(func(yield func(wire.Claim) bool) {
		for c, e := range p.claims {
			if !yield(wire.Claim{Client: c, Epoch: e}) {
				return
			}
		}
	}))
}

func claim(self socketmeta.ServerID, claims []wire.Claim) (out []wire.ControlMessage) {
	for some := range slices.Chunk(claims, wire.MaxClaims) {
		out = append(out, &wire.Moved{From: self, Clients: some})
	}
	return out
}

// seek makes the messages that ask for clients.
func (p *pending) seek(self socketmeta.ServerID) (out []wire.ControlMessage) {
	for some := range slices.Chunk(slices.Collect(maps.Keys(p.seeks)), wire.MaxClaims) {
		out = append(out, &wire.Seek{From: self, Clients: some})
	}
	return out
}
