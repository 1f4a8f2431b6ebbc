package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// audience is what aud must hold if a grant has it.
const audience = "wscluster"

// Grant is a ticket of a backend: what its bearer may do until it expires. It is a JWT (HS256) under one of the grant
// keys, with the claims subscribe and publish (lists of patterns: a channel's name, or the beginning of one with * at
// its end), ask (true), exp, and sub, which nobody judges.
type Grant struct {
	Subject   string
	Subscribe []string
	Publish   []string
	Ask       bool
	Expires   time.Time // whole seconds
}

type grantClaims struct {
	Subscribe []string `json:"subscribe,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	Ask       bool     `json:"ask,omitempty"`
	jwt.RegisteredClaims
}

// SignGrant returns g as a JWT under the first of keys. It fails for a g that could not be used.
func SignGrant(keys socketmeta.Keys, g Grant) (string, error) {
	c := grantClaims{g.Subscribe, g.Publish, g.Ask, jwt.RegisteredClaims{Subject: g.Subject, ExpiresAt: jwt.NewNumericDate(g.Expires)}}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("sign grant: %w", err)
	}
	if g.Expires.Unix() <= 0 {
		return "", errors.New("sign grant: it must expire, after 1970")
	}
	return keys.SignJWT(c)
}

func (c *grantClaims) check() error {
	for name, list := range map[string][]string{"subscribe": c.Subscribe, "publish": c.Publish} {
		if _, err := parsePatterns(list); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(c.Audience) > 0 && !slices.Contains(c.Audience, audience) {
		return fmt.Errorf("aud is set and does not hold %q", audience)
	}
	return nil
}

// Grants judges grants, and knows the channels that need none. The zero value allows nothing. It is safe for
// concurrent use.
type Grants struct {
	keys socketmeta.Keys
	open patterns
}

// NewGrants returns the judge of the grants that keys sign; none for zero keys. Anybody may subscribe to the channels
// that open names, a list of patterns.
func NewGrants(keys socketmeta.Keys, open []string) (Grants, error) {
	o, err := parsePatterns(open)
	return Grants{keys, slices.Clone(o)}, err
}

// AllowSubscribe returns nil if the bearer of a grant, which may be "", may subscribe to c at now. Else the error is a
// *wire.Error: forbidden, or unauthorized if there is a grant that is not good. A grant is judged once: a subscription
// outlives it.
func (g Grants) AllowSubscribe(grant string, c wire.Channel, now time.Time) error {
	if g.open.match(c) {
		return nil
	}
	if grant == "" {
		return wire.Errorf(wire.CodeForbidden, "the channel %s needs a grant", c)
	}
	have, err := g.read(grant, now)
	if err == nil && !patterns(have.Subscribe).match(c) {
		err = wire.Errorf(wire.CodeForbidden, "the grant does not allow to subscribe to %s", c)
	}
	return err
}

// AllowPublish is the same for publishing to all of the channels, which always needs a grant: without one the error
// is unauthorized.
func (g Grants) AllowPublish(grant string, channels []wire.Channel, now time.Time) error {
	have, err := g.read(grant, now)
	if err != nil {
		return err
	}
	for _, c := range channels {
		if !patterns(have.Publish).match(c) {
			return wire.Errorf(wire.CodeForbidden, "the grant does not allow to publish to %s", c)
		}
	}
	return nil
}

// AllowAsk is the same for asking clients.
func (g Grants) AllowAsk(grant string, now time.Time) error {
	have, err := g.read(grant, now)
	if err == nil && !have.Ask {
		err = wire.Errorf(wire.CodeForbidden, "the grant does not allow to ask clients")
	}
	return err
}

// read returns what a grant says, or a *wire.Error with code unauthorized.
func (g Grants) read(grant string, now time.Time) (*grantClaims, error) {
	unauthorized := func(why string) (*grantClaims, error) {
		return nil, wire.Errorf(wire.CodeUnauthorized, "a grant is needed: a JWT that one of the grant keys signed: %s", why)
	}
	switch {
	case g.keys.IsZero():
		return unauthorized("this worker has no grant keys")
	case grant == "":
		return unauthorized("there is none")
	}
	c := new(grantClaims)
	if err := g.keys.VerifyJWT(grant, now, c); err != nil {
		for _, known := range []error{socketmeta.ErrExpired, socketmeta.ErrForged} { // no more than that is for outsiders
			if errors.Is(err, known) {
				return unauthorized(strings.Replace(known.Error(), "ticket", "it", 1))
			}
		}
		return unauthorized("it is malformed, or lacks exp")
	}
	if err := c.check(); err != nil {
		return unauthorized(err.Error())
	}
	return c, nil
}
