package engine

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Options are the limits and times of an engine. The zero value of each field means the default
// that its comment names. Every refusal and close that a limit causes is counted in Stats.
type Options struct {
	HTTP http.Handler // answers what is not a WebSocket upgrade, under its own deadlines (http.ResponseController), or by Engine.Stream; nil: 404
	Log  *zap.Logger  // nil: silent

	// Bye makes the last frame of an event stream that is closed without one, as a WebSocket is told by its close frame.
	// It must not block or call the engine; nil: there is none.
	Bye func(code StatusCode, reason string) *Frame

	// Goroutines gives each connection one of its own. Otherwise the sockets of one Serve are accepted, read and written by as
	// many epoll loops as there are cores; Handler calls are made by the loops too, so that a slow one delays
	// others. Listeners of another kind than TCP and unix are accepted from as with Goroutines. Sockets without a descriptor (net.Pipe, TLS), and on other systems than Linux all, have goroutines in any case.
	Goroutines bool

	// ProxyProtocol says that every socket begins with a header of the PROXY protocol, version 2, of 1 KiB at most, as a proxy sends it
	// that is told to. Request.Remote and http.Request.RemoteAddr are then the client's. A socket without one is closed
	// without an answer. Nobody but the proxy may be able to connect: whoever does can claim any address.
	ProxyProtocol bool

	MaxConns      int           // WebSockets and event streams at one time, those in the handshake too; more get 503. 65,536
	MaxPlain      int           // sockets at one time that are neither (yet); more get 503 and are closed. 8,192
	HeaderBytes   int           // request line and header together, over it 431; 4,608 at least. 8 KiB
	HeaderFields  int           // over it 431. 64
	TargetBytes   int           // path and query, over it 414. 2 KiB
	HandshakeTime time.Duration // for the header to arrive, and again for a Decision that came Later. 5 s

	MessageBytes int           // a frame and a whole message, over it 1009. 64 KiB
	Fragments    int           // frames to a message, over it 1009. 1,024
	MessageTime  time.Duration // from the first byte of a message to its last, over it 1008. 15 s

	QueueBytes  int           // wait for one connection: over it Send answers ErrQueueFull. 1 MiB
	QueueFrames int           // the same, counted in frames. 4,096
	HeldBytes   int           // held for all: queues, unfinished messages; over it ErrQueueFull and 1013. Calls at one instant may exceed it by a frame each. 256 MiB
	SendBuffer  int           // the kernel's send buffer of each connection, which doubles it. 16 KiB
	StallTime   time.Duration // frames wait and the peer takes no byte: ErrStalled. 20 s

	PingEvery time.Duration // after this long without a byte from the peer it is pinged; a stream, without a byte to it. 15 s
	PongTime  time.Duration // then it must send a byte within this time, the host of a stream's peer take what was sent: ErrPeerSilent. Twelve times that while bytes of it wait to be read (Linux). 10 s
	CloseTime time.Duration // to flush, and for the peer's part of the closing handshake. 5 s

	sweep time.Duration // how often the times above are looked at; 1 s but in tests
	sys   *sys          // the system calls of the loops; nil but in tests: the kernel's
}

func (o Options) withDefaults() Options {
	or := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	if o.HTTP == nil {
		o.HTTP = http.NotFoundHandler()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	or(&o.MaxConns, 65_536)
	or(&o.MaxPlain, 8_192)
	or(&o.HeaderBytes, 8<<10)
	or(&o.HeaderFields, 64)
	or(&o.TargetBytes, 2<<10)
	orTime(&o.HandshakeTime, 5*time.Second)
	or(&o.MessageBytes, 64<<10)
	or(&o.Fragments, 1_024)
	orTime(&o.MessageTime, 15*time.Second)
	or(&o.QueueBytes, 1<<20)
	or(&o.QueueFrames, 4_096)
	or(&o.HeldBytes, 256<<20)
	or(&o.SendBuffer, 16<<10)
	orTime(&o.StallTime, 20*time.Second)
	orTime(&o.PingEvery, 15*time.Second)
	orTime(&o.PongTime, 10*time.Second)
	orTime(&o.CloseTime, 5*time.Second)
	orTime(&o.sweep, time.Second)
	return o
}

// minHeaderBytes leaves room above the 4 KiB that net/http reads in any case.
const minHeaderBytes = 4<<10 + 512

// Validate joins everything that is wrong with o. Serve calls it too, before it accepts.
func (o Options) Validate() error {
	o = o.withDefaults()
	var errs []error
	for _, f := range []struct {
		name       string
		value, min int
	}{
		{"MaxConns", o.MaxConns, 1},
		{"MaxPlain", o.MaxPlain, 1},
		{"HeaderBytes", o.HeaderBytes, minHeaderBytes},
		{"HeaderFields", o.HeaderFields, 1},
		{"TargetBytes", o.TargetBytes, 1},
		{"MessageBytes", o.MessageBytes, 1},
		{"Fragments", o.Fragments, 1},
		{"QueueBytes", o.QueueBytes, 1},
		{"QueueFrames", o.QueueFrames, 1},
		{"HeldBytes", o.HeldBytes, 1},
		{"SendBuffer", o.SendBuffer, 1},
	} {
		if f.value < f.min {
			errs = append(errs, fmt.Errorf("engine: %s is %d, must be at least %d", f.name, f.value, f.min))
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"HandshakeTime", o.HandshakeTime},
		{"MessageTime", o.MessageTime},
		{"StallTime", o.StallTime},
		{"PingEvery", o.PingEvery},
		{"PongTime", o.PongTime},
		{"CloseTime", o.CloseTime},
		{"sweep", o.sweep},
	} {
		if f.value <= 0 {
			errs = append(errs, fmt.Errorf("engine: %s is %v, must be positive", f.name, f.value))
		}
	}
	return errors.Join(errs...)
}
