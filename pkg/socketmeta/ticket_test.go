package socketmeta

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	issued  = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	expires = issued.Add(30 * time.Minute)
)

func testToken() Token {
	return Token{
		Meta:     Meta{Client: NewClientID(), Server: "i1-w3", Epoch: Epoch(issued.UnixMilli())},
		Subject:  "alice@example.org",
		IssuedAt: issued,
		Expires:  expires,
	}
}

func testRoute() Route { return Route{Server: "i1-w3", Expires: expires} }

// ticket is a signed ticket and the call that should or should not take it.
type ticket struct {
	text   string
	verify func(Keys, string, time.Time) error
}

func tickets(t testing.TB, keys Keys) map[string]ticket {
	t.Helper()
	token, err := keys.SignToken(testToken())
	if err != nil {
		t.Fatal(err)
	}
	route, err := keys.SignRoute(testRoute())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]ticket{"token": {token, verifyToken}, "route": {route, verifyRoute}}
}

func verifyToken(k Keys, s string, now time.Time) error {
	token, err := k.VerifyToken(s, now)
	if err != nil && token != (Token{}) {
		return errors.New("a refused token came out all the same")
	}
	return err
}

func verifyRoute(k Keys, s string, now time.Time) error {
	route, err := k.VerifyRoute(s, now)
	if err != nil && route != (Route{}) {
		return errors.New("a refused route came out all the same")
	}
	return err
}

