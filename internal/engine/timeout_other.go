//go:build !linux

package engine

import (
	"syscall"
	"time"
)

// setUserTimeout is Linux's: elsewhere a peer that is gone without a word is found when its queue stalls, or
// when the kernel gives up.
func setUserTimeout(syscall.RawConn, time.Duration) {}
