package socketmeta

import (
	"fmt"
	"time"
)

// Route is the route ticket: it lets HAProxy send a client without cookies to its worker, and is
// worth nothing else. HAProxy verifies it with its own copy of the route key (jwt_verify, HS256).
type Route struct {
	Server  ServerID
	Expires time.Time // whole seconds; the ticket is refused from then on
}

type routeClaims struct {
	Server  ServerID `json:"srv"`
	Expires int64    `json:"exp"`
}

// SignRoute returns r as a JWT under the first key. Expires is cut to whole seconds.
func (k Keys) SignRoute(r Route) (string, error) {
	if _, err := ParseServerID(string(r.Server)); err != nil {
		return "", fmt.Errorf("sign route: %w", err)
	}
	if r.Expires.Unix() <= 0 {
		return "", fmt.Errorf("sign route: it must expire, after 1970")
	}
	s, err := k.seal(kindRoute, routeClaims{r.Server, r.Expires.Unix()})
	if err != nil {
		return "", fmt.Errorf("sign route: %w", err)
	}
	return s, nil
}

// VerifyRoute reads a route ticket that any of the keys signed and that has not expired at now.
// Errors wrap ErrMalformed, ErrForged or ErrExpired.
func (k Keys) VerifyRoute(s string, now time.Time) (Route, error) {
	var c routeClaims
	if err := k.open(kindRoute, s, &c); err != nil {
		return Route{}, err
	}
	if _, err := ParseServerID(string(c.Server)); err != nil {
		return Route{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkLife(c.Expires, now); err != nil {
		return Route{}, err
	}
	return Route{Server: c.Server, Expires: time.Unix(c.Expires, 0).UTC()}, nil
}
