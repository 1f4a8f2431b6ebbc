package socketmeta

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func TestNeitherTicketPassesForTheOther(t *testing.T) {
	keys := RandomKeys()
	all := tickets(t, keys)
	if err := verifyRoute(keys, all["token"].text, issued); !errors.Is(err, ErrForged) {
		t.Errorf("token as route: got %v, want ErrForged", err)
	}
	if err := verifyToken(keys, all["route"].text, issued); !errors.Is(err, ErrForged) {
		t.Errorf("route as token: got %v, want ErrForged", err)
	}
}

func TestEverySingleBitChangeIsRefused(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		for i := range ticket.text {
			for bit := range 8 {
				b := []byte(ticket.text)
				b[i] ^= 1 << bit
				mustRefuse(t, keys, name, ticket, string(b))
			}
		}
	}
}

func TestEveryRespellingIsRefused(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		s := ticket.text
		parts := strings.Split(s, ".")
		for _, other := range []string{
			"", " ", ".", "..", "...", s + ".", "." + s, s + "." + parts[2], parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".",
			s + "=", s + "==", parts[0] + "=." + parts[1] + "." + parts[2], parts[0] + "." + parts[1] + "=." + parts[2],
			s + "\n", s + "\r\n", s + " ", s + "\x00", " " + s, "\t" + s, "\ufeff" + s, "Bearer " + s, `"` + s + `"`,
			strings.ToUpper(s), strings.ToLower(s), strings.ReplaceAll(s, ".", "\u3002"), strings.ReplaceAll(s, ".", "%2E"),
		} {
			mustRefuse(t, keys, name, ticket, other)
		}
		for i := range len(s) + 1 {
			for _, c := range []string{"\n", "\r", " ", "=", "."} {
				mustRefuse(t, keys, name, ticket, s[:i]+c+s[i:])
			}
			if i > 0 {
				mustRefuse(t, keys, name, ticket, s[:i-1]+s[i:])
			}
		}
		// In base64url the last character of a part carries 6, 4 or 2 bits that count; the others
		// that decode to the same bytes are respellings. Try every last character of every part.
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/"
		for i, part := range parts {
			for _, c := range alphabet {
				other := append([]string(nil), parts...)
				other[i] = part[:len(part)-1] + string(c)
				mustRefuse(t, keys, name, ticket, strings.Join(other, "."))
			}
		}
	}
}

// TestStandardAlphabetIsRefused needs a signature that holds - or _, which most have.
func TestStandardAlphabetIsRefused(t *testing.T) {
	keys := RandomKeys()
	standard := strings.NewReplacer("-", "+", "_", "/")
	for tried := 0; tried < 3; {
		for name, ticket := range tickets(t, keys) {
			if other := standard.Replace(ticket.text); other != ticket.text {
				tried++
				mustRefuse(t, keys, name, ticket, other)
			}
		}
		keys = RandomKeys()
	}
}

