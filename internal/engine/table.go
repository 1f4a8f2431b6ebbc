package engine

import (
	"iter"
	"sync"
	"sync/atomic"
)

// table gives each connection a slot and a reference that is never given again for 2^32 uses of
// the slot. get takes no lock; it may return a connection that has just left, which says so
// itself. The zero value is an empty table.
type table struct {
	slots atomic.Pointer[[]atomic.Pointer[conn]]

	mu   sync.Mutex
	gens []uint32 // guarded by mu: the last generation of each slot
	free []uint32 // guarded by mu: slots without a connection that were used before
	used int      // guarded by mu
}

// add gives c a reference, or returns false if limit connections are there already.
func (t *table) add(c *conn, limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used >= limit {
		return false
	}
	t.used++
	var slot uint32
	if n := len(t.free); n > 0 {
		slot = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		slot = uint32(len(t.gens))
		t.gens = append(t.gens, 0)
		t.grow(len(t.gens))
	}
	t.gens[slot]++
	if t.gens[slot] == 0 { // wrapped: generation 0 is left to the zero ConnRef
		t.gens[slot] = 1
	}
	c.ref = ConnRef(uint64(t.gens[slot])<<32 | uint64(slot))
	(*t.slots.Load())[slot].Store(c)
	return true
}

// grow makes room for n slots. A reader of the old slice misses only connections whose
// references nobody has yet.
func (t *table) grow(n int) {
	var old []atomic.Pointer[conn]
	if p := t.slots.Load(); p != nil {
		old = *p
	}
	if n <= len(old) {
		return
	}
	grown := make([]atomic.Pointer[conn], max(n, 2*len(old), 64))
	for i := range old {
		grown[i].Store(old[i].Load())
	}
	t.slots.Store(&grown)
}

// get returns the connection that r names, or nil.
func (t *table) get(r ConnRef) *conn {
	slots, slot := t.slots.Load(), uint64(uint32(r))
	if slots == nil || slot >= uint64(len(*slots)) {
		return nil
	}
	if c := (*slots)[slot].Load(); c != nil && c.ref == r {
		return c
	}
	return nil
}

// remove frees the slot of c.
func (t *table) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := uint32(c.ref)
	(*t.slots.Load())[slot].Store(nil)
	t.free = append(t.free, slot)
	t.used--
}

// all walks over the connections that are there now.
func (t *table) all() iter.Seq[*conn] {
	return func(yield func(*conn) bool) {
		slots := t.slots.Load()
		if slots == nil {
			return
		}
		for i := range *slots {
			if c := (*slots)[i].Load(); c != nil && !yield(c) {
				return
			}
		}
	}
}
