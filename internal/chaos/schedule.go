package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is one way in which something goes wrong.
type Kind string

// The kinds of faults. A fault ends after its For, counted from its strike.
const (
	WorkerKill    Kind = "worker-kill"    // SIGKILL; it starts again under its ID
	WorkerGone    Kind = "worker-gone"    // SIGKILL for ever; one with another ID takes its place
	WorkerFreeze  Kind = "worker-freeze"  // SIGSTOP for less than the broker notices
	WorkerHang    Kind = "worker-hang"    // SIGSTOP for more than three heartbeats
	WorkerCut     Kind = "worker-cut"     // its connections to the broker are reset, new ones refused
	WorkerStall   Kind = "worker-stall"   // nothing passes between it and the broker, nobody is told
	WorkerDrain   Kind = "worker-drain"   // SIGTERM; it starts again when it has ended
	RunnerKill    Kind = "runner-kill"    // SIGKILL; it starts again under its name
	RunnerFreeze  Kind = "runner-freeze"  // SIGSTOP
	RunnerCut     Kind = "runner-cut"     // as worker-cut
	PublisherKill Kind = "publisher-kill" // SIGKILL; its tasks go to others
	PublisherCut  Kind = "publisher-cut"  // as worker-cut
	BrokerKill    Kind = "broker-kill"    // SIGKILL of a node; it starts again on its data
	BrokerFreeze  Kind = "broker-freeze"  // SIGSTOP of a node
	BrokerPart    Kind = "broker-part"    // a node is cut off from the others, in silence; only in a cluster
	MemoryAlarm   Kind = "memory-alarm"   // the broker takes no publishes
	ClientsFlap   Kind = "clients-flap"   // sockets cut, three times over
	ClientsReload Kind = "clients-reload" // pages that reload, with what their sessionStorage holds
	ClientsAway   Kind = "clients-away"   // pages closed, and opened again later
	ClientsMove   Kind = "clients-move"   // sockets cut, and led to any worker
	ClientsPause  Kind = "clients-pause"  // applications that stand still
)

// party is what a kind of fault hits.
type party int

const (
	workers party = iota
	runners
	publishers
	nodes
	clients
)

// rule says how often a kind comes and how long it lasts: a time between least and most, in
// heartbeats of the broker where beats is true. rest is what its target needs to stand again.
type rule struct {
	hits        party
	weight      int
	least, most float64 // seconds, or heartbeats
	beats       bool
	rest        time.Duration
}

var rules = map[Kind]rule{
	WorkerKill:    {hits: workers, weight: 6, least: 1, most: 5, rest: 2 * time.Second},
	WorkerGone:    {hits: workers, weight: 3, least: 3, most: 6, rest: 2 * time.Second},
	WorkerFreeze:  {hits: workers, weight: 3, least: 0.5, most: 3, rest: time.Second},
	WorkerHang:    {hits: workers, weight: 2, least: 3.2, most: 4, beats: true, rest: 2 * time.Second},
	WorkerCut:     {hits: workers, weight: 4, least: 0.2, most: 4, rest: 2 * time.Second},
	WorkerStall:   {hits: workers, weight: 2, least: 1, most: 4, beats: true, rest: 2 * time.Second},
	WorkerDrain:   {hits: workers, weight: 4, least: 1, most: 2, rest: 5 * time.Second},
	RunnerKill:    {hits: runners, weight: 2, least: 1, most: 3, rest: time.Second},
	RunnerFreeze:  {hits: runners, weight: 2, least: 1, most: 4, rest: time.Second},
	RunnerCut:     {hits: runners, weight: 2, least: 0.2, most: 3, rest: time.Second},
	PublisherKill: {hits: publishers, weight: 3, least: 0.2, most: 2, rest: time.Second},
	PublisherCut:  {hits: publishers, weight: 3, least: 0.2, most: 3, rest: time.Second},
	BrokerKill:    {hits: nodes, weight: 2, least: 0.1, most: 2, rest: 8 * time.Second},
	BrokerFreeze:  {hits: nodes, weight: 2, least: 0.5, most: 3, rest: 3 * time.Second},
	BrokerPart:    {hits: nodes, weight: 2, least: 8, most: 14, rest: 8 * time.Second},
	MemoryAlarm:   {hits: nodes, weight: 2, least: 1, most: 5, rest: 2 * time.Second},
	ClientsFlap:   {hits: clients, weight: 4, least: 1, most: 3},
	ClientsReload: {hits: clients, weight: 4},
	ClientsAway:   {hits: clients, weight: 4, least: 1, most: 8},
	ClientsMove:   {hits: clients, weight: 6},
	ClientsPause:  {hits: clients, weight: 2, least: 0.5, most: 3},
}

