package socketmeta

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// outsider signs a JWT as a program that knows secretA alone would, with a header and claims as they are written here.
func outsider(header, claims string) string {
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secretA))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestAJWTOfAnOutsiderIsTaken(t *testing.T) {
	keys := mustKeys(t, "new "+secretB+"\nold "+secretA)
	claims := fmt.Sprintf(`{"sub":"backend","exp":%d}`, expires.Unix())
	for name, header := range map[string]string{
		"in the order of PyJWT":    `{"alg":"HS256","kid":"old","typ":"JWT"}`,
		"in another order":         `{"typ":"JWT", "kid":"old", "alg":"HS256"}`,
		"without typ, as jose has": `{"alg":"HS256","kid":"old"}`,
		"with typ in small":        `{"alg":"HS256","kid":"old","typ":"jwt"}`,
		"with a field more":        `{"alg":"HS256","kid":"old","x":1}`,
	} {
		var c jwt.RegisteredClaims
		if err := keys.VerifyJWT(outsider(header, claims), issued, &c); err != nil || c.Subject != "backend" {
			t.Errorf("%s: %v, subject %q", name, err, c.Subject)
		}
	}
}

func TestAJWTThatWeSignIsTakenUntilItExpires(t *testing.T) {
	keys := mustKeys(t, "k "+secretA)
	s, err := keys.SignJWT(jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(expires), NotBefore: jwt.NewNumericDate(issued)})
	if err != nil {
		t.Fatal(err)
	}
	for now, want := range map[time.Time]error{
		issued: nil, issued.Add(-jwtLeeway): nil, issued.Add(-jwtLeeway - time.Second): ErrMalformed,
		expires: nil, expires.Add(jwtLeeway - time.Second): nil, expires.Add(jwtLeeway): ErrExpired,
	} {
		if err := keys.VerifyJWT(s, now, new(jwt.RegisteredClaims)); !errors.Is(err, want) {
			t.Errorf("%v after it was issued: got %v, want %v", now.Sub(issued), err, want)
		}
	}
}

func TestJWTsThatAreNotAsAgreedAreRefused(t *testing.T) {
	keys := mustKeys(t, "new "+secretB+"\nold "+secretA)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(expires)}
	sign := func(m jwt.SigningMethod, key any) string {
		token := jwt.NewWithClaims(m, claims)
		token.Header["kid"] = "old"
		s, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	exp := fmt.Sprintf(`{"exp":%d}`, expires.Unix())
	good := `{"alg":"HS256","kid":"old","typ":"JWT"}`
	ticket, err := keys.SignToken(testToken())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"alg none":                 {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType), ErrForged},
		"alg RS256":                {sign(jwt.SigningMethodRS256, private), ErrForged},
		"alg HS512":                {sign(jwt.SigningMethodHS512, []byte(secretA)), ErrForged},
		"alg missing":              {outsider(`{"kid":"old"}`, exp), ErrForged},
		"alg hs256":                {outsider(`{"alg":"hs256","kid":"old"}`, exp), ErrForged},
		"another key's name":       {outsider(`{"alg":"HS256","kid":"new"}`, exp), ErrForged},
		"an unknown key":           {outsider(`{"alg":"HS256","kid":"other"}`, exp), ErrForged},
		"no kid":                   {outsider(`{"alg":"HS256"}`, exp), ErrForged},
		"kid is a number":          {outsider(`{"alg":"HS256","kid":1}`, exp), ErrForged},
		"crit":                     {outsider(`{"alg":"HS256","kid":"old","crit":["exp"]}`, exp), ErrForged},
		"the typ of another":       {outsider(`{"alg":"HS256","kid":"old","typ":"wscluster-resume+jwt"}`, exp), ErrForged},
		"typ is a number":          {outsider(`{"alg":"HS256","kid":"old","typ":1}`, exp), ErrForged},
		"a ticket of ours":         {ticket, ErrForged},
		"no exp":                   {outsider(good, `{"sub":"a"}`), ErrMalformed},
		"exp is null":              {outsider(good, `{"exp":null}`), ErrMalformed},
		"exp is text":              {outsider(good, `{"exp":"never"}`), ErrMalformed},
		"expired":                  {outsider(good, `{"exp":1}`), ErrExpired},
		"claims are a list":        {outsider(good, `[]`), ErrMalformed},
		"two parts":                {strings.Join(strings.Split(outsider(good, exp), ".")[:2], "."), ErrMalformed},
		"nothing":                  {"", ErrMalformed},
		"a wrong last letter":      {wrongEnd(outsider(good, exp)), ErrForged},
		"too large by a byte":      {outsider(good, padded(t, good, exp, maxTicket+1)), ErrMalformed},
		"padding behind":           {outsider(good, exp) + "=", ErrMalformed},
		"a line's end in the text": {outsider(good, exp) + "\n", ErrMalformed},
	} {
		if err := keys.VerifyJWT(c.text, issued, new(jwt.RegisteredClaims)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		} else if strings.Contains(err.Error(), secretA) {
			t.Errorf("%s: the error holds the secret", name)
		}
	}
	if err := keys.VerifyJWT(outsider(good, padded(t, good, exp, maxTicket)), issued, new(jwt.RegisteredClaims)); err != nil {
		t.Errorf("of the largest size: %v", err)
	}
	if err := (Keys{}).VerifyJWT(outsider(good, exp), issued, new(jwt.RegisteredClaims)); !errors.Is(err, ErrForged) {
		t.Errorf("without keys: got %v, want ErrForged", err)
	}
}

