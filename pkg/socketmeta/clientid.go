package socketmeta

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// ClientID identifies one client for the life of its session: a UUIDv7 (RFC 9562 section 5.7).
// Its text is the canonical one, 36 characters in lower case; no other spelling is accepted.
// The zero value is no client.
type ClientID [16]byte

// ErrClientID is wrapped by every refusal of a client ID.
var ErrClientID = errors.New("not a client ID")

// NewClientID returns a fresh client ID. Its low 62 bits come from the system's secure source;
// it panics if that source fails, as crypto/rand does.
func NewClientID() ClientID { return ClientID(uuid.Must(uuid.NewV7())) }

// ParseClientID reads the canonical text of a UUIDv7 and wraps ErrClientID for anything else.
func ParseClientID(s string) (ClientID, error) {
	u, err := uuid.Parse(s)
	if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 || u.String() != s {
		return ClientID{}, fmt.Errorf("%w: %.64q must be a UUIDv7 in lower case with dashes", ErrClientID, s)
	}
	return ClientID(u), nil
}

func (c ClientID) String() string { return uuid.UUID(c).String() }

// IsZero reports whether c names no client.
func (c ClientID) IsZero() bool { return c == ClientID{} }

// MarshalText writes the canonical text. A type defined on uuid.UUID would lose uuid's own.
func (c ClientID) MarshalText() ([]byte, error) { return uuid.UUID(c).MarshalText() }

// UnmarshalText reads what ParseClientID reads.
func (c *ClientID) UnmarshalText(text []byte) (err error) {
	*c, err = ParseClientID(string(text))
	return err
}
