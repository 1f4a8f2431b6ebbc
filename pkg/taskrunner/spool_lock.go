//go:build unix

package taskrunner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wscluster/wscluster/pkg/wire"
)

// spoolLock is held by the process that uses a spool, until it dies: whoever has it knows that nobody
// else does. The file has the spool's ID, which tells it from spools on other disks.
type spoolLock struct {
	file *os.File
	id   string
}

// hold takes the lock, if it is not held yet, and returns the spool's ID; "" if there is no spool. It
// does not wait: another process that has the lock is an error.
func (s *spool) hold() (id string, err error) {
	switch {
	case s == nil:
		return "", nil
	case s.lock.file != nil:
		return s.lock.id, nil
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", fmt.Errorf("lock %s: %w (another process uses this spool)", f.Name(), err)
	}
	had, err := io.ReadAll(io.LimitReader(f, wire.MaxID))
	if err != nil {
		return "", err
	}
	if _, err := wire.ParseRunID(string(had)); err != nil {
		had = []byte(wire.NewRunID())
		if err := errors.Join(f.Truncate(0), writeAt(f, had), f.Sync()); err != nil {
			return "", err
		}
	}
	s.lock = spoolLock{f, string(had)}
	return s.lock.id, nil
}

func writeAt(f *os.File, p []byte) error {
	_, err := f.WriteAt(p, 0)
	return err
}

// release gives the lock to whoever is next.
func (s *spool) release() {
	if s != nil && s.lock.file != nil {
		_ = s.lock.file.Close() // nothing is lost
	}
}