// wrongEnd changes the signature's first letter.
func wrongEnd(s string) string {
	i := strings.LastIndexByte(s, '.') + 1
	c := byte('A')
	if s[i] == c {
		c = 'B'
	}
	return s[:i] + string(c) + s[i+1:]
}

// padded returns claims with spaces behind, so that the JWT has size bytes, or one more where base64 leaves no choice.
func padded(t *testing.T, header, claims string, size int) string {
	for range size {
		if claims += " "; len(outsider(header, claims)) >= size {
			return claims
		}
	}
	t.Fatal("no such size")
	return ""
}

// FuzzVerifyJWT looks for a text that is taken though its signature, computed here again, is not that of a key, or
// its header does not say HS256.
func FuzzVerifyJWT(f *testing.F) {
	exp := fmt.Sprintf(`{"exp":%d}`, expires.Unix())
	for _, header := range []string{`{"alg":"HS256","kid":"old","typ":"JWT"}`, `{"alg":"none","kid":"old"}`, `{"kid":"old","kid":"new","alg":"HS256"}`, `{}`} {
		f.Add(header, exp, outsider(header, exp))
	}
	f.Add(`{"alg":"HS256","kid":"old"}`, `{"exp":1e300,"nbf":-1}`, "a.b.c")
	f.Fuzz(func(t *testing.T, header, claims, text string) {
		keys := mustKeys(t, "old "+secretA)
		for _, s := range []string{text, outsider(header, claims)} {
			if keys.VerifyJWT(s, issued, new(jwt.RegisteredClaims)) != nil {
				continue
			}
			parts := strings.Split(s, ".")
			mac := hmac.New(sha256.New, []byte(secretA))
			mac.Write([]byte(parts[0] + "." + parts[1]))
			if base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) != parts[2] {
				t.Fatalf("taken with a signature that is not ours: %s", s)
			}
			raw, _ := base64.RawURLEncoding.DecodeString(parts[0])
			var h struct{ Alg, Kid, Typ string }
			if err := json.Unmarshal(raw, &h); err != nil || h.Alg != "HS256" || h.Kid != "old" || len(s) > maxTicket {
				t.Fatalf("taken with the header %s (%v)", raw, err)
			}
		}
	})
}
