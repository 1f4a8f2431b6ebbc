package mailbox

import (
	"math/bits"
	"slices"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// pins knows which batches of one life are not settled, and by whom they are kept: the broker forgets a message
// as a whole, so the last of its events that is done with settles it. Messages of one event are not here. It is
// pure. It is bounded by the deliveries that are not settled, and has 16 bytes for each event in them.
type pins struct {
	batches map[uint64]*pinned // by tag
	order   []uint64           // tags as they came, and some that are settled: no more than as many again
}

// pinned is one batch.
type pinned struct {
	left    uint64 // a bit for each event that is not settled
	at      int64  // when it came, Unix milliseconds
	clients []socketmeta.ClientID
}

// part is the Ref.Part of the event at i in a batch.
func part(i int) uint8 { return uint8(i + 1) }

// take notes a batch of events for these clients, in order: 1 to wire.MaxBatch.
func (p *pins) take(tag uint64, clients []socketmeta.ClientID, now int64) {
	put(&p.batches, tag, &pinned{left: ^uint64(0) >> (wire.MaxBatch - len(clients)), at: now, clients: clients})
	p.order = append(p.order, tag)
}

// settle notes that an event is done with, and reports whether the delivery is: then it is to be acknowledged.
func (p *pins) settle(r session.Ref) (all bool) {
	if r.Part == 0 {
		return true
	}
	b := p.batches[r.Tag]
	if b == nil {
		return false
	}
	if b.left &^= 1 << (r.Part - 1); b.left != 0 {
		return false
	}
	delete(p.batches, r.Tag)
	if len(p.order) > 2*len(p.batches)+16 {
		p.order = slices.DeleteFunc(p.order, func(tag uint64) bool { return p.batches[tag] == nil })
	}
	return true
}

// since returns the clients, each once, whose events keep a batch that came at that time or before.
func (p *pins) since(at int64) (clients []socketmeta.ClientID) {
	var seen map[socketmeta.ClientID]bool
	for _, tag := range p.order {
		b := p.batches[tag]
		if b == nil {
			continue
		}
		if b.at > at {
			break
		}
		for left := b.left; left != 0; left &= left - 1 {
			if c := b.clients[bits.TrailingZeros64(left)]; !seen[c] {
				put(&seen, c, true)
				clients = append(clients, c)
			}
		}
	}
	return slices.Clip(clients)
}
