package socketmeta

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of a key list.
const (
	maxKeys      = 8
	maxKeyID     = 32  // bytes
	minKeySecret = 32  // bytes: the output of HS256, the least that RFC 7518 section 3.2 takes
	maxKeySecret = 512 // bytes
)

// Keys is a list of named HMAC keys: the first signs, all verify, so that a key is rotated by
// putting a new one in front and taking the old one away a token's life later.
//
// The zero value has no key: it signs nothing and verifies nothing. Printing or logging Keys
// shows their names and never a secret.
type Keys struct {
	list []key
}

type key struct {
	id      string
	secret  func() []byte // a closure, because fmt prints what lies in unexported fields
	headers [kinds]string // the one spelling of a ticket's header under this key, by kind
}

// errNoKeys says that Keys is the zero value.
var errNoKeys = errors.New("no key to sign with: put one line `<name> <secret>` into the key file")

// ParseKeys reads a key file: one `<name> <secret>` on a line, the signing key first. Blank lines
// and lines that start with # are skipped. There are 1 to 8 keys; a name is 1 to 32 bytes of
// [A-Za-z0-9_-], used once; a secret is 32 to 512 bytes of printable ASCII without a space. The
// secret's bytes are the key as they are, so that the same text can be HAProxy's.
//
// The error tells the line and how to mend it, and never holds a secret.
func ParseKeys(text []byte) (Keys, error) {
	var keys Keys
	n := 0
	for line := range bytes.Lines(text) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 {
			return Keys{}, fmt.Errorf("line %d has %d words: write `<name> <secret>`, both without spaces", n, len(fields))
		}
		id, secret := fields[0], fields[1]
		switch {
		case !isKeyID(id):
			// The name is not shown: it may be a secret that stands in the wrong place.
			return Keys{}, fmt.Errorf("line %d: the key's name must have 1 to %d bytes of [A-Za-z0-9_-]", n, maxKeyID)
		case slices.ContainsFunc(keys.list, func(k key) bool { return k.id == id }):
			return Keys{}, fmt.Errorf("line %d: two keys have this line's name: rename one", n)
		case len(secret) < minKeySecret || len(secret) > maxKeySecret:
			return Keys{}, fmt.Errorf("line %d: the secret has %d bytes and must have %d to %d; `openssl rand -hex 32` makes a good one",
				n, len(secret), minKeySecret, maxKeySecret)
		case strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }):
			return Keys{}, fmt.Errorf("line %d: the secret must be printable ASCII; `openssl rand -hex 32` makes a good one", n)
		case len(keys.list) == maxKeys:
			return Keys{}, fmt.Errorf("line %d: more than %d keys: remove the oldest", n, maxKeys)
		}
		keys.list = append(keys.list, newKey(id, secret))
	}
	if keys.IsZero() {
		return Keys{}, errors.New("no key: write one line `<name> <secret>`; `openssl rand -hex 32` makes a good secret")
	}
	return keys, nil
}

// RandomKeys returns one fresh key, for a cluster that lives in one process: what it signs is
// worth nothing to any other.
func RandomKeys() Keys {
	return Keys{list: []key{newKey("local", rand.Text()+rand.Text())}}
}

// IsZero reports whether k has no key.
func (k Keys) IsZero() bool { return len(k.list) == 0 }

// String lists the names of the keys, the signing one first.
func (k Keys) String() string {
	names := make([]string, len(k.list))
	for i, key := range k.list {
		names[i] = key.id
	}
	return "keys[" + strings.Join(names, " ") + "]"
}

func newKey(id, secret string) key {
	b := []byte(secret)
	k := key{id: id, secret: func() []byte { return b }}
	for kind, typ := range typs {
		header := `{"alg":"HS256","kid":"` + id + `","typ":"` + typ + `"}`
		k.headers[kind] = base64.RawURLEncoding.EncodeToString([]byte(header))
	}
	return k
}

func isKeyID(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxKeyID
}
