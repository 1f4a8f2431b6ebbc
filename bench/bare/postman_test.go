package bare

import (
	"io"
	"net"
	"slices"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// settled are the tags that were acknowledged.
type settled []uint64

func (s *settled) Ack(tag uint64, multiple bool) error {
	*s = append(*s, tag)
	return nil
}
func (*settled) Nack(uint64, bool, bool) error { panic("nothing is refused") }
func (*settled) Reject(uint64, bool) error     { panic("nothing is refused") }

func TestAnEventGoesToItsClientAndIsSettledWhenThatHasIt(t *testing.T) {
	p := postman{homes: map[string]*home{}}
	var done settled
	event := func(client socketmeta.ClientID, task wire.TaskID, seq int64) wire.Event {
		return wire.Event{Client: client, Home: "i1-w1", Epoch: 1, Task: task, Attempt: 2, Run: "r1", Seq: seq, Prev: seq - 1,
			Type: wire.EventStep, Durable: true, Body: []byte(`{"n":1}`)}
	}
	deliveries := make(chan amqp091.Delivery, 4)
	var wanted [][]byte
	homes := [2]*home{}
	sockets := [2]net.Conn{}
	for i := range homes {
		server, client := net.Pipe()
		defer server.Close()
		defer client.Close()
		homes[i], sockets[i] = &home{conn: server, client: socketmeta.NewClientID()}, client
		p.moveIn(homes[i])
	}
	for i, e := range []wire.Event{
		event(homes[0].client, "t0", 1), event(homes[1].client, "t1", 1), event(socketmeta.NewClientID(), "t2", 1), event(homes[0].client, "t0", 2),
	} {
		m := EventMessage(e, e.Body)
		deliveries <- amqp091.Delivery{Acknowledger: &done, DeliveryTag: uint64(i + 1), Headers: m.Headers, CorrelationId: m.CorrelationId, Type: m.Type, Body: m.Body}
		wanted = append(wanted, wire.AppendEventFrame(nil, &e))
	}
	close(deliveries)
	delivered := make(chan struct{})
	go func() { p.deliver(deliveries); close(delivered) }()
	for _, read := range []struct{ socket, event int }{{0, 0}, {1, 1}, {0, 3}} { // the third has no socket
		h, err := ws.ReadHeader(sockets[read.socket])
		got := make([]byte, min(h.Length, 1024))
		if err == nil {
			_, err = io.ReadFull(sockets[read.socket], got)
		}
		if err != nil || h.OpCode != ws.OpText || string(got) != string(wanted[read.event]) {
			t.Fatalf("client %d got %q, %v, want %q", read.socket, got, err, wanted[read.event])
		}
	}
	<-delivered
	if len(done) > 0 {
		t.Fatalf("%v were settled before a client had them", done)
	}
	homes[1].acknowledge([]wire.Position{{Task: "t1", Attempt: 2, Run: "r1", Next: 2}})
	homes[0].acknowledge([]wire.Position{{Task: "t0", Attempt: 2, Run: "r1", Next: 2}})
	homes[0].acknowledge([]wire.Position{{Task: "t0", Attempt: 2, Run: "r1", Next: 2}})
	if want := []uint64{2, 1}; !slices.Equal(done, want) {
		t.Errorf("%v were settled, want %v", done, want)
	}
}

func TestARelayWantsItsTwoArguments(t *testing.T) {
	if err := RelayMain([]string{"amqp://nowhere"}, nil, io.Discard); err == nil {
		t.Error("it ran with one")
	}
}
