package socketmeta

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// jwtLeeway is by how much the clock of who signed a JWT may differ from ours.
const jwtLeeway = 10 * time.Second

// SignJWT returns claims, which encode to a JSON object, as a JWT under the first key.
func (k Keys) SignJWT(claims any) (string, error) {
	s, err := k.seal(kindJWT, claims)
	if err != nil {
		return "", fmt.Errorf("sign JWT: %w", err)
	}
	return s, nil
}

// VerifyJWT reads the claims of a JWT that somebody else signed with one of the keys: HS256 and nothing else, kid in the
// header names the key, typ is JWT or absent, no crit, at most 4 KiB. It must have exp, and may have nbf; 10 seconds of
// difference between two clocks do not matter. Errors wrap ErrMalformed, ErrForged or ErrExpired.
//
// Unlike a ticket of ours it may be spelled in several ways, and is no name of anything.
func (k Keys) VerifyJWT(s string, now time.Time, claims jwt.Claims) error {
	if len(s) > maxTicket {
		return fmt.Errorf("%w: it has %d bytes and may have %d", ErrMalformed, len(s), maxTicket)
	}
	if strings.ContainsAny(s, "\r\n") { // the decoder would pass over them
		return fmt.Errorf("%w: it holds the end of a line", ErrMalformed)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(), jwt.WithLeeway(jwtLeeway), jwt.WithTimeFunc(func() time.Time { return now }),
	)
	_, err := parser.ParseWithClaims(s, claims, k.find)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrTokenExpired):
		return fmt.Errorf("%w: %w", ErrExpired, err)
	case errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return fmt.Errorf("%w: %w", ErrForged, err)
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// find returns the secret for a JWT whose signature was not checked yet.
func (k Keys) find(t *jwt.Token) (any, error) {
	if typ, there := t.Header["typ"]; there {
		if text, _ := typ.(string); !strings.EqualFold(text, typs[kindJWT]) {
			return nil, fmt.Errorf("typ is %.40q and must be JWT, or absent", text)
		}
	}
	if _, there := t.Header["crit"]; there {
		return nil, errors.New("crit is set, and nothing is known that it could name")
	}
	id, _ := t.Header["kid"].(string)
	i := slices.IndexFunc(k.list, func(key key) bool { return key.id == id })
	if i < 0 {
		return nil, errors.New("kid names no key of ours")
	}
	return k.list[i].secret(), nil
}