func TestTokenComesBackAsItWasSigned(t *testing.T) {
	keys := RandomKeys()
	plain := testToken()
	noSubject := plain
	noSubject.Subject = ""
	odd := plain
	odd.Subject = "<\"\\\n\u2028" + strings.Repeat("é", 500)
	for _, want := range []Token{plain, noSubject, odd} {
		s, err := keys.SignToken(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keys.VerifyToken(s, issued)
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
}

func TestRouteComesBackAsItWasSigned(t *testing.T) {
	keys := RandomKeys()
	s, err := keys.SignRoute(testRoute())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.VerifyRoute(s, issued); err != nil || got != testRoute() {
		t.Errorf("got %v, %v, want %v", got, err, testRoute())
	}
}

func TestFractionsOfASecondAreCut(t *testing.T) {
	keys := RandomKeys()
	want := testToken()
	fine := want
	fine.IssuedAt, fine.Expires = issued.Add(999*time.Millisecond), expires.Add(time.Nanosecond)
	s, err := keys.SignToken(fine)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.VerifyToken(s, issued); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestTicketExpiresAtItsVerySecond(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		for now, want := range map[time.Time]error{
			issued.Add(-time.Hour):            nil, // the clock of another worker may lag
			expires.Add(-time.Nanosecond):     nil,
			expires:                           ErrExpired,
			expires.Add(24 * 365 * time.Hour): ErrExpired,
		} {
			if err := ticket.verify(keys, ticket.text, now); !errors.Is(err, want) {
				t.Errorf("%s at %s: got %v, want %v", name, now, err, want)
			}
		}
	}
}

func TestKeysRotate(t *testing.T) {
	old := mustKeys(t, "k1 "+secretA)
	both := mustKeys(t, "k2 "+secretB+"\nk1 "+secretA)
	renewed := mustKeys(t, "k2 "+secretB)
	for name, ticket := range tickets(t, old) {
		if err := ticket.verify(both, ticket.text, issued); err != nil {
			t.Errorf("%s of the old key, while both are there: %v", name, err)
		}
		if err := ticket.verify(renewed, ticket.text, issued); !errors.Is(err, ErrForged) {
			t.Errorf("%s of the old key, after it was removed: got %v, want ErrForged", name, err)
		}
	}
	for name, ticket := range tickets(t, both) {
		if err := ticket.verify(renewed, ticket.text, issued); err != nil {
			t.Errorf("%s signed while both are there was not signed by the first: %v", name, err)
		}
	}
}

func TestSameKeyNameWithOtherSecretIsForged(t *testing.T) {
	ours, theirs := mustKeys(t, "k1 "+secretA), mustKeys(t, "k1 "+secretB)
	for name, ticket := range tickets(t, theirs) {
		if err := ticket.verify(ours, ticket.text, issued); !errors.Is(err, ErrForged) {
			t.Errorf("%s: got %v, want ErrForged", name, err)
		}
	}
}

func TestZeroKeysSignAndVerifyNothing(t *testing.T) {
	var none Keys
	if _, err := none.SignToken(testToken()); err == nil {
		t.Error("the zero Keys signed a token")
	}
	if _, err := none.SignRoute(testRoute()); err == nil {
		t.Error("the zero Keys signed a route")
	}
	for name, ticket := range tickets(t, RandomKeys()) {
		if err := ticket.verify(none, ticket.text, issued); !errors.Is(err, ErrForged) {
			t.Errorf("%s: got %v, want ErrForged", name, err)
		}
	}
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	keys := RandomKeys()
	for name, change := range map[string]func(*Token){
		"no client":         func(t *Token) { t.Client = ClientID{} },
		"no server":         func(t *Token) { t.Server = "" },
		"bad server":        func(t *Token) { t.Server = "i1" },
		"negative epoch":    func(t *Token) { t.Epoch = -1 },
		"no end":            func(t *Token) { t.Expires = time.Time{} },
		"ends as it begins": func(t *Token) { t.Expires = t.IssuedAt },
		"long subject":      func(t *Token) { t.Subject = strings.Repeat("s", maxSubject+1) },
		"subject not UTF-8": func(t *Token) { t.Subject = "\xff" },
		"over the limit":    func(t *Token) { t.Subject = strings.Repeat("\x01", maxSubject) },
	} {
		token := testToken()
		change(&token)
		if s, err := keys.SignToken(token); err == nil {
			t.Errorf("%s: signed as %s", name, s)
		}
	}
	for name, route := range map[string]Route{"no server": {Expires: expires}, "no end": {Server: "i1-w3"}} {
		if s, err := keys.SignRoute(route); err == nil {
			t.Errorf("route with %s: signed as %s", name, s)
		}
	}
}

// TestTicketsAreJWTs lets golang-jwt's own parser, which shares no parsing with ours, read them.
func TestTicketsAreJWTs(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	for name, ticket := range tickets(t, keys) {
		parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithStrictDecoding(),
			jwt.WithExpirationRequired(), jwt.WithTimeFunc(func() time.Time { return issued }))
		parsed, err := parser.Parse(ticket.text, func(*jwt.Token) (any, error) { return []byte(secretA), nil })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if parsed.Header["kid"] != "k1" || parsed.Claims.(jwt.MapClaims)["srv"] != "i1-w3" {
			t.Errorf("%s: got header %v, claims %v", name, parsed.Header, parsed.Claims)
		}
	}
}

// TestTicketTextIsFixed pins the bytes: a worker of the next version has to verify the tickets
// of this one, and HAProxy's side is configured for them.
func TestTicketTextIsFixed(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	token := testToken()
	token.Client = ClientID{0x01, 0x8f, 0x6d, 0x9a, 0x2b, 0x3c, 0x7d, 0x4e, 0x8f, 0x50, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}
	s, err := keys.SignToken(token)
	if err != nil {
		t.Fatal(err)
	}
	checkParts(t, s, `{"alg":"HS256","kid":"k1","typ":"wscluster-resume+jwt"}`,
		`{"cid":"018f6d9a-2b3c-7d4e-8f50-123456789abc","srv":"i1-w3","epoch":1773480413000,"sub":"alice@example.org","iat":1773480413,"exp":1773482213}`)
	if s, err = keys.SignRoute(testRoute()); err != nil {
		t.Fatal(err)
	}
	checkParts(t, s, `{"alg":"HS256","kid":"k1","typ":"wscluster-route+jwt"}`, `{"srv":"i1-w3","exp":1773482213}`)
}

func checkParts(t *testing.T, s, header, payload string) {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secretA))
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	mac.Write([]byte(signed))
	if want := signed + "." + encode(mac.Sum(nil)); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}
