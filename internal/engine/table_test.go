package engine

import (
	"testing"

	"pgregory.net/rapid"
)

// TestTableNeverConfusesReferences runs a table against a map.
func TestTableNeverConfusesReferences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab table
		live, dead := make(map[ConnRef]*conn), make(map[ConnRef]bool)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(*rapid.T) {
				c := new(conn)
				if added := tab.add(c, 5); added != (len(live) < 5) {
					t.Fatalf("added is %v with %d there", added, len(live))
				} else if !added {
					return
				}
				if c.ref == 0 || live[c.ref] != nil || dead[c.ref] {
					t.Fatalf("%#x was given before", c.ref)
				}
				live[c.ref] = c
			},
			"remove": func(*rapid.T) {
				for ref, c := range live {
					tab.remove(c)
					delete(live, ref)
					dead[ref] = true
					return
				}
			},
			"": func(*rapid.T) {
				n := 0
				for c := range tab.all() {
					if n++; live[c.ref] != c {
						t.Fatalf("all has %#x", c.ref)
					}
				}
				if n != len(live) {
					t.Fatalf("all has %d, want %d", n, len(live))
				}
				for ref, c := range live {
					if tab.get(ref) != c {
						t.Fatalf("get(%#x) is another", ref)
					}
				}
				for ref := range dead {
					if tab.get(ref) != nil {
						t.Fatalf("get(%#x) lives on", ref)
					}
				}
			},
		})
	})
}

func TestTableGenerationWrapsPastZero(t *testing.T) {
	var tab table
	c := new(conn)
	tab.add(c, 1)
	tab.remove(c)
	tab.gens[0] = 1<<32 - 1
	tab.add(c, 1)
	if c.ref != 1<<32 {
		t.Errorf("got %#x, want generation 1: the zero ConnRef names none", c.ref)
	}
}

func TestTableGrows(t *testing.T) {
	var tab table
	refs := make(map[ConnRef]*conn)
	for range 1000 {
		c := new(conn)
		tab.add(c, 1000)
		refs[c.ref] = c
	}
	for ref, c := range refs {
		if tab.get(ref) != c {
			t.Fatalf("get(%#x) is another", ref)
		}
	}
}
