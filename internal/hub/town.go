package hub

import (
	"maps"
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	maxMembers  = 1000              // workers, and the same of runners, that are known: more are passed over
	forgetAfter = 100 * time.Second // those that were not heard of for so long: three announcements were missed
)

// town is who else is there, by what they announce. It is pure.
type town struct {
	self    socketmeta.ServerID
	workers map[socketmeta.ServerID]member[*wire.Here]
	runners map[string]member[*wire.Kinds]
	changed bool // somebody came or went
}

// member is the last announcement of one.
type member[T any] struct {
	said T
	at   time.Time
}

func newTown(self socketmeta.ServerID) town {
	return town{self: self, workers: map[socketmeta.ServerID]member[*wire.Here]{}, runners: map[string]member[*wire.Kinds]{}}
}

// here takes the announcement of a worker. It reports whether that one did not announce itself before: then it
// may not know of us.
func (t *town) here(m *wire.Here, now time.Time) (isNew bool) {
	old, known := t.workers[m.From]
	switch {
	case m.From == t.self:
		return false
	case m.Gone:
		delete(t.workers, m.From)
		t.changed = t.changed || known
		return false
	case !known && len(t.workers) >= maxMembers:
		return false
	}
	t.workers[m.From] = member[*wire.Here]{m, now}
	t.changed = t.changed || !known
	return !known || !old.said.Started.Equal(m.Started.Time)
}

// kinds takes the announcement of a runner.
func (t *town) kinds(m *wire.Kinds, now time.Time) {
	_, known := t.runners[m.Runner]
	switch {
	case len(m.Kinds) == 0:
		delete(t.runners, m.Runner)
		t.changed = t.changed || known
	case known || len(t.runners) < maxMembers:
		t.runners[m.Runner] = member[*wire.Kinds]{m, now}
		t.changed = t.changed || !known
	}
}

// expire forgets who was not heard of for long, and reports whether somebody has come or gone since it was called last.
func (t *town) expire(now time.Time) (changed bool) {
	for name, m := range t.workers {
		if now.Sub(m.at) >= forgetAfter {
			delete(t.workers, name)
			t.changed = true
		}
	}
	for name, m := range t.runners {
		if now.Sub(m.at) >= forgetAfter {
			delete(t.runners, name)
			t.changed = true
		}
	}
	changed, t.changed = t.changed, false
	return changed
}

// names are those of all others, as they answer FindChannels.
func (t *town) names() []string {
	names := t.servers()
	for name := range t.runners {
		names = append(names, "r."+name)
	}
	return names
}

// servers are those of the other workers.
func (t *town) servers() []string {
	var names []string
	for name := range t.workers {
		names = append(names, string(name))
	}
	return names
}

// fill puts all that is known into e, sorted by name.
func (t *town) fill(e *wire.Engine) {
	for _, name := range slices.Sorted(maps.Keys(t.workers)) {
		m := t.workers[name]
		e.Workers = append(e.Workers, wire.EngineWorker{
			Server: string(name), Ready: m.said.Ready, Connections: m.said.Connections, Sessions: m.said.Sessions,
			Channels: m.said.Channels, Started: m.said.Started, Seen: wire.Time{Time: m.at},
		})
	}
	for _, name := range slices.Sorted(maps.Keys(t.runners)) {
		m := t.runners[name]
		r := wire.EngineRunner{Runner: name, Slots: m.said.Slots, Running: m.said.Running, Kinds: []string{}, Seen: wire.Time{Time: m.at}}
		for _, k := range m.said.Kinds {
			r.Kinds = append(r.Kinds, k.Kind)
		}
		e.Runners = append(e.Runners, r)
	}
}

// offered are the kinds that runners take, sorted.
func (t *town) offered() []string {
	kinds := map[string]bool{}
	for _, m := range t.runners {
		for _, k := range m.said.Kinds {
			kinds[k.Kind] = true
		}
	}
	return slices.Sorted(maps.Keys(kinds))
}