// Kinds lists all kinds, by name.
func Kinds() []Kind {
	var all []Kind
	for k := range rules {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// ParseKinds reads names as they stand on a command line; none means all kinds.
func ParseKinds(names []string) ([]Kind, error) {
	if len(names) == 0 {
		return Kinds(), nil
	}
	var kinds []Kind
	for _, name := range names {
		if _, ok := rules[Kind(name)]; !ok {
			return nil, fmt.Errorf("there is no fault %q; those that there are: %s", name, join(Kinds()))
		}
		kinds = append(kinds, Kind(name))
	}
	slices.Sort(kinds)
	return slices.Compact(kinds), nil
}

func join(kinds []Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, " ")
}

// Fault is one entry of a schedule.
type Fault struct {
	At     time.Duration // from the start of the load
	Kind   Kind
	Target int           // which worker, runner, publisher or node, from 0; 0 for clients
	Share  float64       // of the clients, over 0 and up to 1; 0 for others
	For    time.Duration // until it is mended
	Seed   uint64        // for choices that are left to whoever strikes
}

func (f Fault) String() string {
	if rules[f.Kind].hits == clients {
		return fmt.Sprintf("%s of %.0f%% for %v", f.Kind, 100*f.Share, f.For)
	}
	return fmt.Sprintf("%s %d for %v", f.Kind, f.Target, f.For)
}

// Plan is what a schedule is made from. Two equal plans give the same schedule.
type Plan struct {
	Seed      uint64
	Duration  time.Duration // every fault begins and ends within it
	Every     time.Duration // between two faults, on average
	Heartbeat time.Duration // of the broker
	Kinds     []Kind

	Workers, Runners, Publishers, Nodes int
}

// warmUp is how long the load runs undisturbed.
const warmUp = 2 * time.Second

// Schedule says what goes wrong when, by time. Each kind comes once, in random order, before they
// come by weight. No target is hit again before it had time to stand; at most half of the workers,
// and one node, are hit at a time. Faults of different targets overlap as they like.
func (p Plan) Schedule() []Fault {
	r := rand.New(rand.NewPCG(p.Seed, uint64(len(p.Kinds))))
	deck := slices.DeleteFunc(slices.Sorted(slices.Values(p.Kinds)), func(k Kind) bool { return k == BrokerPart && p.Nodes < 2 })
	p.Kinds = slices.Clone(deck)
	r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	busy := map[party][]time.Duration{
		workers: make([]time.Duration, p.Workers), runners: make([]time.Duration, p.Runners),
		publishers: make([]time.Duration, p.Publishers), nodes: make([]time.Duration, p.Nodes), clients: make([]time.Duration, 1),
	}
	var faults []Fault
	for at := warmUp; at < p.Duration; at += p.pause(r) {
		for i, kind := range p.order(r, deck) {
			f := Fault{At: at, Kind: kind, For: p.length(r, kind), Seed: r.Uint64()}
			free := idle(busy, rules[kind].hits, at)
			if len(free) == 0 || f.At+f.For > p.Duration {
				continue
			}
			f.Target = free[r.IntN(len(free))]
			if rules[kind].hits == clients {
				f.Share = 0.1 + 0.9*r.Float64()
			} else {
				busy[rules[kind].hits][f.Target] = at + f.For + rules[kind].rest
			}
			if i < len(deck) {
				deck = slices.Delete(slices.Clone(deck), i, i+1)
			}
			faults = append(faults, f)
			break
		}
	}
	return faults
}

// order is in which order kinds are tried: those that have not come yet, then by weight.
func (p Plan) order(r *rand.Rand, deck []Kind) []Kind {
	var weighted []Kind
	for _, k := range p.Kinds {
		for range rules[k].weight {
			weighted = append(weighted, k)
		}
	}
	r.Shuffle(len(weighted), func(i, j int) { weighted[i], weighted[j] = weighted[j], weighted[i] })
	return slices.Concat(deck, weighted)
}

// pause is exponential, so that faults come in bursts too, but not below a fifth of the mean.
func (p Plan) pause(r *rand.Rand) time.Duration {
	return p.Every/5 + time.Duration(0.8*r.ExpFloat64()*float64(p.Every))
}

func (p Plan) length(r *rand.Rand, kind Kind) time.Duration {
	rule := rules[kind]
	n := rule.least + (rule.most-rule.least)*r.Float64()
	if rule.beats {
		return (time.Duration(n * float64(p.Heartbeat))).Round(time.Millisecond)
	}
	return time.Duration(n * float64(time.Second)).Round(time.Millisecond)
}

// idle lists the targets of a party that may be hit at a time.
func idle(busy map[party][]time.Duration, hits party, at time.Duration) []int {
	var free []int
	for i, until := range busy[hits] {
		if until <= at {
			free = append(free, i)
		}
	}
	hit := len(busy[hits]) - len(free)
	if hits == workers && 2*(hit+1) > max(2, len(busy[hits])) || hits == nodes && hit > 0 {
		return nil
	}
	return free
}
