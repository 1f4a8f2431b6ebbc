package ask

import (
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// maxWanted is how many questions of other workers one worker remembers; the oldest go. Whose went is asked again
// only by the pauses of who asked.
const maxWanted = 16384

// wanted is who asks for which clients, without what they ask: for those that come back to this worker, of
// which nobody else hears. It is pure.
type wanted struct {
	byClient map[socketmeta.ClientID][]*wish
	all      []*wish // the oldest first
}

type wish struct {
	client socketmeta.ClientID
	from   socketmeta.ServerID
	ask    wire.RunID
	until  time.Time
}

// add remembers a question until its deadline.
func (w *wanted) add(m *wire.AskClient, now time.Time) {
	until := now.Add(time.Duration(min(m.TimeoutMS, MaxWithin.Milliseconds())) * time.Millisecond)
	of := w.byClient[m.Client]
	if i := slices.IndexFunc(of, func(x *wish) bool { return x.ask == m.Ask }); i >= 0 {
		of[i].until = until
		return
	}
	x := &wish{m.Client, m.From, m.Ask, until}
	w.byClient[m.Client] = append(of, x)
	w.all = append(w.all, x)
	for len(w.all) > maxWanted || !now.Before(w.all[0].until) {
		w.forget(w.all[0])
		w.all[0], w.all = nil, w.all[1:]
		if len(w.all) == 0 {
			break
		}
	}
}

func (w *wanted) forget(x *wish) {
	if of := slices.DeleteFunc(w.byClient[x.client], func(y *wish) bool { return y == x }); len(of) > 0 {
		w.byClient[x.client] = of
	} else {
		delete(w.byClient, x.client)
	}
}

// by returns who asks for client now, each one once.
func (w *wanted) by(client socketmeta.ClientID, now time.Time) (servers []socketmeta.ServerID) {
	for _, x := range w.byClient[client] {
		if now.Before(x.until) && !slices.Contains(servers, x.from) {
			servers = append(servers, x.from)
		}
	}
	return servers
}
