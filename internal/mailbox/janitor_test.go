package mailbox

import (
	"testing"
	"time"
)

// TestAMailboxWithNothingInItIsRetired has a worker adopt the mailbox of one that does not come back.
// Its overflow is read again and again meanwhile, and found empty.
func TestAMailboxWithNothingInItIsRetired(t *testing.T) {
	const window = 40 * time.Second
	c := newCore("i1-w1", window)
	c.joined(0)
	c.take("i1-w2")
	c.opened("i1-w2", gotIt, 1, 0)
	var verbs []verb
	for now := int64(0); now < 2*window.Milliseconds(); now += 50 {
		for _, o := range c.takeOrders() {
			switch o.verb {
			case takeHeld:
				c.took(o.server, 0, 0, now)
			case unbind:
				if now < window.Milliseconds() {
					t.Errorf("it was to be retired after %d ms, want a window", now)
				}
				c.unboundNow(o.server, true, now)
			case deleteBox:
				c.deleted(o.server, true, now)
			default:
				continue
			}
			if o.server == "i1-w2" && o.verb != takeHeld {
				verbs = append(verbs, o.verb)
			}
		}
		c.tick(now, func(uint64) int { return 0 })
	}
	if len(verbs) != 2 || verbs[0] != unbind || verbs[1] != deleteBox || c.owned["i1-w2"] != nil || !c.gone["i1-w2"] {
		t.Errorf("orders %v, want unbind and delete, and the mailbox gone", verbs)
	}
}
