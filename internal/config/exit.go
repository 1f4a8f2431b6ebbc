package config

import "errors"

// The exit codes of every program of wscluster.
const (
	ExitOK     = 0
	ExitFailed = 1 // anything that has no code of its own
	ExitUsage  = 2 // a flag or argument that the program does not have
	ExitConfig = 3 // a configuration that it refuses
	ExitBroker = 4 // the broker could not be used
)

// exitError is an error that knows the exit code of its process.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// WithExit returns err with the exit code that it calls for; nil if err is nil. The text of err
// stays as it is.
func WithExit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// ExitCode returns the code of the outermost WithExit in err, ExitOK for nil and ExitFailed for
// an error without one.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return ExitFailed
}
