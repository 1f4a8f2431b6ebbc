//go:build !unix

package taskrunner

// spoolLock does not exist here: tasks of a runner that has died wait for their fence.
type spoolLock struct{}

func (s *spool) hold() (id string, err error) { return "", nil }
func (s *spool) release()                     {}
