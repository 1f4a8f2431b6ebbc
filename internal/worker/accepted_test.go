package worker_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestAnAcceptedTaskIsToldHowManyAreAhead(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		var runs atomic.Int64
		b.runner("r1", map[string]taskrunner.Kind{"k": {Handler: counting(1000, &runs)}}) // it has one place
		c, _ := b.client(always(w))
		for i, want := range []int{0, 0, 1, 2} { // one runs, the others wait
			task, err := c.SubmitAs(b.Context(), wire.TaskID(fmt.Sprint("t", i)), "k", nil)
			if err != nil {
				t.Fatal(err)
			}
			// The first event of a task that need not wait may overtake the answer to its submit.
			if got, known := task.QueuePosition(); known && got != want || !known && i > 0 {
				t.Errorf("task %d is behind %d others, known %t, want %d", i, got, known, want)
			}
			b.pass(2 * time.Second)
		}
	})
}
