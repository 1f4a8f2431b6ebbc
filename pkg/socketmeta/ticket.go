package socketmeta

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Errors of VerifyToken, VerifyRoute and VerifyJWT. A caller outside this process hears only which of them it was.
var (
	ErrMalformed = errors.New("ticket is malformed")        // not a ticket of ours, in any spelling
	ErrForged    = errors.New("ticket is not signed by us") // unknown key, other algorithm, wrong signature
	ErrExpired   = errors.New("ticket has expired")         // signed by us, but too old
)

// maxTicket is the largest ticket that is signed or looked at, in bytes.
const maxTicket = 4 << 10

// kind tells the tickets apart. Each has a typ of its own (RFC 8725 section 3.11), so that
// neither passes for the other even if they were signed with the same key.
type kind int

const (
	kindToken kind = iota
	kindRoute
	kindJWT // of others too: see VerifyJWT
	kinds
)

var typs = [kinds]string{kindToken: "wscluster-resume+jwt", kindRoute: "wscluster-route+jwt", kindJWT: "JWT"}

// seal signs claims with the first key: a JWT in compact form (RFC 7519), HS256.
func (k Keys) seal(as kind, claims any) (string, error) {
	if k.IsZero() {
		return "", errNoKeys
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	key := k.list[0]
	signed := key.headers[as] + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := key.sign(signed)
	if err != nil {
		return "", err
	}
	if len(signed)+1+len(signature) > maxTicket {
		return "", fmt.Errorf("ticket would have %d bytes, over the limit of %d", len(signed)+1+len(signature), maxTicket)
	}
	return signed + "." + signature, nil
}

// open checks s and reads its claims.
//
// Only one text is right for given claims and key, and s is compared with it, never normalised:
// the header must be the very text that seal writes, which pins the algorithm, the type and the
// key's name and leaves no room for crit, jwk or an alg of the sender's choice; the signature must
// be the very text of the right one, because base64 decoders, strict ones too, take several
// spellings of the same bytes. Nothing of the sender's is decoded before both have matched.
func (k Keys) open(as kind, s string, claims any) error {
	if len(s) > maxTicket {
		return fmt.Errorf("%w: it has %d bytes and may have %d", ErrMalformed, len(s), maxTicket)
	}
	header, rest, ok := strings.Cut(s, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 {
		return fmt.Errorf("%w: it must have three parts with a dot between", ErrMalformed)
	}
	for _, key := range k.list {
		if header != key.headers[as] {
			continue
		}
		want, err := key.sign(s[:len(header)+1+len(payload)])
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare([]byte(signature), []byte(want)) != 1 {
			return fmt.Errorf("%w: wrong signature for key %s", ErrForged, key.id)
		}
		text, err := base64.RawURLEncoding.DecodeString(payload)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if err := json.Unmarshal(text, claims); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return nil
	}
	return fmt.Errorf("%w: no key of ours for this header", ErrForged)
}

// sign returns the signature of s as the text that ends a ticket.
func (k key) sign(s string) (string, error) {
	sum, err := jwt.SigningMethodHS256.Sign(s, k.secret())
	if err != nil {
		return "", fmt.Errorf("sign with key %s: %w", k.id, err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// checkLife wraps ErrMalformed if a ticket has no end and ErrExpired if now is not before it.
func checkLife(exp int64, now time.Time) error {
	switch {
	case exp <= 0:
		return fmt.Errorf("%w: it has no exp", ErrMalformed)
	case now.Unix() >= exp:
		return fmt.Errorf("%w: %s ago", ErrExpired, now.Sub(time.Unix(exp, 0)).Round(time.Second))
	}
	return nil
}
