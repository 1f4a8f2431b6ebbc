package wire

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// TaskID names one task. The client chooses it, and it is the task's idempotency key: 1 to MaxID
// bytes of [A-Za-z0-9_.-], not starting with a dot or a dash, so that it can be a file's name.
type TaskID string

// RunID names one run of a task by one runner: the canonical text of a UUIDv7. Two runs of an
// attempt compare as strings do: the later one is higher (RFC 9562 section 6.11).
type RunID string

// ErrID is wrapped by every refusal of a task ID, a run ID or a kind.
var ErrID = errors.New("not a valid name")

// NewTaskID returns a fresh task ID.
func NewTaskID() TaskID { return TaskID(uuid.Must(uuid.NewV7()).String()) }

// NewRunID returns a run ID that is higher than all earlier ones of this process.
func NewRunID() RunID { return RunID(uuid.Must(uuid.NewV7()).String()) }

// ParseTaskID checks s and wraps ErrID if it is not a task ID.
func ParseTaskID(s string) (TaskID, error) {
	if s == "" || len(s) > MaxID || s[0] == '.' || s[0] == '-' {
		return "", fmt.Errorf("%w: task ID %.80q must have 1 to %d bytes of [A-Za-z0-9_.-] and not start with a dot or a dash", ErrID, s, MaxID)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return "", fmt.Errorf("%w: task ID %.80q holds a byte outside [A-Za-z0-9_.-]", ErrID, s)
		}
	}
	return TaskID(s), nil
}

// ParseRunID checks s and wraps ErrID if it is not the canonical text of a UUIDv7.
func ParseRunID(s string) (RunID, error) {
	u, err := uuid.Parse(s)
	if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 || u.String() != s {
		return "", fmt.Errorf("%w: run ID %.80q must be a UUIDv7 in lower case with dashes", ErrID, s)
	}
	return RunID(s), nil
}

// CheckKind wraps ErrID unless kind is 1 to MaxID bytes of [a-z0-9-], as in "go-build". Kinds are
// parts of queue names.
func CheckKind(kind string) error {
	ok := kind != "" && len(kind) <= MaxID
	for i := range len(kind) {
		c := kind[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%w: kind %.80q must have 1 to %d bytes of [a-z0-9-]", ErrID, kind, MaxID)
	}
	return nil
}
