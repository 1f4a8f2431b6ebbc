package chaos

import (
	"slices"
	"testing"
	"time"
)

func plan(seed uint64) Plan {
	return Plan{Seed: seed, Duration: 2 * time.Minute, Every: time.Second, Heartbeat: 3 * time.Second, Kinds: Kinds(),
		Workers: 8, Runners: 2, Publishers: 3, Nodes: 1}
}

func TestTheSameSeedGivesTheSameSchedule(t *testing.T) {
	if !slices.Equal(plan(1).Schedule(), plan(1).Schedule()) {
		t.Error("two schedules of seed 1 differ")
	}
	if slices.Equal(plan(1).Schedule(), plan(2).Schedule()) {
		t.Error("the schedules of seeds 1 and 2 are the same")
	}
}

func TestASchedulePlaysByItsRules(t *testing.T) {
	for seed := range uint64(200) {
		p := plan(seed)
		p.Nodes = 1 + int(seed%3)
		p.Workers = 1 + int(seed%8)
		faults := p.Schedule()
		seen := map[Kind]int{}
		for i, f := range faults {
			seen[f.Kind]++
			rule := rules[f.Kind]
			count := map[party]int{workers: p.Workers, runners: p.Runners, publishers: p.Publishers, nodes: p.Nodes, clients: 1}[rule.hits]
			switch {
			case f.At < warmUp || f.At+f.For > p.Duration:
				t.Fatalf("seed %d: %v at %v is outside the run", seed, f, f.At)
			case i > 0 && f.At < faults[i-1].At:
				t.Fatalf("seed %d: fault %d is not in order", seed, i)
			case f.Target < 0 || f.Target >= count:
				t.Fatalf("seed %d: %v has no target", seed, f)
			case (rule.hits == clients) != (f.Share > 0) || f.Share > 1:
				t.Fatalf("seed %d: %v hits %v of the clients", seed, f, f.Share)
			case f.Kind == WorkerHang && f.For < 3*p.Heartbeat:
				t.Fatalf("seed %d: %v is noticed by nobody", seed, f)
			}
			hit := map[int]bool{f.Target: true}
			for _, g := range faults[:i] {
				if rules[g.Kind].hits != rule.hits || rule.hits == clients || g.At+g.For+rules[g.Kind].rest <= f.At {
					continue
				}
				if g.Target == f.Target {
					t.Fatalf("seed %d: %v at %v hits what %v at %v has hit", seed, f, f.At, g, g.At)
				}
				hit[g.Target] = true
			}
			if rule.hits == nodes && len(hit) > 1 || rule.hits == workers && len(hit) > max(1, p.Workers/2) {
				t.Fatalf("seed %d: at %v %d of %d are hit at once", seed, f.At, len(hit), count)
			}
		}
		if (seen[BrokerPart] > 0) != (p.Nodes > 1) || p.Nodes > 1 && len(seen) != len(rules) || p.Nodes == 1 && len(seen) != len(rules)-1 {
			t.Errorf("seed %d: %d kinds of %d come within %v on %d nodes", seed, len(seen), len(rules), p.Duration, p.Nodes)
		}
	}
}

func TestAShortScheduleStillHasAtLeastTwelveKinds(t *testing.T) {
	for seed := range uint64(100) {
		p := plan(seed)
		p.Duration = 30 * time.Second
		seen := map[Kind]bool{}
		for _, f := range p.Schedule() {
			seen[f.Kind] = true
		}
		if len(seen) < 12 {
			t.Errorf("seed %d: %d kinds", seed, len(seen))
		}
	}
}

func TestUnknownFaultsAreRefused(t *testing.T) {
	if _, err := ParseKinds([]string{"worker-kill", "flood"}); err == nil {
		t.Error("a fault that there is not was taken")
	}
	if got, err := ParseKinds([]string{"worker-kill", "broker-kill", "worker-kill"}); err != nil || !slices.Equal(got, []Kind{BrokerKill, WorkerKill}) {
		t.Errorf("got %v, %v", got, err)
	}
}
