// Package socketmeta owns the names that bring a result home: which client, on which worker,
// in which life of its session, and the signed tickets that carry these names.
//
// It knows nothing of sockets, brokers or messages; it imports no other package of this module.
// Every value is immutable and safe to share between goroutines.
package socketmeta

// Meta names the place of one client: the UUID of the client, the server ID of the worker that
// holds its session, and the epoch of the session there. A task carries it, set by the worker
// from the connection and never from a message body.
type Meta struct {
	Client ClientID `json:"client_id"`
	Server ServerID `json:"server_id"`
	Epoch  Epoch    `json:"epoch"`
}

// Epoch orders the lives of one session: the higher epoch owns it, whatever worker it lies on.
// It counts in Unix milliseconds but never stands still or goes back for one session. The zero
// value is before every epoch.
type Epoch int64

// Next returns the epoch that follows e at nowMillis, the Unix time in milliseconds:
// the larger of e+1 and now, so that it rises even where clocks disagree.
func (e Epoch) Next(nowMillis int64) Epoch { return max(e+1, Epoch(nowMillis)) }
