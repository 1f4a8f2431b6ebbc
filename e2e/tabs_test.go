package e2e

import "testing"

// TestACopiedTabHasASessionOfItsOwn: window.open copies sessionStorage, and with it the token. The copy must not take
// the session from the tab that has it, nor share it.
func TestACopiedTabHasASessionOfItsOwn(t *testing.T) {
	c := town(t)
	p := open(t, c.Workers[0].Addr, 1280, 800)
	const id = `document.querySelector('[data-testid=client-id]')?.textContent`
	first := eval[string](p, id)
	eval[bool](p, `(window.copied = window.open(location.href)) != null`)
	const copied = `copied.` + id
	p.await(`!!` + copied)
	if stored := eval[int](p, `copied.sessionStorage.length`); stored == 0 {
		t.Fatal("the storage was not copied: the test shows nothing")
	}
	if second := eval[string](p, copied); second == first || second == "" {
		t.Errorf("the copy has session %s, the tab %s: want two", second, first)
	}
	if now := eval[string](p, id+` + ' ' + document.querySelector('[data-testid=connection]').dataset.state`); now != first+" open" {
		t.Errorf("the tab is %s now, want session %s, open", now, first)
	}
}
