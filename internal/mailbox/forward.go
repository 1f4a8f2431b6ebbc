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
	ctx, cancel := context.WithTimeout(ctx, forwardWithin)
	defer cancel()
	q.From, q.Ask = m.o.Server, wire.NewRunID()
	answers, sent, gone, forget, err := m.ask(ctx, broker.ToControl(broker.Worker(to)), q.Ask, &q, 1)
	if err != nil {
		return nil, err
	}
	defer forget()
	receipt := sent.Done()
	for {
		select {
		case a := <-answers:
			switch f, ok := a.(*wire.Forwarded); {
			case !ok:
				return nil, wire.Errorf(wire.CodeInternal, "the worker %s answered something else", to)
			case f.Error != nil:
				return nil, f.Error
			default:
				return f.Reply, nil
			}
		case <-receipt:
			if sent.Outcome() == broker.Returned {
				return nil, wire.Errorf(wire.CodeNotAttached, "the worker %s, which the token names, is not there; connect again", to)
			}
			receipt = nil
		case <-gone:
			return nil, wire.Errorf(wire.CodeUnavailable, "the broker went away; try again")
		case <-ctx.Done():
			return nil, wire.Errorf(wire.CodeUnavailable, "the worker %s did not answer in time; try again", to)
		}
	}
}
