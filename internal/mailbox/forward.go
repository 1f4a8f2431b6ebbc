package mailbox

import (
	"context"
	"encoding/json"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// forwardWithin is how long another worker may take to answer a Forward.
const forwardWithin = 5 * time.Second

// Forward hands a client's message to the worker to, which has the client's connection or had it last,
// and waits for its word, at most forwardWithin. nil: it took the message; reply is the answer to it if
// q.Reply asks for that. From and Ask are set here. Errors are *wire.Error: that worker's, at once
// not_attached if it is not there, unavailable or overloaded. After unavailable the message may have been
// taken or not.
func (m *Mailbox) Forward(ctx context.Context, to socketmeta.ServerID, q wire.Forward) (reply json.RawMessage, err error) {
	q.From, q.Ask = m.o.Server, wire.NewRunID()
	away := wire.Errorf(wire.CodeNotAttached, "the worker %s, which the token names, is not there; connect again", to)
	late := wire.Errorf(wire.CodeUnavailable, "the worker %s did not answer in time; try again", to)
	a, err := m.askOne(ctx, broker.Worker(to), q.Ask, &q, forwardWithin, away, late)
	if err != nil {
		return nil, err
	}
	switch f, ok := a.(*wire.Forwarded); {
	case !ok:
		return nil, wire.Errorf(wire.CodeInternal, "the worker %s answered something else", to)
	case f.Error != nil:
		return nil, f.Error
	default:
		return f.Reply, nil
	}
}