func TestOtherHeadersAreRefused(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	secret := []byte(secretA)
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, ticket := range tickets(t, keys) {
		typ := typs[kindToken]
		if name == "route" {
			typ = typs[kindRoute]
		}
		payload := strings.Split(ticket.text, ".")[1]
		right := `{"alg":"HS256","kid":"k1","typ":"` + typ + `"}`
		if forged(t, jwt.SigningMethodHS256, right, payload, secret) != ticket.text {
			t.Fatalf("%s: the test's own way of signing is not ours", name)
		}
		for _, f := range []struct {
			method jwt.SigningMethod
			header string
			key    any
		}{
			{jwt.SigningMethodNone, `{"alg":"none","kid":"k1","typ":"` + typ + `"}`, jwt.UnsafeAllowNoneSignatureType},
			{jwt.SigningMethodNone, right, jwt.UnsafeAllowNoneSignatureType},
			{jwt.SigningMethodHS384, `{"alg":"HS384","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS512, `{"alg":"HS512","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS384, right, secret},
			{jwt.SigningMethodRS256, `{"alg":"RS256","kid":"k1","typ":"` + typ + `"}`, pair},
			{jwt.SigningMethodRS256, right, pair},
			{jwt.SigningMethodHS256, `{"alg":"hs256","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"k2","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"k1"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"k1","typ":"JWT"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","crit":["exp"],"kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","b64":false,"kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","jwk":{"kty":"oct"},"kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"none","alg":"HS256","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, right + " ", secret},
			{jwt.SigningMethodHS256, `null`, secret},
			{jwt.SigningMethodHS256, ``, secret},
		} {
			mustRefuse(t, keys, name+" with header "+f.header, ticket, forged(t, f.method, f.header, payload, f.key))
		}
	}
}

// TestClaimsAreJudgedEvenIfSigned shows what a worker with a fault, or of another version, could
// sign: it is malformed, not trusted.
func TestClaimsAreJudgedEvenIfSigned(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	sign := func(kind kind, payload string) string {
		header := `{"alg":"HS256","kid":"k1","typ":"` + typs[kind] + `"}`
		return forged(t, jwt.SigningMethodHS256, header, base64.RawURLEncoding.EncodeToString([]byte(payload)), []byte(secretA))
	}
	const cid = `"cid":"018f6d9a-2b3c-7d4e-8f50-123456789abc"`
	good := sign(kindToken, `{`+cid+`,"srv":"i1-w3","epoch":7,"exp":4102444800,"later":["version"]}`)
	if err := verifyToken(keys, good, issued); err != nil {
		t.Errorf("a claim of a later version: %v", err)
	}
	for _, payload := range []string{
		``, `null`, `[]`, `"x"`, `{}`, `{"srv":"i1-w3","epoch":7,"exp":4102444800}`,
		`{` + cid + `,"epoch":7,"exp":4102444800}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":"4102444800"}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":4102444800.5}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":1e400}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":-1}`,
		`{` + cid + `,"srv":"i1-w3","epoch":-7,"exp":4102444800}`,
		`{` + cid + `,"srv":"I1-W3","epoch":7,"exp":4102444800}`,
		`{` + cid + `,"srv":["i1-w3"],"epoch":7,"exp":4102444800}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":4102444800,"sub":"` + strings.Repeat("s", maxSubject+1) + `"}`,
		`{"cid":"018f6d9a-2b3c-4d4e-8f50-123456789abc","srv":"i1-w3","epoch":7,"exp":4102444800}`,
		`{"cid":"018F6D9A-2B3C-7D4E-8F50-123456789ABC","srv":"i1-w3","epoch":7,"exp":4102444800}`,
	} {
		if err := verifyToken(keys, sign(kindToken, payload), issued); !errors.Is(err, ErrMalformed) {
			t.Errorf("token with %s: got %v, want ErrMalformed", payload, err)
		}
	}
	for _, payload := range []string{``, `{}`, `{"srv":"i1-w3"}`, `{"srv":"i1","exp":4102444800}`, `{"exp":4102444800}`} {
		if err := verifyRoute(keys, sign(kindRoute, payload), issued); !errors.Is(err, ErrMalformed) {
			t.Errorf("route with %s: got %v, want ErrMalformed", payload, err)
		}
	}
}

func TestOversizedTicketIsMalformed(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		if err := ticket.verify(keys, ticket.text+strings.Repeat("A", maxTicket), issued); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func forged(t *testing.T, method jwt.SigningMethod, header, payload string, key any) string {
	t.Helper()
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + payload
	signature, err := method.Sign(signed, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func mustRefuse(t *testing.T, keys Keys, name string, ticket ticket, other string) {
	t.Helper()
	if other == ticket.text {
		return
	}
	err := ticket.verify(keys, other, issued)
	if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrForged) {
		t.Errorf("%s: %q for %q: got %v, want ErrMalformed or ErrForged", name, other, ticket.text, err)
	}
}

func FuzzVerifyToken(f *testing.F) {
	keys := mustKeys(f, "k1 "+secretA)
	token := tickets(f, keys)["token"].text
	f.Add(token)
	f.Add(token[:len(token)-1])
	f.Add("..")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := keys.VerifyToken(s, issued)
		if err != nil {
			if got != (Token{}) {
				t.Fatalf("refused, and yet %v", got)
			}
			return
		}
		if again, err := keys.SignToken(got); err != nil || again != s {
			t.Fatalf("%q is a second spelling of %q (%v)", s, again, err)
		}
	})
}

func FuzzVerifyRoute(f *testing.F) {
	keys := mustKeys(f, "k1 "+secretA)
	f.Add(tickets(f, keys)["route"].text)
	f.Add(tickets(f, keys)["token"].text)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := keys.VerifyRoute(s, issued)
		if err != nil {
			return
		}
		if again, err := keys.SignRoute(got); err != nil || again != s {
			t.Fatalf("%q is a second spelling of %q (%v)", s, again, err)
		}
	})
}
