package engine

import "sync/atomic"

// Stats is a snapshot of an engine's counters. Everything but Conns, Streams, Plain and HeldBytes only
// grows. A snapshot is not one instant: its parts are read one after the other.
type Stats struct {
	Conns     int64 // open WebSockets and event streams now
	Streams   int64 // of those, the streams
	Plain     int64 // sockets now that are neither
	HeldBytes int64 // queued frames and unfinished messages now

	Opened   uint64 // handshakes and streams accepted
	Refused  uint64 // handshakes and sockets refused, by the limits or by the Handler
	Panics   uint64 // of the Handler
	FullSend uint64 // ErrQueueFull answers

	FramesIn, FramesOut uint64 // data and control, a stream's comments too; out: written or queued
	BytesIn, BytesOut   uint64 // with their framing; out: written or queued

	Closes map[string]uint64 // by cause: peer, local, lost, silent, stalled, protocol, too_large, slow, overload, handler, shutdown
}

// closeCause says why a connection ended, for the counters.
type closeCause uint8

const (
	byPeer     closeCause = iota // a close frame came first, or a stream's peer ended it
	byLocal                      // CloseConn
	byLoss                       // the socket failed or ended without a close frame
	bySilence                    // ErrPeerSilent
	byStall                      // ErrStalled
	byProtocol                   // ErrProtocol
	bySize                       // ErrTooLarge
	bySlowness                   // ErrSlowFrame
	byOverload                   // ErrOverloaded
	byHandler                    // ErrHandler
	byShutdown                   // ErrShutdown
	closeCauses
)

var closeCauseNames = [closeCauses]string{
	"peer", "local", "lost", "silent", "stalled", "protocol", "too_large", "slow", "overload", "handler", "shutdown",
}

type counters struct {
	conns, streams, plain, held            atomic.Int64
	opened, refused, panics, fullSend      atomic.Uint64
	framesIn, framesOut, bytesIn, bytesOut atomic.Uint64
	closes                                 [closeCauses]atomic.Uint64
}

// Conns is the number of open WebSockets and event streams.
func (e *Engine) Conns() int { return int(e.count.conns.Load()) }

// Stats reads the counters.
func (e *Engine) Stats() Stats {
	n := &e.count
	s := Stats{
		Conns: n.conns.Load(), Streams: n.streams.Load(), Plain: n.plain.Load(), HeldBytes: n.held.Load(),
		Opened: n.opened.Load(), Refused: n.refused.Load(), Panics: n.panics.Load(), FullSend: n.fullSend.Load(),
		FramesIn: n.framesIn.Load(), FramesOut: n.framesOut.Load(),
		BytesIn: n.bytesIn.Load(), BytesOut: n.bytesOut.Load(),
		Closes: make(map[string]uint64, closeCauses),
	}
	for i, name := range closeCauseNames {
		s.Closes[name] = n.closes[i].Load()
	}
	return s
}
