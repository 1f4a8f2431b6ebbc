package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// retryTell is how long a run that failed and is tried again waits for its last events to be stored.
const retryTell = 5 * time.Second

// retries reports whether a failure with that code is not the task's end. What the run was canceled for,
// or lost, is no failure.
func (u *run) retries(code wire.Code) bool {
	return (code == wire.CodeFailed || code == wire.CodeTimeout) && u.story.attempt <= u.kind.Retries && u.handler.Err() == nil
}

// retry gives the task up for another attempt, whose events take the place of this one's. Before that the
// client is told how far it came, the failed step and the last lines included, but no end: as far as the
// broker takes it within retryTell, for the next attempt matters more.
func (u *run) retry(fault *wire.Error) {
	u.log.Info("handler failed, the task is tried again", zap.String("code", string(fault.Code)), zap.String("reason", clip(fault.Message)))
	u.mu.Lock()
	u.retried = true
	err := errors.Join(u.story.tellLines(true, u.now()), u.story.endStep(wire.StatusFailed, u.now()))
	u.mu.Unlock()
	u.told(err)
	u.drain(retryTell)
	u.abandon(fmt.Errorf("it is tried again: %w", fault))
}

// drain waits until all that was told is stored, at most for so long or until the run is given up.
func (u *run) drain(within time.Duration) {
	ctx, cancel := context.WithTimeout(u.handler, within)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.room.Broadcast()
	})()
	u.mu.Lock()
	defer u.mu.Unlock()
	for !u.story.out.empty() && ctx.Err() == nil {
		u.room.Wait()
	}
}
