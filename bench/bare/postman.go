package bare

import (
	"net"
	"sync"

	"github.com/gobwas/ws"
	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// postman is the least that can bring the events of a mailbox to sockets and lose none while it lives: it writes each to the
// socket of its client, and acknowledges it to the broker when the client has acknowledged it. It checks nothing, and
// leaves with the broker what has no socket. As with workers, a frame is the event's own and not only its body.
type postman struct {
	mu    sync.Mutex
	homes map[string]*home // guarded by mu: by client ID
}

// home is where the events of one client go.
type home struct {
	conn   net.Conn
	client socketmeta.ClientID

	mu   sync.Mutex
	owed []owed // guarded by mu: by seq
}

// owed is an event that its client has not acknowledged.
type owed struct {
	seq      int64
	delivery amqp091.Delivery
}

func (p *postman) moveIn(h *home) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.homes[h.client.String()] = h
}

func (p *postman) moveOut(h *home) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.homes, h.client.String())
}

// deliver writes events until there are no more.
func (p *postman) deliver(events <-chan amqp091.Delivery) {
	for d := range events {
		client, _ := d.Headers["client_id"].(string)
		p.mu.Lock()
		h := p.homes[client]
		p.mu.Unlock()
		if h == nil {
			continue
		}
		attempt, _ := d.Headers["attempt"].(int64)
		run, _ := d.Headers["run_id"].(string)
		seq, _ := d.Headers["seq"].(int64)
		prev, _ := d.Headers["prev"].(int64)
		durable, _ := d.Headers["durable"].(bool)
		last, _ := d.Headers["last"].(bool)
		h.mu.Lock()
		h.owed = append(h.owed, owed{seq, d})
		h.mu.Unlock()
		text := wire.AppendEventFrame(nil, &wire.Event{
			Task: wire.TaskID(d.CorrelationId), Attempt: int(attempt), Run: wire.RunID(run), Seq: seq, Prev: prev,
			Type: wire.EventType(d.Type), Durable: durable, Last: last, Body: d.Body,
		})
		frame, err := ws.CompileFrame(ws.NewTextFrame(text))
		if err != nil {
			panic(err) // a frame of ours
		}
		_, _ = h.conn.Write(frame) // its client is gone
	}
}

// acknowledge settles what the client has.
func (h *home) acknowledge(have []wire.Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range have {
		for len(h.owed) > 0 && h.owed[0].seq < p.Next {
			_ = h.owed[0].delivery.Ack(false) // the connection is gone
			h.owed = h.owed[1:]
		}
	}
}
