package socketmeta

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// maxSubject is the largest subject of a token, in bytes.
const maxSubject = 1024

// Token is the resume ticket: what a client shows to get its session back, signed by the worker.
// It travels in the hello frame or the X-Socket-Meta header, never in a URL or a log.
type Token struct {
	Meta
	Subject  string    // who the session belongs to, at most 1,024 bytes; "" where nobody is asked
	IssuedAt time.Time // whole seconds; told, not judged
	Expires  time.Time // whole seconds; the token is refused from then on
}

type tokenClaims struct {
	Client  ClientID `json:"cid"`
	Server  ServerID `json:"srv"`
	Epoch   Epoch    `json:"epoch"`
	Subject string   `json:"sub,omitempty"`
	Issued  int64    `json:"iat"`
	Expires int64    `json:"exp"`
}

// SignToken returns t as a JWT under the first key. Times are cut to whole seconds. It fails for
// a t that VerifyToken would not take at t.IssuedAt.
func (k Keys) SignToken(t Token) (string, error) {
	c := tokenClaims{t.Client, t.Server, t.Epoch, t.Subject, t.IssuedAt.Unix(), t.Expires.Unix()}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if c.Expires <= c.Issued {
		return "", fmt.Errorf("sign token: it would expire at %s, not after it is issued at %s", t.Expires, t.IssuedAt)
	}
	s, err := k.seal(kindToken, c)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return s, nil
}

// VerifyToken reads a token that any of the keys signed and that has not expired at now. Errors
// wrap ErrMalformed, ErrForged or ErrExpired. There is no leeway: a token is good until the
// second of its Expires, by this machine's clock.
//
// IssuedAt is not judged: the clocks of two workers may differ, and whoever could forge the
// time could forge the rest.
func (k Keys) VerifyToken(s string, now time.Time) (Token, error) {
	var c tokenClaims
	if err := k.open(kindToken, s, &c); err != nil {
		return Token{}, err
	}
	if err := c.check(); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkLife(c.Expires, now); err != nil {
		return Token{}, err
	}
	return Token{
		Meta:     Meta{c.Client, c.Server, c.Epoch},
		Subject:  c.Subject,
		IssuedAt: time.Unix(c.Issued, 0).UTC(),
		Expires:  time.Unix(c.Expires, 0).UTC(),
	}, nil
}

func (c *tokenClaims) check() error {
	if _, err := ParseServerID(string(c.Server)); err != nil {
		return err
	}
	switch {
	case c.Client.IsZero():
		return fmt.Errorf("%w: there is none", ErrClientID)
	case c.Epoch < 0:
		return fmt.Errorf("epoch %d is negative", c.Epoch)
	case len(c.Subject) > maxSubject || !utf8.ValidString(c.Subject):
		return fmt.Errorf("the subject must be UTF-8 of at most %d bytes", maxSubject)
	}
	return nil
}
