package catalog

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// Kind is one kind that runners take, for people and programs that choose one.
type Kind struct {
	Kind      string          `json:"kind"`
	Runners   int             `json:"runners"`          // that announce it
	Schemas   int             `json:"schemas"`          // different ones: more than one while runners are replaced; 0 if nothing is judged
	Schema    json.RawMessage `json:"schema,omitempty"` // that most of them announce; absent if none does
	TimeoutMS int64           `json:"timeout_ms"`       // of one run, at most
}

// List returns the kinds that runners announce, by name.
func (c *Catalog) List(now time.Time) []Kind {
	kinds := map[string]*Kind{}
	votes := map[string]map[string]int{} // by kind and schema
	for _, r := range c.runners {
		if now.Sub(r.heard) >= ForgetAfter {
			continue
		}
		for name, o := range r.kinds {
			k := kinds[name]
			if k == nil {
				k, votes[name] = &Kind{Kind: name}, map[string]int{}
				kinds[name] = k
			}
			k.Runners++
			k.TimeoutMS = max(k.TimeoutMS, o.timeout.Milliseconds())
			if o.shared != nil {
				votes[name][o.shared.text]++
			}
		}
	}
	all := make([]Kind, 0, len(kinds))
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		k := kinds[name]
		k.Schemas = len(c.Judges(name, now))
		most := ""
		for _, text := range slices.SortedFunc(maps.Keys(votes[name]), strings.Compare) {
			if votes[name][text] > votes[name][most] {
				most = text
			}
		}
		if most != "" {
			k.Schema = json.RawMessage(most)
		}
		all = append(all, *k)
	}
	return all
}
