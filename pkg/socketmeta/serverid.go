package socketmeta

import (
	"errors"
	"fmt"
	"strings"
)

// ServerID names one worker: "<instance>-<worker>", as in "i1-w3". Each part is one or more of
// [a-z0-9], the whole at most 64 bytes. It stays the same when the worker restarts; it is the
// routing key of the worker's mailbox and the value of the affinity cookie.
type ServerID string

// maxServerID is the largest length of a server ID, in bytes.
const maxServerID = 64

// ErrServerID is wrapped by every refusal of a server ID.
var ErrServerID = errors.New("not a server ID")

// ParseServerID checks s and wraps ErrServerID if it is not a server ID.
func ParseServerID(s string) (ServerID, error) {
	instance, worker, ok := strings.Cut(s, "-")
	if !ok || len(s) > maxServerID || !isName(instance) || !isName(worker) {
		return "", fmt.Errorf(`%w: %.80q must be <instance>-<worker>, each of [a-z0-9], together at most %d bytes, as in "i1-w3"`, ErrServerID, s, maxServerID)
	}
	return ServerID(s), nil
}

// Instance returns the part before the dash: the machine or group of workers.
func (s ServerID) Instance() string {
	instance, _, _ := strings.Cut(string(s), "-")
	return instance
}

// Worker returns the part after the dash.
func (s ServerID) Worker() string {
	_, worker, _ := strings.Cut(string(s), "-")
	return worker
}

// UnmarshalText reads what ParseServerID reads.
func (s *ServerID) UnmarshalText(text []byte) (err error) {
	*s, err = ParseServerID(string(text))
	return err
}

func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
